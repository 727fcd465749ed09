"""YOLO's layout: a text file for each image, with a line for each object; an image without one is background.

Reference: Ultralytics, "Object Detection Datasets Overview" (docs). Labels are shares of the image's width and height,
so that boxes in pixels are what rounding left of them: six decimals put an edge up to 0.00075 pixels beside its place
in 1,000 pixels. Boxes of whole pixels whose shares have all their digits are whole again as float32.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import to_json
from nasray.cluster.reading import read_text, shown
from nasray.data.dataset import Defect, DetectionSet
from nasray.data.fields import FieldError
from nasray.data.formats.choosing import complete
from nasray.data.formats.rows import Rows, assemble
from nasray.data.formats.yolo_file import YoloFile
from nasray.data.formats.yolo_labels import Label, LabelError, is_label, read_labels
from nasray.data.image_files.decoding import is_image_name
from nasray.data.image_files.images import ImageFiles, listing
from nasray.data.image_files.sizes import file_sizes
from nasray.data.mapped import Texts
from nasray.data.outlines import check_outline, read_outline
from nasray.spaces import NasrayError


def read_yolo(file: YoloFile, name: str) -> DetectionSet:
    """Read one split.

    Image ids count from 1 in the order of the file's entries, in a folder by their names; annotation ids likewise.
    Sizes are those of the image files.

    Args:
        file: The set's YAML file.
        name: Name of the split.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if a folder or a list of images cannot be read, or the set lacks a class that is chosen.
    """
    defects: list[Defect] = []
    images, folders = _images(file, name, defects)
    files = ImageFiles(Path(), Texts.of(images))
    missing = set(files.missing().tolist())
    defects += [Defect("missing-image", f"{name}: no file {shown(images[index])}") for index in sorted(missing)]
    rules = file.own.pixel_rules
    image_hw = file_sizes(files, rules.orientation)
    defects += [
        Defect("unreadable-image", f"{shown(images[index])} is no image, or a damaged one")
        for index in np.flatnonzero(~image_hw.all(axis=1)).tolist()
        if index not in missing
    ]
    found = _Found(defects)
    labels = _LabelFiles(images)
    for index, path in labels.existing():
        found.read(index, path, file.names, tuple(image_hw[index].tolist()))
    defects += labels.shared()
    defects += labels.without_image(folders)
    defects += labels.none_at_all(file.path, name)
    ids = np.arange(1, len(images) + 1, dtype=np.int64)
    rows = found.rows(labels.paths)
    return complete(
        assemble(name, file.names, files, ids, image_hw, rows, defects, rules), file.own.classes, shown(file.path)
    )


# ---- images ------------------------------------------------------------------------------------------------------


def _images(file: YoloFile, name: str, defects: list[Defect]) -> tuple[list[str], list[str]]:
    """Return the images of a split, and those of its entries that are folders."""
    images: list[str] = []
    folders: list[str] = []
    for entry in file.splits[name]:
        path = _entry(file, name, entry)
        if path.is_dir():
            folders.append(str(path))
            images += sorted(_walk(path))
        else:
            images += _listed(path, file.root)
    first: dict[str, int] = {}
    for image in images:
        first[image] = first.get(image, 0) + 1
    defects += [
        Defect("duplicate-image", f"{shown(file.path)}: {name}: {shown(image)} is listed {count} times", count - 1)
        for image, count in first.items()
        if count > 1
    ]
    return images, folders


def _entry(file: YoloFile, name: str, entry: str) -> Path:
    """Return the folder or list that an entry names, relative to the root.

    Sets that Roboflow exports say ../train/images where train/images is meant.

    Raises:
        NasrayError: if there is none.
    """
    tried = [file.root / Path(entry).expanduser()]
    if entry.startswith("../"):
        tried.append(file.root / entry[3:])
    for path in tried:
        if path.is_dir() or (path.suffix == ".txt" and path.is_file()):
            return path
    if tried[0].is_file():
        raise NasrayError(
            f"{shown(file.path)}: {name}: {shown(tried[0])} is neither a folder nor a .txt list of images"
        )
    raise NasrayError(
        f"{shown(file.path)}: {name}: there is no {' or '.join(shown(path) for path in tried)}. Entries are "
        "relative to `path`, which is relative to this file"
    )


def _walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the image files of a folder and of those in it; a folder that holds itself by a link is walked once."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise NasrayError(f"{shown(folder)} cannot be read: {error.strerror}. Check its permissions") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {real})
        elif is_image_name(Path(entry.name)):
            yield entry.path


def _listed(path: Path, root: Path) -> Iterator[str]:
    """Yield the images that a list names, one a line, relative to the list or else to the root."""
    for line in read_text(path).split("\n"):
        if line := line.strip():
            beside, below = path.parent / line, root / line
            yield str(beside if beside.exists() or not below.exists() else below)


# ---- label files -------------------------------------------------------------------------------------------------


def label_path(image: str) -> str:
    """Return the label file of an image: its path with the last folder `images` called `labels`; else beside it."""
    for path in (image, os.path.abspath(image)):
        *folders, name = path.split("/")
        if "images" in folders:
            folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
            return "/".join([*folders, f"{os.path.splitext(name)[0]}.txt"])
    return f"{os.path.splitext(image)[0]}.txt"


class _LabelFiles:
    """The label files of some images.

    Args:
        images: Paths of the images.

    Attributes:
        paths: Path of the label file of each, whether there is one or not.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images
        self.paths = [label_path(image) for image in images]
        self._listings: dict[str, set[str]] = {}

    def _exists(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._listings:
            self._listings[folder] = listing(folder)
        return name in self._listings[folder]

    def existing(self) -> Iterator[tuple[int, str]]:
        """Yield position and label file of each image that has one."""
        return ((index, path) for index, path in enumerate(self.paths) if self._exists(path))

    def shared(self) -> Iterator[Defect]:
        """Yield the images that have the label file of another one."""
        first: dict[str, str] = {}
        for path, image in zip(self.paths, self.images, strict=True):
            if (other := first.setdefault(path, image)) != image:
                message = f"{shown(image)} and {shown(other)} have the same label file, {shown(path)}. Keep one of them"
                yield Defect("duplicate-image", message)

    def without_image(self, folders: Iterable[str]) -> Iterator[Defect]:
        """Yield the label files that lie where those of a folder of images do, but belong to none."""
        known = set(self.paths)
        for folder in folders:
            labels = os.path.dirname(label_path(os.path.join(folder, "x.jpg")))
            for path in sorted(_texts(labels)):
                if path not in known and _holds_labels(path):
                    yield Defect("missing-image", f"{shown(path)} has labels, but there is no image of its name")

    def none_at_all(self, file: Path, name: str) -> Iterator[Defect]:
        """Yield the defect of a split none of whose images has a label file."""
        if self.paths and not any(map(self._exists, self.paths)):
            message = (
                f"{shown(file)}: {name}: none of {len(self.paths):,} images has a label file; that of "
                f"{shown(self.images[0])} was looked for at {shown(self.paths[0])}"
            )
            yield Defect("empty", message)


def _texts(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in names if name.endswith(".txt"))


def _holds_labels(path: str) -> bool:
    """Return whether a text file has a label in its first line, as those of classes and remarks do not."""
    try:
        return is_label(read_text(path).strip().split("\n")[0])
    except NasrayError:
        return False


# ---- objects -----------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """Objects of all images, in their order."""

    defects: list[Defect]
    owners: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    outlines: list[bytes] = field(default_factory=list)
    outlined: list[bool] = field(default_factory=list)

    def read(self, image: int, path: str, names: Sequence[str], image_hw: tuple[int, int]) -> None:
        """Read the label file of an image."""
        try:
            text = read_text(path)
        except NasrayError as error:
            self.defects.append(Defect("bad-annotation", str(error)))
            return
        seen: dict[tuple[int, tuple[float, ...]], int] = {}
        for item in read_labels(text, names):
            where = f"{shown(path)}, line {item.line}"
            if isinstance(item, LabelError):
                self.defects.append(Defect(item.kind, f"{where}: {item}"))
                continue
            if (first := seen.setdefault((item.label, tuple(item.values)), item.line)) != item.line:
                self.defects.append(Defect("duplicate-annotation", f"{where}: it is the same as line {first}"))
            self.owners.append(image)
            self.lines.append(item.line)
            self.labels.append(item.label)
            self._place(item, image_hw, where)

    def _place(self, item: Label, image_hw: tuple[int, int], where: str) -> None:
        """Add the box of an object in pixels, and its outline."""
        height, width = image_hw
        outline = b""
        if item.is_outline:
            corners = np.array(item.values).reshape(-1, 2) * (width, height)
            self.boxes.append((*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()))
            outline = self._outline(corners, image_hw, where)
        else:
            x, y, w, h = item.values
            self.boxes.append(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height))
        self.outlines.append(outline)
        self.outlined.append(item.is_outline)

    def _outline(self, corners: NDArray[np.float64], image_hw: tuple[int, int], where: str) -> bytes:
        polygon = [corners.ravel().tolist()]
        try:
            outline = read_outline(polygon)
            assert outline is not None
            if all(image_hw):
                check_outline(outline, image_hw)
            return outline.text
        except FieldError as error:
            self.defects.append(Defect("bad-outline", f"{where}: segmentation {error}"))
            return to_json(polygon, compact=True).encode()

    def rows(self, paths: Sequence[str]) -> Rows:
        """Return what was found, of images with these label files."""
        number = len(self.labels)
        owners = np.array(self.owners, dtype=np.int64)
        return Rows(
            owners=owners,
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            labels=np.array(self.labels, dtype=np.int64),
            areas=np.zeros(number),
            ignored=np.zeros(number, dtype=bool),
            ids=np.arange(1, number + 1, dtype=np.int64),
            outlines=self.outlines if any(self.outlined) else None,
            describe=lambda row: f"{shown(paths[self.owners[row]])}, line {self.lines[row]}",
        )
