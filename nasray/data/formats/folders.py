"""Folders whose layout is known: which set a folder holds, and that it holds one alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nasray.cluster.reading import read_yaml, shown
from nasray.data.formats.datafile import open_file
from nasray.data.formats.huggingface_files import find_parquet
from nasray.data.formats.layouts import recognized_folder
from nasray.data.formats.readers import SPLITS, Opened, Reader, coco_reader, open_huggingface, voc_reader
from nasray.data.formats.yolo_file import SPLIT_KEYS, is_yolo
from nasray.spaces import NasrayError

FORMER_INDEX = "shards.json"
"""Of what nasray packed before it packed as Hugging Face does."""


class Layout(NamedTuple):
    """A layout that a folder has.

    Attributes:
        what: What it is.
        sign: File by which it is known, relative to the folder.
        open: Function that returns its splits.
        advice: How it is chosen where there are others.
    """

    what: str
    sign: str
    open: Callable[[], Opened]
    advice: str


def open_folder(source: str, root: Path) -> Opened:
    """Return the splits of the set that a folder holds; its data.yaml, if it names a format, decides.

    Args:
        source: Folder as the user named it.
        root: The same.

    Raises:
        NasrayError: if there is no known layout in it, or more than one.
    """
    own = root / "data.yaml"
    if own.is_file() and not is_yolo(read_yaml(own)):
        return open_file(own)
    if (root / FORMER_INDEX).is_file():
        raise NasrayError(f"{shown(root)} was packed by an earlier version of nasray. Pack the data set again")
    found = [*_yolo(root), *_huggingface(root), *_coco(root), *_voc(source, root)]
    if len(found) > 1:
        names = " and ".join(f"a {layout.what} set ({layout.sign})" for layout in found)
        choices = ", or ".join(layout.advice for layout in found)
        raise NasrayError(f"folder {shown(source)} holds {names}: it is not clear which is meant. Choose: {choices}")
    if found:
        return found[0].open()
    if message := recognized_folder(root):
        raise NasrayError(message)
    raise NasrayError(
        f"folder {shown(source)} has no layout that nasray knows. COCO: annotations/train.json and images/, or "
        "annotations/instances_train2017.json and train2017/. VOC: Annotations/, ImageSets/Main/train.txt and "
        "JPEGImages/. YOLO: data.yaml with train, val and names. Hugging Face: data/train-00000-of-00001.parquet. "
        "Otherwise write a YAML file with format, root, and images and annotations of train and val"
    )


def _yolo(root: Path) -> Iterator[Layout]:
    """Yield YOLO's YAML files: data.yaml, or else whatever others there are."""
    files = (
        [root / "data.yaml"] if (root / "data.yaml").is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    )
    for path in files:
        if path.name == "data.yaml" or _names_yolo_splits(path):
            yield Layout("YOLO", path.name, functools.partial(open_file, path), f"pass {shown(path)} for YOLO")


def _names_yolo_splits(path: Path) -> bool:
    try:
        content = read_yaml(path)
    except NasrayError:  # of something else
        return False
    return is_yolo(content) and any(key in content for key in SPLIT_KEYS)


def _huggingface(root: Path) -> Iterator[Layout]:
    if found := find_parquet(root):
        place, splits = found
        advice = f"pass {shown(root / place)}" if place != "." else "write a YAML file with `format: huggingface`"
        first = next(iter(splits.values()))[0].relative_to(root).as_posix()
        yield Layout("Hugging Face", first, functools.partial(open_huggingface, splits), advice)


def _coco(root: Path) -> Iterator[Layout]:
    readers: dict[str, Reader] = {}
    sign = ""
    for name in SPLITS:
        found = [*root.glob(f"annotations/{name}.json"), *sorted(root.glob(f"annotations/instances_{name}*.json"))]
        if found:
            stem = found[0].stem.removeprefix("instances_")
            folders = tuple(root / folder for folder in (stem, f"images/{stem}", "images", "."))
            readers[name] = coco_reader(name, found[0], folders)
            sign = sign or f"annotations/{found[0].name}"
    if readers:
        yield Layout("COCO", sign, lambda: Opened(readers), "write a YAML file with `format: coco`")


def _voc(source: str, root: Path) -> Iterator[Layout]:
    years = [
        folder
        for folder in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*")))
        if _voc_readers(folder)
    ]
    if len(years) > 1:
        raise NasrayError(
            f"folder {source} holds several VOC sets: {', '.join(map(str, years))}. Name one of them, or write a YAML "
            "file with `format: voc` and the `lists` of each split"
        )
    if years:
        sign = (years[0] / "ImageSets" / "Main").relative_to(root).as_posix()
        opened = Opened(_voc_readers(years[0]), classes_of_train=True)
        yield Layout("VOC", f"{sign}/", lambda: opened, "write a YAML file with `format: voc`")


def _voc_readers(root: Path) -> dict[str, Reader]:
    lists = root / "ImageSets" / "Main"
    if not (root / "Annotations").is_dir():
        return {}
    files = {name: lists / f"{name}.txt" for name in SPLITS}
    return {name: voc_reader(name, [path]) for name, path in files.items() if path.is_file()}
