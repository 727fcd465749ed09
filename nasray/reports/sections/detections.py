"""What a trained detector finds: figures of every class and size, precision over recall, pictures beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.drawing import draw_detections
from nasray.evaluation.coco import RECALLS, CocoMetrics
from nasray.reports.data import finite_or_none
from nasray.reports.figures import BLUE, COLORS, MUTED, Plot, ticks
from nasray.reports.pictures import figure, resized
from nasray.reports.pieces import NONE, numbers, paragraph, table
from nasray.reports.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nasray.data.dataset import DetectionSet
    from nasray.evaluation.predictions import Predictions

NUM_IMAGES, THRESHOLD = 6, 0.3
"""Images that are shown; least score of a box that is drawn."""

MAX_CURVES = 5
"""Classes that have a curve of their own, those with most boxes."""

SIZES = {"small": "below 32×32", "medium": "to 96×96", "large": "above"}


def class_section(figures: dict[str, Any], coco: CocoMetrics, classes: Sequence[str]) -> Section:
    """Return the figures of every class, with precision over recall.

    Args:
        figures: What `nasray.evaluation.detection_figures` returned.
        coco: All of COCO's figures.
        classes: Names in the order of labels.
    """
    rows = figures["classes"]
    cells = [
        [row["class"], *numbers([row["mAP"], row["AP50"]]), f"{row['boxes']:,}"]
        for row in sorted(rows, key=lambda row: -row["boxes"])
    ]
    order = np.argsort([-row["boxes"] for row in rows], kind="stable")[:MAX_CURVES]
    present = [label for label in order.tolist() if (coco.precision[0, :, label] > -1).any()]
    curves = {classes[label]: coco.precision[0, :, label] for label in present} if len(classes) > 1 else {}
    known = (coco.precision > -1).all(axis=(0, 1))
    mean = {iou: coco.precision[place][:, known].mean(axis=1) for place, iou in ((0, 0.5), (5, 0.75)) if known.any()}
    plots = [
        Plot("sizes", "AP and recall of small, medium and large objects", partial(draw_sizes, coco=figures["coco"]))
    ]
    if mean:
        plot = partial(draw_precision, means=mean, curves=curves)
        plots.insert(0, Plot("precision-recall", "precision over recall, at IoU .5 and .75", plot))
    note = (
        "Means are over classes; those of the classes with most boxes are at IoU .5. Sizes are of objects in pixels: "
        + ", ".join(f"{name} {text}" for name, text in SIZES.items())
        + "."
    )
    numbers_of = {
        "coco": {name: finite_or_none(value) for name, value in figures["coco"].items()},
        "voc": {name: finite_or_none(value) for name, value in figures["voc"].items()},
        "classes": [
            {key: value if isinstance(value, (str, int)) else finite_or_none(value) for key, value in row.items()}
            for row in rows
        ],
        "precision_recall": {
            "recall": RECALLS.tolist(),
            **{f"iou_{iou:g}": values.tolist() for iou, values in mean.items()},
        },
    }
    html = table(["class", "mAP", "AP50", "boxes"], cells, text_columns=1)
    return Section("Class by class", html, tuple(plots), numbers_of, note)


def picture_section(dataset: DetectionSet, found: Predictions) -> Section:
    """Return some images with their true boxes, and beside them with what was found."""
    places = np.linspace(0, len(dataset) - 1, min(NUM_IMAGES, len(dataset)))
    parts = []
    for index in places.round().astype(np.int64).tolist():
        image, scale = resized(dataset.read_image(index).numpy())
        rows = slice(dataset.offsets[index], dataset.offsets[index + 1])
        truth = draw_detections(
            image, dataset.boxes[rows] * scale, dataset.labels[rows].tolist(), None, dataset.classes
        )
        mine = (found.image_index == index) & (found.scores >= THRESHOLD)
        labels, scores = found.labels[mine].tolist(), found.scores[mine].tolist()
        drawn = draw_detections(image, found.boxes[mine] * scale, labels, scores, dataset.classes)
        name = f"image {dataset.image_ids[index]}"
        parts.append(figure(truth, f"{name}: the truth") + figure(drawn, f"{name}: found"))
    html = Markup('<div class="grid pictures">{}</div>').format(NONE.join(parts))
    text = f"Boxes with a score of at least {THRESHOLD}, on images evenly from the split {dataset.name}."
    return Section("Detections beside the truth", paragraph(text) + html)


def draw_precision(
    axes: Axes, *, means: dict[float, NDArray[np.float64]], curves: dict[str, NDArray[np.float64]]
) -> None:
    """Draw precision over recall: means over classes, and some classes at IoU .5."""
    for (name, values), color in zip(curves.items(), (*COLORS[1:], MUTED), strict=False):
        axes.plot(RECALLS, values, color=color, linewidth=0.9, label=name)
    for iou, values in means.items():
        style = "-" if iou == 0.5 else "--"
        axes.plot(RECALLS, values, style, color=BLUE, linewidth=1.8, label=f"mean, IoU {iou:g}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    ticks(axes.xaxis)
    ticks(axes.yaxis)


def draw_sizes(axes: Axes, *, coco: dict[str, float]) -> None:
    """Draw AP and average recall of every size as bars."""
    places = np.arange(len(SIZES))
    for number, (kind, text, color) in enumerate((("AP", "AP", BLUE), ("AR", "average recall", MUTED))):
        values = np.array([coco.get(f"{kind}_{size}", np.nan) for size in SIZES], dtype=np.float64)
        axes.bar(places + (number - 0.5) * 0.38, np.nan_to_num(values), 0.36, color=color, label=text)
        for place, value in zip(places, values, strict=True):
            if np.isnan(value):
                axes.annotate("none", (place + (number - 0.5) * 0.38, 0), ha="center", va="bottom", color=MUTED)
    axes.set_xticks(places, list(SIZES))
    axes.grid(False, axis="x")
    axes.set_ylim(bottom=0)
    ticks(axes.yaxis)
