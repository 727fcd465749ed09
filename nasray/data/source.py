"""From what a user names to a data set: a YAML file, a folder whose layout is known, or "shapes"."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nasray.cluster.reading import shown
from nasray.data.dataset import Defect, DetectionSet, refuse_errors
from nasray.data.formats.datafile import open_file
from nasray.data.formats.folders import open_folder
from nasray.data.formats.huggingface_files import parquet_file
from nasray.data.formats.layouts import recognized_file
from nasray.data.formats.readers import Opened, Reader, open_huggingface
from nasray.data.image_files.headers import refuse_other_pixels
from nasray.data.image_files.images import ImageFiles
from nasray.data.shapes import SHAPES, shapes_set
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean


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
        source: "shapes" for the embedded set; a YAML file, see `DataFile`, or YOLO's; a Parquet file; or a folder: one
            with a data.yaml, or in the layout of Hugging Face (data/train-00000-of-00001.parquet), COCO
            (annotations/train.json or annotations/instances_train2017.json, and images/ or train2017/) or VOC
            (Annotations/, ImageSets/Main/, JPEGImages/).

    Raises:
        NasrayError: if there is no such file or folder, or it is none of these.
    """
    if source == "shapes":
        return DataSource(source, {name: functools.partial(_shapes, name) for name in SHAPES})
    path = Path(source)
    opened: Opened | None = None
    try:
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            opened = open_file(path)
        elif path.is_file() and path.suffix == ".parquet":
            opened = open_huggingface(parquet_file(path))
        elif path.is_dir():
            opened = open_folder(source, path)
        there = path.exists()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise NasrayError(f"data set {shown(source)} cannot be read: {error.strerror}. Check its path") from error
    if opened is not None:
        return DataSource(source, opened.readers, opened.classes_of_train)
    if there and (message := recognized_file(path)):
        raise NasrayError(message)
    what = "is neither a folder nor a YAML or Parquet file" if there else "does not exist"
    raise NasrayError(
        f"data set {shown(source)} {what}. Give a YAML file, a folder in the layout of COCO, VOC, YOLO or Hugging "
        'Face, or "shapes" for the embedded set'
    )


def _shapes(name: str, _: Sequence[str] | None) -> DetectionSet:
    return shapes_set(name)
