"""COCO's JSON: images, categories and annotations in one file for each split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import read_bytes, shown
from nasray.data.coco_table import VERSION, CocoTable, parse_coco, table_from_arrays, table_to_arrays
from nasray.data.dataset import Defect, DetectionSet, class_defects, emptiness
from nasray.data.fields import class_name
from nasray.data.images import ImageFiles, stored_size
from nasray.data.mapped import Arrays, shared_arrays, source_digest
from nasray.data.pixels import DEFAULT_RULES, PixelRules
from nasray.spaces import NasrayError

SHARED_BYTES = 8 * 2**20
"""Files of at least this size are parsed once for all processes; smaller ones are parsed faster than looked up."""
TRIED = 200
"""Images by which it is decided in which folder they lie."""


def read_coco(
    annotations: Path,
    folders: Sequence[Path],
    *,
    name: str,
    classes: Sequence[str] | None = None,
    rules: PixelRules = DEFAULT_RULES,
) -> DetectionSet:
    """Read one split.

    Category ids may have gaps; labels follow the order of the ids. Crowds are kept as ignored boxes. A large file is
    parsed once and then mapped by all processes, see `nasray.data.mapped`.

    Args:
        annotations: The JSON file.
        folders: Folders where images may lie; the one that holds most of them is taken.
        name: Name of the split.
        classes: Names to take, in the order of labels; annotations of others are left out. All if left out.
        rules: How the images are read.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if the file is missing, no JSON, or not of COCO's form; or if it lacks one of `classes`.
    """
    table = _read_table(annotations, folders, rules)
    files = ImageFiles(_folder(folders, table.names), table.names)
    where = shown(annotations)
    defects = [Defect(kind, f"{where}: {message}", count) for kind, message, count in table.defects]
    for index in files.missing():
        message = f"{where}: image id {table.image_ids[index]}: no file {shown(files.name(index))}"
        defects.append(Defect("missing-image", message))
    known = dict(zip(table.classes, table.category_ids, strict=True))
    left_out: list[Defect] = []
    if classes is not None:
        classes = [class_name(one) for one in classes]
        if missing := [one for one in classes if one not in known]:
            raise NasrayError(f"{where} has no categories {missing} of `classes`; it has {list(known)}")
        table, left_out = _choose(table, classes, where)
    defects += class_defects(table.classes, where)
    defects += left_out
    defects += emptiness(name, len(table.image_ids), table.ignored, annotations)
    return DetectionSet(
        name=name,
        classes=table.classes,
        category_ids=table.category_ids,
        files=files,
        image_ids=table.image_ids,
        image_hw=table.image_hw,
        offsets=table.offsets,
        boxes=table.boxes,
        labels=table.labels,
        areas=table.areas,
        ignored=table.ignored,
        annotation_ids=table.annotation_ids,
        segmentations=table.segmentations,
        defects=tuple(defects),
        pixel_rules=rules,
    )


def _read_table(path: Path, folders: Sequence[Path], rules: PixelRules) -> CocoTable:
    """Return what the file says, from the cache where it is large."""

    def find_sizes(names: Sequence[str]) -> Iterator[tuple[int, int] | None]:
        folder = _folder(folders, names)
        return (stored_size(folder / name, rules.orientation) for name in names)

    def parse() -> CocoTable:
        return parse_coco(read_bytes(path), shown(path), find_sizes)

    try:
        large = path.stat().st_size >= SHARED_BYTES
        digest = source_digest(path, VERSION) if large else ""
    except (OSError, ValueError):
        return parse()  # which says what is wrong with it
    if not large:
        return parse()
    parsed: list[CocoTable] = []

    def make() -> Arrays | None:
        parsed.append(parse())
        return table_to_arrays(parsed[0]) if parsed[0].sized else None

    arrays = shared_arrays("annotations", digest, make)
    return table_from_arrays(arrays) if arrays is not None else parsed[0]


def _folder(folders: Sequence[Path], names: Sequence[str]) -> Path:
    """Return the folder that holds most of the images, going by some of them; the first of several."""
    if len(folders) == 1 or not len(names):
        return folders[0]
    step = -(-len(names) // TRIED)
    tried = [names[index] for index in range(0, len(names), step)]
    return max(folders, key=lambda folder: sum(_is_file(folder / name) for name in tried))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _choose(table: CocoTable, classes: Sequence[str], where: str) -> tuple[CocoTable, list[Defect]]:
    """Return the boxes of some classes, in their order, and what is left out."""
    positions = {one: label for label, one in enumerate(classes)}
    new_labels = np.array([positions.get(one, -1) for one in table.classes] or [0], dtype=np.int64)
    labels = new_labels[table.labels]
    kept = labels >= 0
    names: Iterable[str] = (table.classes[label] for label in table.labels[~kept].tolist())
    defects = [
        Defect("class-left-out", f"{where}: class {one!r}: {count:,} boxes", count)
        for one, count in Counter(names).items()
    ]
    counts: NDArray[np.int64] = np.r_[0, kept.cumsum()][table.offsets]
    rows = np.flatnonzero(kept)
    ids = dict(zip(table.classes, table.category_ids, strict=True))
    chosen = dataclasses.replace(
        table,
        classes=tuple(classes),
        category_ids=tuple(ids[one] for one in classes),
        offsets=counts,
        boxes=table.boxes[rows],
        labels=labels[rows],
        areas=table.areas[rows],
        ignored=table.ignored[rows],
        annotation_ids=table.annotation_ids[rows],
        segmentations=table.segmentations.select(rows) if table.segmentations is not None else None,
    )
    return chosen, defects
