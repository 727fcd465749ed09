"""Annotated boxes as a reader finds them, and the data set that they make together with their images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nasray.data.dataset import Defect, DetectionSet, fix_boxes
from nasray.data.image_files.images import ImageSource
from nasray.data.image_files.pixels import PixelRules
from nasray.data.outlines import Segmentations


@dataclass(frozen=True, eq=False)
class Rows:
    """N boxes, sorted by image.

    Attributes:
        owners: (N,) positions of their images.
        boxes: (N, 4) xyxy in pixels.
        labels: (N,)
        areas: (N,) in pixels; 0 for that of the box.
        ignored: (N,) whether they are neither learned nor counted.
        ids: (N,) the data set's own ids.
        outlines: JSON of N segmentations, empty for none; None where the set has none at all.
        describe: Function that returns what a message calls a row.
    """

    owners: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    ids: NDArray[np.int64]
    outlines: Sequence[bytes] | None
    describe: Callable[[int], str]


def assemble(
    name: str,
    classes: tuple[str, ...],
    files: ImageSource,
    image_ids: NDArray[np.int64],
    image_hw: NDArray[np.int64],
    rows: Rows,
    defects: list[Defect],
    rules: PixelRules,
) -> DetectionSet:
    """Return the set of some images and their boxes, cut at the edges of images; boxes that are none are left out.

    Args:
        name: Name of the split.
        classes: Names in the order of labels; their ids are 0, 1, and so on.
        files: The images.
        image_ids: (I,)
        image_hw: (I, 2) in pixels; (0, 0) where it is not known, which is a defect already.
        rows: Boxes.
        defects: What was wrong with them so far.
        rules: How the images are read.
    """
    boxes = rows.boxes.copy()
    sized = np.flatnonzero(image_hw[rows.owners].min(axis=1, initial=1) > 0)
    boxes[sized], bad = fix_boxes(boxes[sized], image_hw[rows.owners[sized]])
    wrong = np.zeros(len(boxes), dtype=bool)
    for kind, place, reason in bad:
        row = int(sized[place])
        wrong[row] |= kind != "clipped-box"
        defects.append(Defect(kind, f"{rows.describe(row)}: {reason}"))
    kept = np.flatnonzero(~wrong)
    boxes, areas = boxes[kept], rows.areas[kept]
    return DetectionSet(
        name=name,
        classes=classes,
        category_ids=tuple(range(len(classes))),
        files=files,
        image_ids=image_ids,
        image_hw=image_hw,
        offsets=np.searchsorted(rows.owners[kept], np.arange(len(image_ids) + 1)).astype(np.int64),
        boxes=boxes,
        labels=rows.labels[kept],
        areas=np.where(areas > 0, areas, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)),
        ignored=rows.ignored[kept],
        annotation_ids=rows.ids[kept],
        segmentations=_segmentations(rows, kept.tolist(), defects),
        defects=tuple(defects),
        pixel_rules=rules,
    )


def _segmentations(rows: Rows, kept: list[int], defects: list[Defect]) -> Segmentations | None:
    if rows.outlines is None:
        return None
    outlines = [rows.outlines[row] for row in kept]
    defects += [
        Defect("no-outline", f"{rows.describe(row)} has no segmentation")
        for row, outline in zip(kept, outlines, strict=True)
        if not outline
    ]
    return Segmentations.of_texts(outlines)
