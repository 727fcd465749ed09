"""Pascal VOC's folders: one XML file for each image, and lists of images for each split."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nasray.cluster.reading import read_text, shown
from nasray.data import fields
from nasray.data.dataset import Defect, DetectionSet, class_defects, emptiness, fix_boxes
from nasray.data.fields import FieldError
from nasray.data.formats.xml import read_xml
from nasray.data.image_files.decoding import IMAGE_SUFFIXES
from nasray.data.image_files.images import ImageFiles, stored_size
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.data.mapped import Texts
from nasray.spaces import NasrayError

EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Picture:
    """What one XML file says of one image."""

    path: Path
    annotation: Path
    image_hw: tuple[int, int] = (0, 0)
    objects: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    def describe(self) -> str:
        """Return the file, and the image that it is of."""
        return f"{shown(self.annotation)}: image {shown(self.path)}"


def read_voc(
    lists: Sequence[Path],
    *,
    name: str,
    classes: Sequence[str] | None = None,
    subset: bool = False,
    images: Path | None = None,
    annotations: Path | None = None,
    rules: PixelRules = DEFAULT_RULES,
) -> DetectionSet:
    """Read one split.

    VOC's pixels count from 1 and its boxes include their last pixel: xyxy is (xmin - 1, ymin - 1, xmax, ymax).
    Image ids count from 1 in the order of the lists, annotation ids likewise.

    Args:
        lists: Files such as VOC2007/ImageSets/Main/train.txt; of several, images are strung together.
        name: Name of the split.
        classes: Names in the order of labels; the sorted names of the split's own objects if left out.
        subset: Whether to leave objects of other classes out, instead of taking them for errors.
        images: Folder; JPEGImages beside each list's ImageSets if left out.
        annotations: Folder; Annotations beside each list's ImageSets if left out.
        rules: How the images are read.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if a list cannot be read.
    """
    defects: list[Defect] = []
    pictures: list[_Picture] = []
    for path in lists:
        root = path.parents[2] if len(path.parents) > 2 else path.parent
        pictures += _listed(path, images or root / "JPEGImages", annotations or root / "Annotations")
    seen: set[Path] = set()
    for picture in pictures:
        if picture.annotation in seen:
            defects.append(Defect("duplicate-image", f"{picture.describe()}: it is listed before"))
        seen.add(picture.annotation)
        _read_picture(picture, rules, defects)
    files = ImageFiles(Path(), Texts.of([str(picture.path) for picture in pictures]))
    defects += [
        Defect("missing-image", f"{shown(pictures[index].annotation)}: no file {shown(pictures[index].path)}")
        for index in files.missing()
    ]
    names = [one for picture in pictures for one in picture.names]
    known = tuple(map(fields.class_name, classes)) if classes is not None else tuple(sorted(set(names)))
    image_hw = np.array([picture.image_hw for picture in pictures], dtype=np.int64).reshape(-1, 2)
    owners = np.repeat(np.arange(len(pictures)), [len(picture.names) for picture in pictures])
    boxes = np.array([box for picture in pictures for box in picture.boxes], dtype=np.float64).reshape(-1, 4)
    sized = np.flatnonzero(image_hw[owners].min(axis=1, initial=1) > 0)
    boxes[sized], bad = fix_boxes(boxes[sized], image_hw[owners[sized]])
    numbers = [number for picture in pictures for number in picture.objects]
    wrong = _foreign(names, [pictures[owner] for owner in owners], known, subset, defects)
    for kind, place, reason in bad:
        row = int(sized[place])
        picture = pictures[owners[row]]
        where = f"{shown(picture.annotation)}: object {numbers[row]} ({names[row]}) of image {shown(picture.path)}"
        defects.append(Defect(kind, f"{where}: {reason}"))
        if kind != "clipped-box":
            wrong.add(row)
    kept = np.array([row for row in range(len(names)) if row not in wrong], dtype=np.intp)
    boxes = boxes[kept]
    difficult = np.array([flag for picture in pictures for flag in picture.difficult], dtype=bool)[kept]
    labels = {one: label for label, one in enumerate(known)}
    where = ", ".join(map(shown, lists))
    return DetectionSet(
        name=name,
        classes=known,
        category_ids=tuple(range(1, len(known) + 1)),
        files=files,
        image_ids=np.arange(1, len(pictures) + 1, dtype=np.int64),
        image_hw=image_hw,
        offsets=np.searchsorted(owners[kept], np.arange(len(pictures) + 1)).astype(np.int64),
        boxes=boxes,
        labels=np.array([labels[names[row]] for row in kept], dtype=np.int64),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        ignored=difficult,
        annotation_ids=kept.astype(np.int64) + 1,
        defects=(*defects, *class_defects(known, where), *emptiness(name, len(pictures), difficult, where)),
        pixel_rules=rules,
    )


# ---- lists -------------------------------------------------------------------------------------------------------


def _listed(path: Path, images: Path, annotations: Path) -> list[_Picture]:
    """Return the images that a list names, one a line; names may hold spaces.

    Lists of one class have a second column: -1 says that the class is not there. A name that itself ends like this is
    known by its annotation file.
    """
    annotated = {os.path.splitext(name)[0] for name in _names(annotations)}
    files = _image_files(images)
    pictures = []
    for line in read_text(path).split("\n"):
        stem = line.removesuffix("\r")
        if stem not in annotated:
            stem = stem.strip()
        column = re.fullmatch(r"(.*\S)\s+(-1|0|1)", stem)
        if column and stem not in annotated:
            if column[2] == "-1":
                continue
            stem = column[1]
        if stem:
            pictures.append(_Picture(images / files.get(stem, f"{stem}.jpg"), annotations / f"{stem}.xml"))
    return pictures


def _image_files(folder: Path) -> dict[str, str]:
    """Return the image files of a folder by their names without suffix."""
    found: dict[str, str] = {}
    for name in sorted(_names(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in IMAGE_SUFFIXES:
            other = os.path.splitext(found.get(stem, name))[1].lower()
            if stem not in found or IMAGE_SUFFIXES.index(suffix.lower()) < IMAGE_SUFFIXES.index(other):
                found[stem] = name
    return found


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


# ---- annotations -------------------------------------------------------------------------------------------------


def _read_picture(picture: _Picture, rules: PixelRules, defects: list[Defect]) -> None:
    try:
        there = picture.annotation.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        message = f"image {shown(picture.path)}: no annotation file {shown(picture.annotation)}"
        defects.append(Defect("missing-annotation", message))
        return
    try:
        root = read_xml(picture.annotation, "annotation")
    except NasrayError as error:
        defects.append(Defect("bad-annotation", str(error)))
        return
    reader = _Reader(defects)
    _read_size(picture, root, rules, reader)
    for number, item in enumerate(root.iter("object"), start=1):
        before = len(defects)
        where = f"{picture.describe()}, object {number}"
        name = reader.take(item, "name", fields.class_name, where)
        where += f" ({name})" if name else ""
        difficult = reader.take(item, "difficult", fields.flag_of_text, where, default=False)
        edges = [reader.take(item, f"bndbox/{edge}", fields.number_of_text, where, kind="bad-box") for edge in EDGES]
        bad = len(defects) > before
        for unused in ("truncated", "occluded"):
            reader.take(item, unused, fields.flag_of_text, where, default=False, kind="odd-field")
        if bad:
            continue
        left, top, right, bottom = edges
        # A box whose edges fall together is meant to be empty, though inclusive pixels would make it 1 wide.
        empty = right <= left or bottom <= top
        picture.boxes.append([left - 1, top - 1, left - 1 if empty else right, top - 1 if empty else bottom])
        picture.objects.append(number)
        picture.names.append(name)
        picture.difficult.append(difficult)


def _read_size(picture: _Picture, root: ElementTree.Element, rules: PixelRules, reader: _Reader) -> None:
    before = len(reader.defects)
    height, width = (
        reader.take(root, f"size/{side}", _side, picture.describe(), default=0) for side in ("height", "width")
    )
    if height and width:
        picture.image_hw = (height, width)
    elif len(reader.defects) > before:
        return
    elif stored := stored_size(picture.path, rules.orientation):
        picture.image_hw = stored
        where = f"{shown(picture.annotation)} has no width and height of {shown(picture.path)}"
        message = f"{where}; the file's are {stored[::-1]}"
        reader.defects.append(Defect("image-size", message))
    elif picture.path.exists():
        message = f"{shown(picture.path)}: neither annotation nor file tell its size"
        reader.defects.append(Defect("unreadable-image", message))


def _side(text: str) -> int:
    return fields.integer(fields.number_of_text(text), 0, fields.MAX_SIDE)


@dataclass
class _Reader:
    """Reads elements by their type; what cannot be read becomes a defect."""

    defects: list[Defect]

    def take(
        self,
        item: ElementTree.Element,
        path: str,
        read: Callable[[str], Any],
        where: str,
        *,
        default: Any = None,
        kind: str = "bad-field",
    ) -> Any:
        """Return the value of an element, None if it cannot be read; with a default it may be left out or empty."""
        found = item.findall(path)
        text = (found[0].text or "").strip() if found else ""
        if len(found) > 1:
            problem = f"{path} occurs {len(found)} times"
        elif found and len(found[0]):
            problem = f"{path} holds other elements, not a value"
        elif not text and default is not None:
            return default
        elif not found:
            problem = f"{path} is missing"
        else:
            try:
                return read(text)
            except FieldError as error:
                problem = f"{path} {error}"
        self.defects.append(Defect(kind, f"{where}: {problem}"))
        return None


def _foreign(
    names: list[str], pictures: list[_Picture], known: tuple[str, ...], subset: bool, defects: list[Defect]
) -> set[int]:
    """Return rows of classes that are not known."""
    listed = set(known)
    rows = [row for row, name in enumerate(names) if name not in listed]
    if subset:
        for name, count in Counter(names[row] for row in rows).items():
            defects.append(Defect("class-left-out", f"class {name!r}: {count:,} boxes", count))
    else:
        for row in rows:
            message = f"{pictures[row].describe()}: object of class {names[row]!r}"
            defects.append(Defect("unknown-category", f"{message}; classes are {', '.join(known)}"))
    return set(rows)
