"""From what a user names to a data set: a YAML file, a folder whose layout is known, or "shapes"."""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from nasray.cluster.reading import read_yaml, shown
from nasray.data.coco import read_coco
from nasray.data.dataset import Defect, DetectionSet, refuse_errors
from nasray.data.fields import FieldError, class_name
from nasray.data.headers import refuse_other_pixels
from nasray.data.images import ImageFiles
from nasray.data.layouts import is_yolo, recognized_file, recognized_folder, yolo_message
from nasray.data.pixels import DEFAULT_RULES, Orientation, PixelRules
from nasray.data.shapes import SHAPES, shapes_set
from nasray.data.shards import INDEX as SHARDS
from nasray.data.shards import read_shards, shard_splits
from nasray.data.voc import read_voc
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.validation import checked, validate

SPLITS = ("train", "val", "test")

Reader = Callable[[Sequence[str] | None], DetectionSet]
"""Reads a split, given the classes of train where they follow from its objects."""


@checked
class SplitFiles:
    """Where one split lies, relative to the data set's root.

    Attributes:
        images: Folder of images.
        annotations: COCO: the JSON file; VOC: the folder of XML files.
        lists: VOC: files that name the images; of several, images are strung together.
    """

    images: str | None = None
    annotations: str | None = None
    lists: tuple[str, ...] = ()


@checked
class DataFile:
    """What a data set's YAML file says.

    Attributes:
        format: Format of the files.
        root: Folder that all paths are relative to, itself relative to the YAML file.
        train: Data set to train on.
        val: Data set to choose by.
        test: Data set to report on.
        classes: Names in the order of labels; objects of others are left out. All by default.
        orientation: Whether images are annotated as a person sees them (turned as EXIF says), or as they are stored.
        value_range: Values of images with more than 8 bits that are black and white; as the files say by default.

    Raises:
        NasrayError: if there is no class in `classes`, or one twice, or the range is none.
    """

    format: Literal["coco", "voc", "shards"]
    root: str = "."
    train: SplitFiles | None = None
    val: SplitFiles | None = None
    test: SplitFiles | None = None
    classes: tuple[str, ...] | None = None
    orientation: Orientation = "upright"
    value_range: tuple[float, float] | None = None

    @property
    def pixel_rules(self) -> PixelRules:
        """How the images are read."""
        return PixelRules(self.orientation, self.value_range)

    def __post_init__(self) -> None:
        _ = self.pixel_rules  # which refuses a range that is none
        if self.classes is None:
            return
        try:
            names = [class_name(name) for name in self.classes]
        except FieldError as error:
            raise NasrayError(f"classes: each {error}") from None
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise NasrayError(f"classes: {twice[0]!r} occurs twice; write every class once")
        if not names:
            raise NasrayError("classes: none is chosen; name at least one, or leave `classes` out for all")


@dataclass(eq=False)
class DataSource:
    """The splits of one data set, each read when it is first asked for.

    Attributes:
        source: Source as the user named it.
        readers: Readers of each split, in the order train, val, test.
        classes_of_train: Whether other splits must be read with the classes that train has.
    """

    source: str
    readers: dict[str, Reader]
    classes_of_train: bool = False
    _read: dict[str, DetectionSet] = field(default_factory=dict, repr=False)
    _usable: set[str] = field(default_factory=set, repr=False)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits there are."""
        return tuple(self.readers)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of labels: those of train, or of the first split there is."""
        return self.read(self.splits[0]).classes

    def all_splits(self) -> Iterator[DetectionSet]:
        """Return every split, as `split` returns it, when it is asked for."""
        return map(self.split, self.splits)

    def split(self, name: str) -> DetectionSet:
        """Return a split to use; print on standard error, once, what was wrong with it and has been fixed.

        Raises:
            NasrayError: if there is none of this name, if it has errors (the first of each kind is shown), or if its
                classes are not those of the splits read before.
        """
        dataset = self.read(name)
        if name not in self._usable:
            refuse_errors(dataset, self.source)
            refuse_other_pixels(dataset, self.source)
            self._usable.add(name)
            self._tell_overlap(dataset)
        for other in self._read.values():
            if message := category_difference(other, dataset):
                raise NasrayError(f"data set {self.source}: {message}")
        return dataset

    def _tell_overlap(self, dataset: DetectionSet) -> None:
        """Say on standard error what a split shares with those that are used already."""
        for name in self._usable - {dataset.name}:
            if defect := overlap(self._read[name], dataset):
                print(f"data set {self.source}: {defect.message}", file=sys.stderr)

    def read(self, name: str) -> DetectionSet:
        """Return a split with whatever is wrong with it.

        Raises:
            NasrayError: if there is none of this name, or its files cannot be read at all.
        """
        if name not in self.readers:
            raise NasrayError(
                f"data set {self.source} has no split {name!r}{did_you_mean(name, self.readers)} "
                f"It has: {', '.join(self.readers)}"
            )
        if name not in self._read:
            first = self.splits[0]
            classes = self.read(first).classes if self.classes_of_train and name != first else None
            self._read[name] = self.readers[name](classes)
        return self._read[name]


def category_difference(one: DetectionSet, other: DetectionSet) -> str | None:
    """Return how the categories of two splits differ, or None."""
    if (one.classes, one.category_ids) == (other.classes, other.category_ids):
        return None
    tables = [dict(zip(dataset.category_ids, dataset.classes, strict=True)) for dataset in (one, other)]
    differing = sorted(
        number for number in tables[0].keys() | tables[1].keys() if tables[0].get(number) != tables[1].get(number)
    )
    shown = ", ".join(
        f"id {number}: {tables[0].get(number)!r} and {tables[1].get(number)!r}" for number in differing[:5]
    )
    return (
        f"the categories of {one.name!r} and {other.name!r} differ in {len(differing)} ids "
        f"({shown}); write the same categories into both files, or choose `classes` in a YAML file"
    )


def overlap(one: DetectionSet, other: DetectionSet) -> Defect | None:
    """Return the images that two splits share, or None; packed images are not compared."""
    files = [_image_paths(dataset) for dataset in (one, other)]
    shared = [
        f"{folder}/{name}"
        for folder in sorted(files[0].keys() & files[1].keys())
        for name in sorted(files[0][folder] & files[1][folder])
    ]
    if not shared:
        return None
    message = (
        f"{len(shared):,} of the {len(other):,} images of {other.name!r} are in {one.name!r} too, such as "
        f"{shown(shared[0])}: what is measured on them says nothing about new images"
    )
    return Defect("split-overlap", message, len(shared))


def _image_paths(dataset: DetectionSet) -> dict[str, set[str]]:
    """Return the names of image files by their folder, with links followed."""
    folders: dict[str, set[str]] = {}
    if isinstance(dataset.files, ImageFiles):
        for path in map(dataset.files.name, range(len(dataset))):
            folder, _, name = path.rpartition("/")
            folders.setdefault(folder, set()).add(name)
    found: dict[str, set[str]] = {}
    for folder, names in folders.items():
        found.setdefault(os.path.realpath(folder), set()).update(names)
    return found


def open_data(source: str) -> DataSource:
    """Return a data set by name.

    Args:
        source: "shapes" for the embedded set; a YAML file, see `DataFile`; or a folder: one with a data.yaml, packed
            shards, COCO's layout (annotations/train.json or annotations/instances_train2017.json, and images/ or
            train2017/), or VOC's (Annotations/, ImageSets/Main/, JPEGImages/).

    Raises:
        NasrayError: if there is no such file or folder, or it is none of these.
    """
    if source == "shapes":
        return DataSource(source, {name: functools.partial(_shapes, name) for name in SHAPES})
    path = Path(source)
    try:
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            return _from_file(source, path)
        if path.is_dir():
            if (path / "data.yaml").is_file():
                return _from_file(source, path / "data.yaml")
            return _from_folder(source, path)
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise NasrayError(f"data set {shown(source)} cannot be read: {error.strerror}. Check its path") from error
    if there and (message := recognized_file(path)):
        raise NasrayError(message)
    what = "is neither a YAML file nor a folder" if there else "does not exist"
    raise NasrayError(
        f"data set {shown(source)} {what}. Give a YAML file, a folder in COCO's or VOC's layout, or \"shapes\" for the "
        "embedded set"
    )


# ---- YAML --------------------------------------------------------------------------------------------------------


def _from_file(source: str, path: Path) -> DataSource:
    mapping = read_yaml(path)
    if is_yolo(mapping):
        raise NasrayError(yolo_message(source))
    if not isinstance(mapping, dict):
        raise NasrayError(f"{shown(path)} must hold a mapping of keys to values, got {type(mapping).__name__}")
    content = validate(TypeAdapter(DataFile), DataFile, mapping, shown(path))
    root = path.parent / Path(content.root).expanduser()
    if content.format == "shards":
        if set(mapping) - {"format", "root"}:
            raise NasrayError(
                f"{shown(path)}: packed shards know their splits and classes, and how images are read. Leave only "
                "format and root"
            )
        return _from_shards(source, root)
    given = {name: split for name in SPLITS if (split := getattr(content, name)) is not None}
    if not given:
        raise NasrayError(f"{path} names no split; it needs at least one of {', '.join(SPLITS)}")
    make = _coco_reader if content.format == "coco" else _voc_reader
    readers = {name: make(name, root, split, content, path) for name, split in given.items()}
    return DataSource(source, readers, content.format == "voc" and content.classes is None)


def _coco_reader(name: str, root: Path, files: SplitFiles, content: DataFile, path: Path) -> Reader:
    if not files.annotations or not files.images or files.lists:
        raise NasrayError(f"{path}: {name} of a COCO set needs `images` and `annotations`, and nothing else")
    return functools.partial(
        _coco, name, root / files.annotations, (root / files.images,), content.classes, content.pixel_rules
    )


def _voc_reader(name: str, root: Path, files: SplitFiles, content: DataFile, path: Path) -> Reader:
    if not files.lists:
        raise NasrayError(
            f"{path}: {name} of a VOC set needs `lists`, such as [VOC2007/ImageSets/Main/trainval.txt]; `images` and "
            "`annotations` are the folders beside them if left out"
        )
    folders = {key: root / value for key in ("images", "annotations") if (value := getattr(files, key))}
    lists = [root / item for item in files.lists]
    return functools.partial(_voc, name, lists, content.classes, folders, content.pixel_rules)


# ---- folders -----------------------------------------------------------------------------------------------------


def _from_folder(source: str, root: Path) -> DataSource:
    if (root / SHARDS).is_file():
        return _from_shards(source, root)
    if readers := _coco_layout(root):
        return DataSource(source, readers)
    years = [
        folder
        for folder in (root, *sorted(root.glob("VOC20*")), *sorted(root.glob("VOCdevkit/VOC20*")))
        if _voc_layout(folder)
    ]
    if len(years) > 1:
        raise NasrayError(
            f"folder {source} holds several VOC sets: {', '.join(map(str, years))}. Name one of them, or write a YAML "
            "file with `format: voc` and the `lists` of each split"
        )
    if years:
        return DataSource(source, _voc_layout(years[0]), classes_of_train=True)
    if message := recognized_folder(root):
        raise NasrayError(message)
    raise NasrayError(
        f"folder {shown(source)} has no layout that nasray knows. COCO: annotations/train.json and images/, or "
        "annotations/instances_train2017.json and train2017/. VOC: Annotations/, ImageSets/Main/train.txt and "
        "JPEGImages/. Otherwise write a YAML file with format, root, and images and annotations of train and val"
    )


def _coco_layout(root: Path) -> dict[str, Reader]:
    readers: dict[str, Reader] = {}
    for name in SPLITS:
        found = [*root.glob(f"annotations/{name}.json"), *sorted(root.glob(f"annotations/instances_{name}*.json"))]
        if found:
            stem = found[0].stem.removeprefix("instances_")
            folders = tuple(root / folder for folder in (stem, f"images/{stem}", "images", "."))
            readers[name] = functools.partial(_coco, name, found[0], folders, None, DEFAULT_RULES)
    return readers


def _voc_layout(root: Path) -> dict[str, Reader]:
    lists = root / "ImageSets" / "Main"
    if not (root / "Annotations").is_dir():
        return {}
    return {
        name: functools.partial(_voc, name, [lists / f"{name}.txt"], None, {}, DEFAULT_RULES)
        for name in SPLITS
        if (lists / f"{name}.txt").is_file()
    }


# ---- readers that can be pickled ---------------------------------------------------------------------------------


def _coco(
    name: str,
    annotations: Path,
    folders: tuple[Path, ...],
    chosen: Sequence[str] | None,
    rules: PixelRules,
    _: Sequence[str] | None,
) -> DetectionSet:
    return read_coco(annotations, folders, name=name, classes=chosen, rules=rules)


def _voc(
    name: str,
    lists: list[Path],
    chosen: Sequence[str] | None,
    folders: dict[str, Path],
    rules: PixelRules,
    train: Sequence[str] | None,
) -> DetectionSet:
    subset = chosen is not None
    return read_voc(lists, name=name, classes=chosen or train, subset=subset, rules=rules, **folders)


def _from_shards(source: str, root: Path) -> DataSource:
    return DataSource(source, {name: functools.partial(_shards, name, root) for name in shard_splits(root)})


def _shards(name: str, root: Path, _: Sequence[str] | None) -> DetectionSet:
    return read_shards(root, name)


def _shapes(name: str, _: Sequence[str] | None) -> DetectionSet:
    return shapes_set(name)
