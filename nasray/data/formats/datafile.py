"""A data set's YAML file: nasray's own, which names the format, or YOLO's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from nasray.cluster.reading import read_yaml, shown
from nasray.data.formats.huggingface import Wishes
from nasray.data.formats.huggingface_files import find_parquet
from nasray.data.formats.own_keys import OWN_KEYS, OwnKeys, check_classes
from nasray.data.formats.readers import SPLITS, Opened, Reader, coco_reader, open_huggingface, voc_reader, yolo_reader
from nasray.data.formats.yolo_file import is_yolo, read_yolo_file
from nasray.data.image_files.pixels import Orientation, PixelRules
from nasray.spaces import NasrayError
from nasray.validation import checked, validate


@checked
class SplitFiles:
    """Where one split lies, relative to the data set's root.

    Attributes:
        images: Folder of images.
        annotations: COCO: the JSON file; VOC: the folder of XML files.
        lists: VOC: files that name the images; of several, images are strung together.
        files: Hugging Face: Parquet files, or patterns of their names (`data/*.parquet`), in their order.
    """

    images: str | None = None
    annotations: str | None = None
    lists: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


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
        names: Hugging Face: names of the classes 0, 1, ..., where its files have none.
        orientation: Whether images are annotated as a person sees them (turned as EXIF says), or as they are stored.
        value_range: Values of images with more than 8 bits that are black and white; as the files say by default.

    Raises:
        NasrayError: if there is no class in `classes`, or one twice, or the range is none.
    """

    format: Literal["coco", "voc", "huggingface"]
    root: str = "."
    train: SplitFiles | None = None
    val: SplitFiles | None = None
    test: SplitFiles | None = None
    classes: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    orientation: Orientation = "upright"
    value_range: tuple[float, float] | None = None

    @property
    def pixel_rules(self) -> PixelRules:
        """How the images are read."""
        return self._own.pixel_rules

    @property
    def _own(self) -> OwnKeys:
        return OwnKeys(**{key: getattr(self, key) for key in OWN_KEYS})

    def __post_init__(self) -> None:
        _ = self._own  # which refuses what is no choice
        check_classes(self.names, "names")


def open_file(path: Path) -> Opened:
    """Return the splits that a YAML file names.

    Raises:
        NasrayError: if it cannot be read, or a key is wrong.
    """
    mapping = read_yaml(path)
    if is_yolo(mapping):
        file = read_yolo_file(mapping, path)
        return Opened({name: yolo_reader(name, file) for name in file.splits})
    if not isinstance(mapping, dict):
        raise NasrayError(f"{shown(path)} must hold a mapping of keys to values, got {type(mapping).__name__}")
    content = validate(TypeAdapter(DataFile), DataFile, mapping, shown(path))
    root = path.parent / Path(content.root).expanduser()
    given = {name: split for name in SPLITS if (split := getattr(content, name)) is not None}
    if content.format == "huggingface":
        says_rules = not {"orientation", "value_range"}.isdisjoint(mapping)
        return _huggingface(root, given, content, path, content.pixel_rules if says_rules else None)
    if content.names is not None:
        raise NasrayError(f"{shown(path)}: names are of a Hugging Face set; `classes` chooses among those of the files")
    if not given:
        raise NasrayError(f"{path} names no split; it needs at least one of {', '.join(SPLITS)}")
    make = _coco if content.format == "coco" else _voc
    readers = {name: make(name, root, split, content, path) for name, split in given.items()}
    return Opened(readers, content.format == "voc" and content.classes is None)


def _huggingface(
    root: Path, given: dict[str, SplitFiles], content: DataFile, path: Path, rules: PixelRules | None
) -> Opened:
    wishes = Wishes(content.names, content.classes, rules)
    if not given:
        found = find_parquet(root)
        if found is None:
            raise NasrayError(f"{shown(path)}: {shown(root)} holds no Parquet files. Name `files` of train and val")
        return open_huggingface(found[1], wishes)
    splits: dict[str, list[Path]] = {}
    for name, files in given.items():
        if not files.files or files.images or files.annotations or files.lists:
            raise NasrayError(f"{path}: {name} of a Hugging Face set needs `files` alone; or leave all splits out")
        splits[name] = []
        for pattern in files.files:
            matching = sorted(root.glob(pattern)) if any(sign in pattern for sign in "*?[") else [root / pattern]
            if not matching:
                raise NasrayError(f"{shown(path)}: {name}: no file in {shown(root)} is called {pattern!r}")
            splits[name] += matching
    return open_huggingface(splits, wishes)


def _coco(name: str, root: Path, files: SplitFiles, content: DataFile, path: Path) -> Reader:
    if not files.annotations or not files.images or files.lists or files.files:
        raise NasrayError(f"{path}: {name} of a COCO set needs `images` and `annotations`, and nothing else")
    return coco_reader(name, root / files.annotations, (root / files.images,), content.classes, content.pixel_rules)


def _voc(name: str, root: Path, files: SplitFiles, content: DataFile, path: Path) -> Reader:
    if not files.lists:
        raise NasrayError(
            f"{path}: {name} of a VOC set needs `lists`, such as [VOC2007/ImageSets/Main/trainval.txt]; `images` and "
            "`annotations` are the folders beside them if left out"
        )
    folders = {key: root / value for key in ("images", "annotations") if (value := getattr(files, key))}
    lists = [root / item for item in files.lists]
    return voc_reader(name, lists, content.classes, folders, content.pixel_rules)
