"""PASCAL VOC's average precision at an IoU of 0.5.

Reference: Everingham et al., "The PASCAL visual object classes (VOC) challenge", IJCV 2010, section 4.2, and the
development kits of 2007 (eleven recalls) and 2012 (the area under the curve).

Differs from the kits in:
- Boxes are continuous: width is x_max - x_min. The kits count whole pixels, 1-based and inclusive, and add 1; nasray's
  reader has turned those into the same continuous edges, so that areas and overlaps are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nasray.data.dataset import DetectionSet
    from nasray.evaluation.predictions import Predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VocMetrics:
    """Average precision in [0, 1] of every class that has boxes; NaN for the others, and their means.

    Attributes:
        class_ap07: (C,) by the eleven points of 2007.
        class_ap12: (C,) by the area of 2012.
        ap50_voc07: Mean of `ap07` over the classes that have boxes.
        ap50_voc12: The same of `ap12`.
    """

    class_ap07: Floats
    class_ap12: Floats
    ap50_voc07: float
    ap50_voc12: float


def voc_metrics(dataset: DetectionSet, predictions: Predictions, *, iou_threshold: float = 0.5) -> VocMetrics:
    """Hold predictions against a data set. Difficult boxes (`ignored`) count as neither right nor wrong."""
    num_classes = len(dataset.classes)
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    ap07, ap12 = np.full(num_classes, np.nan), np.full(num_classes, np.nan)
    for label in range(num_classes):
        truth, found = dataset.labels == label, predictions.labels == label
        num_boxes = int((truth & ~dataset.ignored).sum())
        if not num_boxes:
            continue
        right, counts = matched(
            owners[truth],
            dataset.boxes[truth],
            dataset.ignored[truth],
            predictions.image_index[found],
            predictions.boxes[found],
            predictions.scores[found],
            iou_threshold,
        )
        recall, precision = precision_curve(right[counts], num_boxes)
        ap07[label], ap12[label] = eleven_point_ap(recall, precision), area_ap(recall, precision)
    any_class = np.isfinite(ap07).any()
    return VocMetrics(
        ap07,
        ap12,
        float(np.nanmean(ap07)) if any_class else float("nan"),
        float(np.nanmean(ap12)) if any_class else float("nan"),
    )


def matched(
    owners: NDArray[np.int64],
    boxes: NDArray[np.floating],
    ignored: NDArray[np.bool_],
    image_index: NDArray[np.int64],
    found: NDArray[np.floating],
    scores: NDArray[np.floating],
    iou_threshold: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections of one class are right, and which count at all; both (D,), by falling score.

    A detection belongs to the box of its image that it overlaps most. It is right if the overlap reaches the
    threshold and no better detection has that box; it does not count if the box is difficult.

    Args:
        owners: (N,) image of each box.
        boxes: (N, 4) xyxy.
        ignored: (N,) difficult ones.
        image_index: (D,) image of each detection.
        found: (D, 4) xyxy.
        scores: (D,); of equal ones the first counts as better.
        iou_threshold: Least overlap.
    """
    order = np.argsort(-scores, kind="stable")
    by_image = {int(image): np.flatnonzero(owners == image) for image in np.unique(owners)}
    taken = np.zeros(len(boxes), dtype=bool)
    right, counts = np.zeros(len(order), dtype=bool), np.ones(len(order), dtype=bool)
    for place, detection in enumerate(order.tolist()):
        candidates = by_image.get(int(image_index[detection]))
        if candidates is None:
            continue
        overlaps = _overlaps(found[detection].astype(np.float64), boxes[candidates].astype(np.float64))
        best = int(overlaps.argmax())
        if overlaps[best] < iou_threshold:
            continue
        box = candidates[best]
        if ignored[box]:
            counts[place] = False
        elif not taken[box]:
            taken[box] = right[place] = True
    return right, counts


def _overlaps(box: Floats, boxes: Floats) -> Floats:
    """Return (N,) IoU of a box with others."""
    shared = (np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])).clip(0).prod(axis=1)
    area = (box[2:] - box[:2]).prod()
    overlaps: Floats = shared / np.maximum(area + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared, 1e-12)
    return overlaps


def precision_curve(right: NDArray[np.bool_], num_boxes: int) -> tuple[Floats, Floats]:
    """Return the recall and precision, each (D,), after each of D detections by falling score."""
    hits = np.cumsum(right).astype(np.float64)
    return hits / num_boxes, hits / np.arange(1, len(right) + 1)


def eleven_point_ap(recall: Floats, precision: Floats) -> float:
    """Return the mean of the best precision at recalls of at least 0, 0.1, ..., 1 (VOC 2007)."""
    points = [precision[recall >= point].max(initial=0.0) for point in np.arange(11) / 10]
    return float(np.mean(points))


def area_ap(recall: Floats, precision: Floats) -> float:
    """Return the area under the precision made monotone (VOC 2010 to 2012)."""
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    monotone = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * monotone[steps + 1]).sum())
