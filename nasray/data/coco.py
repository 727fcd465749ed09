"""COCO's JSON: images, categories and annotations in one file for each split."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.data.dataset import Defect, DetectionSet, Segmentations, emptiness, mend_boxes
from nasray.data.images import ImageFiles, stored_size
from nasray.spaces import NasrayError


def read_coco(
    annotations: Path, folders: Sequence[Path], *, name: str, classes: Sequence[str] | None = None
) -> DetectionSet:
    """Read one split.

    Category ids may have gaps; labels follow the order of the ids. Crowds are kept as ignored boxes.

    Args:
        annotations: the JSON file.
        folders: where images may lie; the first that holds the first image is taken.
        name: of the split.
        classes: names to take, in the order of labels; annotations of others are left out. All if left out.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if the file is missing, no JSON, or not of COCO's form; or if it lacks one of `classes`.
    """
    content = _load(annotations)
    defects: list[Defect] = []
    table = _categories(content["categories"], annotations, defects)
    category_ids, names = _chosen(table, classes, annotations)
    image_ids, files = _images(content["images"], folders, annotations, defects)
    image_hw = _sizes(content["images"], files, defects)
    rows = _known_rows(content["annotations"], image_ids, category_ids, table, annotations, defects)
    boxes, bad = mend_boxes(_boxes(rows.records), image_hw[rows.images])
    for kind, row, reason in bad:
        image = f"image {files.name(rows.images[row])} (id {rows.records[row]['image_id']})"
        defects.append(Defect(kind, f"{annotations}: annotation {rows.records[row].get('id')} of {image}: {reason}"))
    wrong = {row for kind, row, _ in bad if kind != "clipped-box"}
    kept = np.array([row for row in np.argsort(rows.images, kind="stable") if row not in wrong], dtype=np.intp)
    records = [rows.records[row] for row in kept]
    boxes = boxes[kept]
    sizes = boxes[:, 2:] - boxes[:, :2]
    ids = [record.get("id") for record in records]
    areas = np.array([_number(record.get("area")) for record in records], dtype=np.float64)
    ignored = np.array([bool(record.get("iscrowd") or record.get("ignore")) for record in records], dtype=bool)
    defects += emptiness(name, len(image_ids), ignored, annotations)
    return DetectionSet(
        name=name,
        classes=names,
        category_ids=category_ids,
        files=files,
        image_ids=image_ids,
        image_hw=image_hw,
        offsets=np.searchsorted(rows.images[kept], np.arange(len(image_ids) + 1)).astype(np.int64),
        boxes=boxes,
        labels=rows.labels[kept],
        areas=np.where(areas > 0, areas, sizes.prod(axis=1)),
        ignored=ignored,
        annotation_ids=np.array([number if isinstance(number, int) else -1 for number in ids], dtype=np.int64),
        segmentations=_segmentations(records, annotations, defects),
        defects=tuple(defects),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise NasrayError(f"cannot read annotations {path}: {error.strerror}") from error
    except ValueError as error:
        raise NasrayError(f"{path} is not valid JSON, perhaps torn: {error}") from error
    keys = ("images", "annotations", "categories")
    missing = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if missing:
        raise NasrayError(f"{path} is not of COCO's form: it needs lists {', '.join(keys)} and lacks {missing}")
    for key in keys:
        for position, record in enumerate(content[key]):
            if not isinstance(record, dict):
                raise NasrayError(f"{path}: {key}[{position}] must be a mapping, got {record!r}")
    return content


def _require(record: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise NasrayError(f"{where} needs {key!r} of type {kind.__name__}, got {value!r}")
    return value


def _plain(value: Any) -> Any:
    """A value that can be looked up."""
    return value if isinstance(value, int | float | str) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _categories(records: list[dict[str, Any]], path: Path, defects: list[Defect]) -> dict[int, str]:
    """Names by id, in the order of ids."""
    table: dict[int, str] = {}
    for position, record in enumerate(records):
        where = f"{path}: categories[{position}]"
        number, name = _require(record, "id", int, where), _require(record, "name", str, where)
        if number in table or name in table.values():
            defects.append(Defect("duplicate-category", f"{where}: id {number} or name {name!r} occurs before"))
        table.setdefault(number, name)
    return dict(sorted(table.items()))


def _chosen(
    table: dict[int, str], classes: Sequence[str] | None, path: Path
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and names in the order of labels."""
    if classes is None:
        return tuple(table), tuple(table.values())
    numbers = {name: number for number, name in table.items()}
    if missing := [name for name in classes if name not in numbers]:
        raise NasrayError(f"{path} has no categories {missing} of `classes`; it has {list(numbers)}")
    return tuple(numbers[name] for name in classes), tuple(classes)


def _images(
    records: list[dict[str, Any]], folders: Sequence[Path], path: Path, defects: list[Defect]
) -> tuple[NDArray[np.int64], ImageFiles]:
    seen: dict[int, str] = {}
    names = []
    for position, record in enumerate(records):
        where = f"{path}: images[{position}]"
        number, name = _require(record, "id", int, where), _require(record, "file_name", str, where)
        if number in seen:
            defects.append(Defect("duplicate-image", f"{where}: id {number} of {name} is that of {seen[number]} too"))
        seen[number] = name
        names.append(name)
    first = names[0] if names else ""
    folder = next((folder for folder in folders if (folder / first).is_file()), folders[0])
    files = ImageFiles(folder, np.array(names, dtype=np.str_))
    for index in files.missing():
        message = f"{path}: image id {records[index]['id']}: no file {files.name(index)}"
        defects.append(Defect("missing-image", message))
    return np.array([record["id"] for record in records], dtype=np.int64), files


def _sizes(records: list[dict[str, Any]], files: ImageFiles, defects: list[Defect]) -> NDArray[np.int64]:
    """(I, 2) heights and widths; what is not annotated is read from the file."""
    sizes = np.zeros((len(records), 2), dtype=np.int64)
    for index, record in enumerate(records):
        height, width = record.get("height"), record.get("width")
        if isinstance(height, int) and isinstance(width, int) and min(height, width) > 0:
            sizes[index] = height, width
            continue
        stored = stored_size(Path(files.name(index)))
        sizes[index] = stored or (0, 0)
        where = f"image {files.name(index)} (id {record['id']})"
        if stored:
            defects.append(Defect("image-size", f"{where} has no width and height; the file's are {stored[::-1]}"))
        elif Path(files.name(index)).exists():  # one that does not is a defect of its own
            defects.append(Defect("unreadable-image", f"{where}: neither annotation nor file tell its size"))
    return sizes


class _Rows(NamedTuple):
    """Annotations whose image and category are known, with the position of the one and the label of the other."""

    records: list[dict[str, Any]]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]


def _known_rows(
    records: list[dict[str, Any]], image_ids: NDArray[np.int64], category_ids: Sequence[int],
    table: dict[int, str], path: Path, defects: list[Defect],
) -> _Rows:  # fmt: skip
    positions = {number: index for index, number in enumerate(image_ids.tolist())}
    label_of = {number: label for label, number in enumerate(category_ids)}
    left_out: Counter[str] = Counter()
    seen: set[Any] = set()
    known: list[dict[str, Any]] = []
    images: list[int] = []
    labels: list[int] = []
    for position, record in enumerate(records):
        number, image_id, category = (_plain(record.get(key)) for key in ("id", "image_id", "category_id"))
        where = f"{path}: annotation {number if number is not None else f'at position {position}'}"
        if image_id not in positions:
            defects.append(Defect("unknown-image", f"{where} is of image id {image_id}, which is not listed"))
        elif category not in table:
            listed = ", ".join(map(str, table)) if len(table) <= 20 else f"{len(table)} ids"
            message = f"{where} of image id {image_id} has category id {category}; listed are {listed}"
            defects.append(Defect("unknown-category", message))
        elif category not in label_of:
            left_out[table[category]] += 1
        else:
            if number in seen:
                defects.append(Defect("duplicate-annotation", f"{where} of image id {image_id}: the id occurs before"))
            seen.add(number)
            known.append(record)
            images.append(positions[image_id])
            labels.append(label_of[category])
    for name, count in left_out.items():
        defects.append(Defect("class-left-out", f"{path}: {count:,} annotations of class {name!r}"))
    return _Rows(known, np.array(images, dtype=np.int64), np.array(labels, dtype=np.int64))


def _boxes(records: list[dict[str, Any]]) -> NDArray[np.float64]:
    """(N, 4) xyxy; NaN where a box is missing or no box."""
    boxes = np.full((len(records), 4), np.nan)
    for row, record in enumerate(records):
        box = record.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int | float) for edge in box):
            boxes[row] = box
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _segmentations(records: list[dict[str, Any]], path: Path, defects: list[Defect]) -> Segmentations | None:
    values = [record.get("segmentation") for record in records]
    if not any(values):
        return None
    for record, value in zip(records, values, strict=True):
        if not value:
            message = f"{path}: annotation {record.get('id')} of image id {record['image_id']} has no segmentation"
            defects.append(Defect("no-outline", message))
    return Segmentations.of(values)
