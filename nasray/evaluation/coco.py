"""COCO's average precision, by hotcoco, or by pycocotools where hotcoco is not installed.

Reference: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#detection-eval.

All figures are in [0, 1] and unrounded; NaN where nothing can be said (no box of that size, no box of that class). Both
libraries give the same figures to the last bit, which the tests show; hotcoco takes a fraction of the time.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from nasray.data.dataset import DetectionSet

Library = tuple[Any, Any]
"""The classes `COCO` and `COCOeval` of pycocotools, or of a library that has its interface."""

AP_NAMES = ("mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
AR_NAMES = ("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large")
NAMES = (*AP_NAMES, *AR_NAMES)
"""COCO's twelve numbers in COCO's order. mAP is the mean over IoU .50:.05:.95 (COCO's "AP"); small is below 32 x 32
pixels of area, large above 96 x 96; AR_n is the recall with n detections an image."""

IOUS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
"""At which COCO states precision."""


@dataclass(frozen=True, eq=False)
class CocoMetrics:
    """Figures of COCO's evaluation.

    Attributes:
        summary: Twelve numbers, by `NAMES`.
        class_ap: (C,) mAP of every class.
        class_ap50: (C,) AP50 of every class.
        precision: (T, R, C) precision at `IOUS` and `RECALLS`, of all sizes and with 100 detections an image; -1 for a
            class without boxes.
    """

    summary: dict[str, float]
    class_ap: NDArray[np.float64]
    class_ap50: NDArray[np.float64]
    precision: NDArray[np.float64]


def coco_metrics(
    dataset: DetectionSet, predictions: Predictions, *, iou_type: str = "bbox", library: Library | None = None
) -> CocoMetrics:
    """Compare predictions with a data set. Ignored boxes count as neither right nor wrong.

    Args:
        dataset: Data set with its true boxes.
        predictions: Predictions for all of its images.
        iou_type: "bbox", or "segm" for masks.
        library: Implementation; hotcoco by default, or pycocotools where hotcoco is not installed.
    """
    return coco_metrics_of(dataset.to_coco(), predictions.to_coco(dataset), iou_type=iou_type, library=library)


def mask_summary(dataset: DetectionSet, predictions: Predictions) -> dict[str, float]:
    """Return the twelve numbers of masks as `mask_mAP` and so on; none where detector or data set have no masks."""
    if predictions.masks is None or dataset.segmentations is None:
        return {}
    summary = coco_metrics(dataset, predictions, iou_type="segm").summary
    return {f"mask_{name}": value for name, value in summary.items()}


def coco_metrics_of(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    iou_type: str = "bbox",
    library: Library | None = None,
) -> CocoMetrics:
    """Compare the contents of COCO's annotation and result files; classes in the order of `categories`.

    Where masks are compared, an object without an outline counts as its whole box, and a result's size is that of its
    mask.
    """
    evaluation = evaluate_coco(annotations, results, iou_type=iou_type, library=library)
    values = [float(value) if value > -1 else float("nan") for value in evaluation.stats[: len(NAMES)]]
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class; all sizes, 100 boxes
    precision = precision[:, :, np.argsort(np.argsort([category["id"] for category in annotations["categories"]]))]
    return CocoMetrics(dict(zip(NAMES, values, strict=True)), _mean(precision), _mean(precision[:1]), precision)


def evaluate_coco(
    annotations: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    iou_type: str = "bbox",
    library: Library | None = None,
) -> Any:
    """Return a library's `COCOeval` after its three steps; what is given stays as it is."""
    make_set, make_evaluation = library or default_library()
    # Ranks in place of ids: hotcoco takes no negative ones. Their order decides between detections of equal scores.
    images, categories = (_ranks(annotations[name]) for name in ("images", "categories"))
    objects, found_objects = (
        [
            {**item, "image_id": images[item["image_id"]], "category_id": categories[item["category_id"]]}
            for item in items
        ]
        for items in (annotations["annotations"], results)
    )
    if iou_type == "segm":
        for item in objects:
            item.setdefault("segmentation", [_corners(*item["bbox"])])
        for item in found_objects:  # a result that has a box is as large as its box, not as its mask
            item.pop("bbox", None)
    content = {
        "images": [{**image, "id": images[image["id"]]} for image in annotations["images"]],
        "categories": [{**category, "id": categories[category["id"]]} for category in annotations["categories"]],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # they print what they do, and write into what they are given
        truth = _filled(make_set(), {**content, "annotations": objects})
        # pycocotools does not load a list without results.
        found = truth.loadRes(found_objects) if results else _filled(make_set(), {**content, "annotations": []})
        evaluation = make_evaluation(truth, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def default_library() -> Library:
    """Return hotcoco's classes, or pycocotools' where hotcoco is not installed."""
    try:
        import hotcoco
    except ImportError:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    # Its threads start at the first use, one a core of the machine: as many as PyTorch has are this process's share.
    if "torch" in sys.modules:
        os.environ.setdefault("RAYON_NUM_THREADS", str(sys.modules["torch"].get_num_threads()))
    return hotcoco.COCO, hotcoco.COCOeval


def _ranks(records: list[dict[str, Any]]) -> dict[int, int]:
    """Return ranks from 1 of the ids of records."""
    return {number: rank for rank, number in enumerate(sorted(record["id"] for record in records), start=1)}


def _mean(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (C,) means over IoU and recall of (IoU, recall, C); -1 stands for a class without boxes."""
    absent = (precision > -1).sum(axis=(0, 1)) == 0
    means: NDArray[np.float64] = precision.mean(axis=(0, 1))
    return np.where(absent, np.nan, means)


def _filled(empty: Any, content: dict[str, Any]) -> Any:
    empty.dataset = content
    empty.createIndex()
    return empty


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    """Return a box as a polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]
