"""COCO's average precision, by pycocotools or, faster, by faster-coco-eval.

Reference: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; https://cocodataset.org/#detection-eval.

All figures are in [0, 1] and unrounded; NaN where nothing can be said (no box of that size, no box of that class).
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.evaluation.predictions import Predictions
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.data.dataset import DetectionSet

NAMES = (
    "mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""COCO's twelve numbers in COCO's order. mAP is the mean over IoU .50:.05:.95 (COCO's "AP"); small is below 32 x 32
pixels of area, large above 96 x 96; AR_n is the recall with n detections an image."""


@dataclass(frozen=True, eq=False)
class CocoMetrics:
    """What COCO's evaluation says.

    Attributes:
        summary: the twelve numbers of `NAMES`.
        class_ap: (C,) mAP of every class.
        class_ap50: (C,) AP50 of every class.
    """

    summary: dict[str, float]
    class_ap: NDArray[np.float64]
    class_ap50: NDArray[np.float64]


def coco_metrics(
    dataset: DetectionSet, predictions: Predictions, *, fast: bool = False, iou_type: str = "bbox"
) -> CocoMetrics:  # fmt: skip
    """Hold predictions against a data set. Ignored boxes count as neither right nor wrong.

    Args:
        dataset: with the boxes that are there.
        predictions: over all of its images.
        fast: by faster-coco-eval instead of pycocotools: the same figures.
        iou_type: "bbox", or "segm" for masks.

    Raises:
        NasrayError: if `fast` is asked for and not installed.
    """
    return coco_metrics_of(dataset.to_coco(), predictions.to_coco(dataset), fast=fast, iou_type=iou_type)


def mask_summary(dataset: DetectionSet, predictions: Predictions, *, fast: bool = False) -> dict[str, float]:
    """The twelve numbers of masks as `mask_mAP` and so on; none where detector or data set have no masks."""
    if predictions.masks is None or dataset.segmentations is None:
        return {}
    summary = coco_metrics(dataset, predictions, fast=fast, iou_type="segm").summary
    return {f"mask_{name}": value for name, value in summary.items()}


def coco_metrics_of(
    annotations: dict[str, Any], results: list[dict[str, Any]], *, fast: bool = False, iou_type: str = "bbox"
) -> CocoMetrics:  # fmt: skip
    """The same from the contents of COCO's annotation and result files; classes in the order of their ids.

    Where masks are compared, an object without an outline counts as its whole box.
    """
    make_set, make_evaluation = _library(fast)
    objects, found_objects = ([dict(item) for item in items] for items in (annotations["annotations"], results))
    for item in objects if iou_type == "segm" else ():
        item.setdefault("segmentation", [_corners(*item["bbox"])])
    with contextlib.redirect_stdout(io.StringIO()):  # both print what they do, and write into what they are given
        truth = _filled(make_set(), {**annotations, "annotations": objects})
        # They do not load a list without results.
        found = truth.loadRes(found_objects) if results else _filled(make_set(), {**annotations, "annotations": []})
        evaluation = make_evaluation(truth, found, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) if value > -1 else float("nan") for value in evaluation.stats[: len(NAMES)]]
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class; all sizes, 100 boxes
    return CocoMetrics(dict(zip(NAMES, values, strict=True)), _mean(precision), _mean(precision[:1]))


def _mean(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) means over IoU and recall of (IoU, recall, C); -1 stands for a class without boxes."""
    absent = (precision > -1).sum(axis=(0, 1)) == 0
    means: NDArray[np.float64] = precision.mean(axis=(0, 1))
    return np.where(absent, np.nan, means)


def _filled(empty: Any, content: dict[str, Any]) -> Any:
    empty.dataset = content
    empty.createIndex()
    return empty


def _corners(x: float, y: float, width: float, height: float) -> list[float]:
    """A box as a polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _library(fast: bool) -> tuple[Any, Any]:
    if not fast:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError as error:
        raise NasrayError(
            "the fast evaluation needs faster-coco-eval: pip install 'nasray[fast]', or leave out --fast"
        ) from error
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
