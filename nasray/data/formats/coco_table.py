"""What a COCO file says, as flat arrays: a function of the file's content alone, so that it can be kept and shared.

Every field is read by its type (`nasray.data.fields`); what is not of it is a defect that names image, annotation and
field. Messages leave out the file's own path: the same content may lie elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import to_json
from nasray.cluster.reading import parse_json
from nasray.data import fields
from nasray.data.dataset import fix_boxes
from nasray.data.fields import FieldError
from nasray.data.formats.coco_images import (
    Fields,
    FindSizes,
    Images,
    Message,
    find_missing_sizes,
    read_categories,
    read_images,
)
from nasray.data.mapped import Arrays, Texts
from nasray.data.outlines import Outline, Segmentations, check_outline, read_outline
from nasray.spaces import NasrayError

VERSION = "2"
"""Of what is kept; to be raised with every change of this file or of what it calls that changes a table."""

LISTS = ("images", "annotations", "categories")
USED = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation")


@dataclass(frozen=True, eq=False)
class CocoTable:
    """I images and N boxes, sorted by image; see `DetectionSet` for what is not said here.

    Attributes:
        classes: Classes in the order of their ids.
        names: File names.
        defects: Messages.
        sized: Whether all sizes were annotated, and none had to be read from its file.
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    names: Texts
    image_ids: NDArray[np.int64]
    image_hw: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    segmentations: Segmentations | None
    defects: list[Message]
    sized: bool = True


def parse_coco(content: bytes, source: str, find_sizes: FindSizes) -> CocoTable:
    """Read the content of a file.

    Args:
        content: JSON.
        source: Name of the source for messages.
        find_sizes: The stored height and width of each of these images, for those without annotated ones.

    Raises:
        NasrayError: if it is no JSON, or not of COCO's form.
    """
    with _without_collections():
        file = _load(content, source)
        del content
        defects: list[Message] = []
        category_ids, classes = read_categories(file["categories"], defects)
        images = read_images(file["images"], defects)
        sized = find_missing_sizes(images, find_sizes, defects)
        rows = _annotations(file["annotations"], images, category_ids, defects)
        del file
        return _table(images, rows, category_ids, classes, defects, sized)


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Disable garbage collection: to look for cycles among millions of new objects takes longer than to read them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _load(text: bytes, source: str) -> dict[str, Any]:
    content = parse_json(text, source, each=_compact, finite=False)
    file: dict[str, Any] = content if isinstance(content, dict) else {}
    missing = [key for key in LISTS if not isinstance(file.get(key), list)]
    if missing:
        raise NasrayError(
            f"{source} is not of COCO's form: it needs lists {', '.join(LISTS)} and lacks {', '.join(missing)}"
        )
    for key in LISTS:
        for position, record in enumerate(file[key]):
            if not isinstance(record, dict):
                raise NasrayError(f"{source}: {key}[{position}] must be a mapping, got {fields.shown_value(record)}")
    return file


def _compact(record: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation with its outline as text, and without what is not used: a tenth of the memory."""
    if "image_id" in record and "segmentation" in record:
        record = {key: record[key] for key in USED if key in record}
        try:
            record["segmentation"] = read_outline(record["segmentation"])
        except FieldError as error:
            record["segmentation"] = error
    return record


# ---- annotations -------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """Annotations that could be read, of images and categories that are known."""

    ids: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    ignored: list[bool] = field(default_factory=list)
    outlines: list[bytes] = field(default_factory=list)
    outlined: list[bool] = field(default_factory=list)


NO_ID = -1
"""Stands for the id of an annotation that has none."""


def _area(value: Any) -> float:
    return fields.number(value, 0)


def _annotations(
    records: list[dict[str, Any]], images: Images, category_ids: Sequence[int], defects: list[Message]
) -> _Rows:
    label_of = {number: label for label, number in enumerate(category_ids)}
    listed = ", ".join(map(str, category_ids)) if len(category_ids) <= 20 else f"{len(category_ids)} ids"
    rows, reader = _Rows(), Fields()
    seen: set[int] = set()
    for position, record in enumerate(records):
        number = reader.take(record, "id", fields.integer, default=NO_ID)
        where = f"annotation {number}" if number not in (None, NO_ID) else f"annotations[{position}]"
        image_id = reader.take(record, "image_id", fields.integer)
        category = reader.take(record, "category_id", fields.integer)
        image = images.positions.get(image_id) if image_id is not None else None
        if image is not None:
            where = f"{where} of {images.describe(image)}"
        area = reader.take(record, "area", _area, default=0.0)
        crowd = reader.take(record, "iscrowd", fields.flag, default=False)
        ignore = reader.take(record, "ignore", fields.flag, default=False)
        bad = bool(reader.problems)
        if bad:
            defects += reader.told("bad-field", where)
        box = reader.take(record, "bbox", fields.box)
        if box is None:
            defects += reader.told("bad-box", where)
        if image_id is not None and image is None:
            defects.append(("unknown-image", f"{where} is of image id {image_id}, which is not listed", 1))
        if category is not None and category not in label_of:
            message = f"{where} has category id {category}; listed are {listed}"
            defects.append(("unknown-category", message, 1))
        if bad or box is None or image is None or category not in label_of:
            continue
        if number in seen:
            message = f"{where}: the id occurs before"
            defects.append(("duplicate-annotation", message, 1))
        elif number != NO_ID:
            seen.add(number)
        outline = _outline(record, images.sizes[image], where, defects)
        rows.ids.append(number)
        rows.images.append(image)
        rows.labels.append(label_of[category])
        rows.boxes.append(box)
        rows.areas.append(area)
        rows.ignored.append(crowd or ignore)
        rows.outlines.append(outline.text if isinstance(outline, Outline) else b"")
        rows.outlined.append(outline is not None)
    return rows


def _outline(
    record: dict[str, Any], image_hw: tuple[int, int], where: str, defects: list[Message]
) -> Outline | FieldError | None:
    """Return the segmentation of an annotation, None where it has none, an error where it is wrong."""
    found = record.get("segmentation")
    try:
        if isinstance(found, FieldError):
            raise found
        if isinstance(found, Outline) and image_hw != (0, 0):
            check_outline(found, image_hw)
    except FieldError as error:
        defects.append(("bad-outline", f"{where}: segmentation {error}", 1))
        return error
    return found


def _table(
    images: Images,
    rows: _Rows,
    category_ids: tuple[int, ...],
    classes: tuple[str, ...],
    defects: list[Message],
    sized: bool,
) -> CocoTable:
    """Return the arrays, without boxes that are none."""
    owners = np.array(rows.images, dtype=np.int64)
    image_hw = np.array(images.sizes, dtype=np.int64).reshape(-1, 2)
    boxes = np.array(rows.boxes, dtype=np.float64).reshape(-1, 4)
    if looks := other_format(boxes, image_hw[owners]):
        defects.append(("other-boxes", looks, len(boxes)))
    boxes[:, 2:] += boxes[:, :2]
    known = image_hw[owners].min(axis=1, initial=1) > 0
    clipped, bad = fix_boxes(boxes[known], image_hw[owners[known]])
    places = np.flatnonzero(known)
    boxes[known] = clipped
    wrong = np.zeros(len(boxes), dtype=bool)
    for kind, place, reason in bad:
        row = places[place]
        wrong[row] |= kind != "clipped-box"
        number = f"annotation {rows.ids[row]}" if rows.ids[row] != NO_ID else "an annotation without id"
        defects.append((kind, f"{number} of {images.describe(rows.images[row])}: {reason}", 1))
    order = np.argsort(owners, kind="stable")
    kept = order[~wrong[order]]
    boxes = boxes[kept]
    areas = np.array(rows.areas, dtype=np.float64)[kept]
    segmentations = None
    if any(rows.outlined):
        for row in kept.tolist():
            if not rows.outlined[row]:
                message = f"annotation {rows.ids[row]} of {images.describe(rows.images[row])} has no segmentation"
                defects.append(("no-outline", message, 1))
        segmentations = Segmentations.of_texts([rows.outlines[row] for row in kept.tolist()])
    return CocoTable(
        classes=classes,
        category_ids=category_ids,
        names=Texts.of(images.names),
        image_ids=np.array(images.ids, dtype=np.int64),
        image_hw=image_hw,
        offsets=np.searchsorted(owners[kept], np.arange(len(images.ids) + 1)).astype(np.int64),
        boxes=boxes,
        labels=np.array(rows.labels, dtype=np.int64)[kept],
        areas=np.where(areas > 0, areas, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)),
        ignored=np.array(rows.ignored, dtype=bool)[kept],
        annotation_ids=np.array(rows.ids, dtype=np.int64)[kept],
        segmentations=segmentations,
        defects=defects,
        sized=sized,
    )


MANY = 10
"""Boxes from which on it is said that they look like those of another format."""


def other_format(boxes: NDArray[np.float64], image_hw: NDArray[np.int64]) -> str | None:
    """Return what (N, 4) boxes that should be x, y, width, height in pixels look like; None if like that."""
    if len(boxes) < MANY:
        return None
    if boxes.max() <= 1:
        return "all boxes lie between 0 and 1: they look like shares of the image, and are read as pixels"
    sides = image_hw[:, ::-1]
    beyond = (boxes[:, :2] + boxes[:, 2:] > sides + 1).any(axis=1)
    corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, 2:] <= sides + 1)).all(axis=1)
    if beyond.mean() > 0.3 and corners.all():
        return (
            f"{beyond.sum():,} of {len(boxes):,} boxes go beyond their image: they look like corners [x1, y1, x2, y2], "
            "and are read as [x, y, width, height]"
        )
    return None


# ---- keeping it --------------------------------------------------------------------------------------------------

COLUMNS = ("image_ids", "image_hw", "offsets", "boxes", "labels", "areas", "ignored", "annotation_ids")


def table_to_arrays(table: CocoTable) -> Arrays:
    """Return a table as arrays alone."""
    arrays: Arrays = {name: getattr(table, name) for name in COLUMNS}
    arrays |= {"names": table.names.content, "name_offsets": table.names.offsets}
    if table.segmentations is not None:
        arrays |= {"outlines": table.segmentations.content, "outline_bounds": table.segmentations.bounds}
    rest = to_json({"classes": table.classes, "category_ids": table.category_ids, "defects": table.defects})
    return {**arrays, "rest": np.frombuffer(rest.encode(), dtype=np.uint8)}


def table_from_arrays(arrays: Arrays) -> CocoTable:
    """Return the table that was made into arrays."""
    rest = parse_json(arrays["rest"].tobytes(), "annotations in the cache")
    outlines = Segmentations(arrays["outlines"], arrays["outline_bounds"]) if "outlines" in arrays else None
    columns: Any = {name: arrays[name] for name in COLUMNS}
    return CocoTable(
        classes=tuple(rest["classes"]),
        category_ids=tuple(rest["category_ids"]),
        names=Texts(arrays["names"], arrays["name_offsets"]),
        segmentations=outlines,
        defects=[(kind, message, count) for kind, message, count in rest["defects"]],
        **columns,
    )
