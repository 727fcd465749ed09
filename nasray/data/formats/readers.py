"""Functions that read one split each, which can be pickled; what opening a data set gives are these, one a split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nasray.data.dataset import DetectionSet
from nasray.data.formats.coco import read_coco
from nasray.data.formats.huggingface import Wishes, has_text_categories, read_huggingface
from nasray.data.formats.voc import read_voc
from nasray.data.formats.yolo import read_yolo
from nasray.data.formats.yolo_file import YoloFile
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules

SPLITS = ("train", "val", "test")

Reader = Callable[[Sequence[str] | None], DetectionSet]
"""Reads a split, given the classes of train where they follow from its objects."""


class Opened(NamedTuple):
    """What a data set's file or folder says, before any of its splits is read.

    Attributes:
        readers: Readers of each split, in the order train, val, test.
        classes_of_train: Whether other splits must be read with the classes that train has.
    """

    readers: dict[str, Reader]
    classes_of_train: bool = False


def coco_reader(
    name: str,
    annotations: Path,
    folders: tuple[Path, ...],
    classes: Sequence[str] | None = None,
    rules: PixelRules = DEFAULT_RULES,
) -> Reader:
    """Return the reader of a split of a COCO set; the arguments are those of `read_coco`."""
    return functools.partial(_coco, name, annotations, folders, classes, rules)


def voc_reader(
    name: str,
    lists: list[Path],
    classes: Sequence[str] | None = None,
    folders: Mapping[str, Path] | None = None,
    rules: PixelRules = DEFAULT_RULES,
) -> Reader:
    """Return the reader of a split of a VOC set; the arguments are those of `read_voc`, `folders` those by keyword."""
    return functools.partial(_voc, name, lists, classes, dict(folders or {}), rules)


def yolo_reader(name: str, file: YoloFile) -> Reader:
    """Return the reader of a split of a YOLO set."""
    return functools.partial(_yolo, name, file)


def open_huggingface(splits: Mapping[str, Sequence[Path]], wishes: Wishes | None = None) -> Opened:
    """Return the splits of a set of Hugging Face; the footer of its first file is read.

    Args:
        splits: Files of each split.
        wishes: What a YAML file says of the set.

    Raises:
        NasrayError: if the first file is not of a detection set.
    """
    wishes = wishes or Wishes()
    readers: dict[str, Reader] = {
        name: functools.partial(_huggingface, name, tuple(paths), wishes) for name, paths in splits.items()
    }
    return Opened(readers, classes_of_train=has_text_categories(next(iter(splits.values()))[0]))


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


def _yolo(name: str, file: YoloFile, _: Sequence[str] | None) -> DetectionSet:
    return read_yolo(file, name)


def _huggingface(name: str, paths: tuple[Path, ...], wishes: Wishes, train: Sequence[str] | None) -> DetectionSet:
    return read_huggingface(paths, name, wishes, train)
