"""Pascal VOC's folders: one XML file for each image, and lists of images for each split."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nasray.data.dataset import Defect, DetectionSet, emptiness, mend_boxes
from nasray.data.images import ImageFiles, stored_size
from nasray.spaces import NasrayError


@dataclass
class _Picture:
    """What one XML file says of one image."""

    path: Path
    annotation: Path
    image_hw: tuple[int, int] = (0, 0)
    names: list[str] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)


def read_voc(
    lists: Sequence[Path], *, name: str, classes: Sequence[str] | None = None, subset: bool = False,
    images: Path | None = None, annotations: Path | None = None,
) -> DetectionSet:  # fmt: skip
    """Read one split.

    VOC's pixels count from 1 and its boxes include their last pixel: xyxy is (xmin - 1, ymin - 1, xmax, ymax).
    Image ids count from 1 in the order of the lists, annotation ids likewise.

    Args:
        lists: files such as VOC2007/ImageSets/Main/train.txt; of several, images are strung together.
        name: of the split.
        classes: names in the order of labels; the sorted names of the split's own objects if left out.
        subset: leave objects of other classes out, instead of taking them for errors.
        images: folder; JPEGImages beside each list's ImageSets if left out.
        annotations: folder; Annotations beside each list's ImageSets if left out.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if a list is missing, or an XML file is torn.
    """
    defects: list[Defect] = []
    pictures: list[_Picture] = []
    for path in lists:
        root = path.parents[2] if len(path.parents) > 2 else path.parent
        pictures += _listed(path, images or root / "JPEGImages", annotations or root / "Annotations")
    for picture in pictures:
        _read_xml(picture, defects)
    files = ImageFiles(Path(), np.array([str(picture.path) for picture in pictures], dtype=np.str_))
    defects += [
        Defect("missing-image", f"{pictures[index].annotation}: no file {pictures[index].path}")
        for index in files.missing()
    ]
    known = tuple(classes if classes is not None else sorted({one for picture in pictures for one in picture.names}))
    image_hw = np.array([picture.image_hw for picture in pictures], dtype=np.int64).reshape(-1, 2)
    owners = np.repeat(np.arange(len(pictures)), [len(picture.names) for picture in pictures])
    boxes = np.array([box for picture in pictures for box in picture.boxes], dtype=np.float64).reshape(-1, 4)
    boxes, bad = mend_boxes(boxes, image_hw[owners])
    names = [one for picture in pictures for one in picture.names]
    first = np.searchsorted(owners, owners)  # of the same image, to count objects from 1 in messages
    for kind, row, reason in bad:
        picture = pictures[owners[row]]
        where = f"{picture.annotation}: object {row - first[row] + 1} ({names[row]}) of image {picture.path}"
        defects.append(Defect(kind, f"{where}: {reason}"))
    wrong = {row for kind, row, _ in bad if kind != "clipped-box"}
    wrong |= _foreign(names, [pictures[owner] for owner in owners], known, subset, defects)
    kept = np.array([row for row in range(len(names)) if row not in wrong], dtype=np.intp)
    boxes = boxes[kept]
    difficult = np.array([flag for picture in pictures for flag in picture.difficult], dtype=bool)[kept]
    where = ", ".join(map(str, lists))
    return DetectionSet(
        name=name,
        classes=known,
        category_ids=tuple(range(1, len(known) + 1)),
        files=files,
        image_ids=np.arange(1, len(pictures) + 1, dtype=np.int64),
        image_hw=image_hw,
        offsets=np.searchsorted(owners[kept], np.arange(len(pictures) + 1)).astype(np.int64),
        boxes=boxes,
        labels=np.array([known.index(names[row]) for row in kept], dtype=np.int64),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        ignored=difficult,
        annotation_ids=kept.astype(np.int64) + 1,
        defects=(*defects, *emptiness(name, len(pictures), difficult, where)),
    )


def _listed(path: Path, images: Path, annotations: Path) -> list[_Picture]:
    """The images that a list names. Lists of one class have a second column: -1 says that the class is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise NasrayError(f"cannot read the list of images {path}: {error.strerror}") from error
    stems = [words[0] for words in map(str.split, lines) if words and words[1:] != ["-1"]]
    suffixes = {file.stem: file.name for file in images.iterdir()} if images.is_dir() else {}
    return [_Picture(images / suffixes.get(stem, f"{stem}.jpg"), annotations / f"{stem}.xml") for stem in stems]


def _read_xml(picture: _Picture, defects: list[Defect]) -> None:
    try:
        root = ElementTree.parse(picture.annotation).getroot()
    except OSError:
        message = f"image {picture.path}: no annotation file {picture.annotation}"
        defects.append(Defect("missing-annotation", message))
        return
    except ElementTree.ParseError as error:
        raise NasrayError(f"{picture.annotation} is not valid XML, perhaps torn: {error}") from error
    height, width = _number(root, "size/height"), _number(root, "size/width")
    if height >= 1 and width >= 1:
        picture.image_hw = (int(height), int(width))
    elif stored := stored_size(picture.path):
        picture.image_hw = stored
        message = f"{picture.annotation} has no width and height of {picture.path}; the file's are {stored[::-1]}"
        defects.append(Defect("image-size", message))
    elif picture.path.exists():
        defects.append(Defect("unreadable-image", f"{picture.path}: neither annotation nor file tell its size"))
    for item in root.iter("object"):
        left, top, right, bottom = (_number(item, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
        # A box whose edges fall together is meant to be empty, though inclusive pixels would make it 1 wide.
        empty = right <= left or bottom <= top
        picture.boxes.append([left - 1, top - 1, left - 1 if empty else right, top - 1 if empty else bottom])
        picture.names.append((item.findtext("name") or "").strip())
        picture.difficult.append((item.findtext("difficult") or "0").strip() == "1")


def _number(item: ElementTree.Element, path: str) -> float:
    """A number of the tree, NaN where there is none."""
    try:
        return float(item.findtext(path) or "nan")
    except ValueError:
        return math.nan


def _foreign(
    names: list[str], pictures: list[_Picture], known: tuple[str, ...], subset: bool, defects: list[Defect]
) -> set[int]:
    """Rows of classes that are not known."""
    rows = [row for row, name in enumerate(names) if name not in known]
    if subset:
        for name, count in Counter(names[row] for row in rows).items():
            defects.append(Defect("class-left-out", f"{count:,} objects of class {name!r}"))
    else:
        for row in rows:
            message = f"{pictures[row].annotation}: object of class {names[row]!r} of image {pictures[row].path}"
            defects.append(Defect("unknown-category", f"{message}; classes are {', '.join(known)}"))
    return set(rows)
