"""A data set's YAML file: nasray's own, which names the format, or YOLO's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from nasray.cluster.reading import read_yaml, shown
from nasray.data.pixels import Orientation, PixelRules
from nasray.data.readers import SPLITS, Opened, Reader, coco_reader, open_shards, voc_reader, yolo_reader
from nasray.data.yolo_file import check_classes, is_yolo, read_yolo_file
from nasray.spaces import NasrayError
from nasray.validation import checked, validate


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
        check_classes(self.classes)


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
    if content.format == "shards":
        if set(mapping) - {"format", "root"}:
            raise NasrayError(
                f"{shown(path)}: packed shards know their splits and classes, and how images are read. Leave only "
                "format and root"
            )
        return open_shards(root)
    given = {name: split for name in SPLITS if (split := getattr(content, name)) is not None}
    if not given:
        raise NasrayError(f"{path} names no split; it needs at least one of {', '.join(SPLITS)}")
    make = _coco if content.format == "coco" else _voc
    readers = {name: make(name, root, split, content, path) for name, split in given.items()}
    return Opened(readers, content.format == "voc" and content.classes is None)


def _coco(name: str, root: Path, files: SplitFiles, content: DataFile, path: Path) -> Reader:
    if not files.annotations or not files.images or files.lists:
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
