"""What is in a data set: its classes, sizes of boxes against a detector's levels, aspect ratios, and what is wrong.

Shapes: N boxes of a split, I images.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.data.check import group_defects
from nasray.data.dataset import DetectionSet
from nasray.reports.box_levels import Level, count_levels, count_tiny
from nasray.reports.figures import BLUE, COLORS, MUTED, Floats, Plot, ticks
from nasray.reports.pieces import NONE, facts, number, paragraph, table
from nasray.reports.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES, MAX_SIZES = 20, 8
"""Classes that have a bar, those with most boxes; sizes of images that have a row, the commonest."""


@dataclass(frozen=True, eq=False)
class SplitStatistics:
    """Figures of a split.

    Attributes:
        name: Name of the split.
        dataset: The split.
        edges: (N,) edges in pixels of the squares of the boxes' areas, at the size that images are brought to.
        ratios: (N,) widths of the boxes divided by their heights, likewise.
        counts: (I,) number of boxes of each image.
    """

    name: str
    dataset: DetectionSet
    edges: Floats
    ratios: Floats
    counts: NDArray[np.int64]


def split_statistics(dataset: DetectionSet, scaled_hw: NDArray[np.int64]) -> SplitStatistics:
    """Return the figures of a split whose images are brought to (I, 2) heights and widths."""
    counts = np.diff(dataset.offsets)
    sized = np.maximum(dataset.image_hw, 1)
    scales = np.repeat((scaled_hw / sized)[:, ::-1], counts, axis=0)
    sides = (dataset.boxes[:, 2:] - dataset.boxes[:, :2]) * scales
    return SplitStatistics(
        dataset.name, dataset, np.sqrt(sides.prod(axis=1)), sides[:, 0] / np.maximum(sides[:, 1], 1e-9), counts
    )


def opening_section(splits: Sequence[SplitStatistics]) -> Section:
    """Return how much there is of everything."""
    tiles = [
        ("images", f"{sum(len(split.counts) for split in splits):,}"),
        ("boxes", f"{sum(len(split.edges) for split in splits):,}"),
        ("classes", f"{len(splits[0].dataset.classes):,}"),
        ("images without boxes", f"{sum(int((split.counts == 0).sum()) for split in splits):,}"),
    ]
    rows, figures = [], {}
    for split in splits:
        empty, ignored = int((split.counts == 0).sum()), int(split.dataset.ignored.sum())
        mean = float(split.counts.mean()) if len(split.counts) else 0.0
        most = int(split.counts.max(initial=0))
        figures[split.name] = {
            "images": len(split.counts),
            "boxes": len(split.edges),
            "images_without_boxes": empty,
            "ignored": ignored,
            "boxes_of_an_image": {"mean": mean, "most": most},
        }
        cells = [len(split.counts), len(split.edges), empty, ignored]
        rows.append([split.name, *(f"{cell:,}" for cell in cells), number(mean, digits=3), f"{most:,}"])
    head = ["split", "images", "boxes", "images without boxes", "ignored boxes", "boxes of an image", "at most"]
    return Section("", facts(tiles) + table(head, rows, text_columns=1), figures={"splits": figures})


def defects_section(splits: Sequence[SplitStatistics], source: str) -> Section:
    """Return what is wrong with the annotations."""
    rows = [
        [split.name, kind["severity"], kind["text"], kind["messages"][0]]
        for split in splits
        for kind in group_defects(split.dataset.defects).values()
    ]
    command = shlex.join(["nasray", "data", "check", source])
    note = Markup("<code>{}</code> lists all, and looks into the image files too.").format(command)
    if not rows:
        return Section("What is wrong", paragraph("Nothing that annotations tell."), figures={"defects": []}, note=note)
    keys = ("split", "severity", "text", "first")
    html = table(["split", "kind", "what", "the first"], rows, text_columns=4, kind="wrapped")
    figures = {"defects": [dict(zip(keys, row, strict=True)) for row in rows]}
    return Section("What is wrong", html, figures=figures, note=note)


# ---- classes -----------------------------------------------------------------------------------------------------


def classes_section(splits: Sequence[SplitStatistics]) -> Section:
    """Return how often every class occurs, in every split."""
    classes = splits[0].dataset.classes
    boxes = {split.name: _boxes_of(split, classes) for split in splits}
    images = {split.name: _images_with(split, classes) for split in splits}
    first = splits[0].name
    order = np.argsort(-boxes[first], kind="stable").tolist()
    rows = [
        [classes[place], *(text for name in boxes for text in (f"{boxes[name][place]:,}", f"{images[name][place]:,}"))]
        for place in order
    ]
    head = ["class", *(text for name in boxes for text in (f"boxes of {name}", "in images"))]
    shown = order[:MAX_CLASSES]
    names = [classes[place] for place in shown]
    text = f"boxes of {first} by class: " + ", ".join(f"{classes[place]} {boxes[first][place]:,}" for place in shown)
    plot = partial(draw_classes, names=names, counts=boxes[first][shown])
    figures = {
        name: {
            one: {"boxes": int(boxes[name][place]), "images": int(images[name][place])}
            for place, one in enumerate(classes)
        }
        for name in boxes
    }
    drawings = (Plot("classes", text, plot, f"Boxes of {first}."),) if boxes[first].any() else ()
    return Section("Classes", table(head, rows, text_columns=1), drawings, {"classes": figures})


def _boxes_of(split: SplitStatistics, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return (C,) how many boxes of each class there are; those of other classes are left out."""
    places = {name: place for place, name in enumerate(classes)}
    counts = np.zeros(len(classes), dtype=np.int64)
    for name, count in zip(
        split.dataset.classes, np.bincount(split.dataset.labels, minlength=1).tolist(), strict=False
    ):
        if name in places:
            counts[places[name]] = count
    return counts


def _images_with(split: SplitStatistics, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return (C,) how many images have a box of each class."""
    owners = np.repeat(np.arange(len(split.counts)), split.counts)
    pairs = np.unique(np.stack([owners, split.dataset.labels], axis=1), axis=0)
    found = Counter(split.dataset.classes[label] for label in pairs[:, 1].tolist())
    return np.array([found[name] for name in classes], dtype=np.int64)


def draw_classes(axes: Axes, *, names: Sequence[str], counts: NDArray[np.int64]) -> None:
    """Draw how many boxes of each class there are, the commonest on top."""
    places = np.arange(len(names))[::-1]
    axes.barh(places, counts, 0.7, color=BLUE)
    axes.set_yticks(places, [name if len(name) <= 18 else f"{name[:17]}…" for name in names])
    axes.set_xlabel("boxes")
    axes.grid(False, axis="y")
    ticks(axes.xaxis)


# ---- sizes -------------------------------------------------------------------------------------------------------


def sizes_section(splits: Sequence[SplitStatistics], levels: Sequence[Level], about: str) -> Section:
    """Return sizes and aspect ratios of boxes.

    Args:
        splits: Splits.
        levels: Levels of the detector.
        about: Sentence on the size of images and on the detector.
    """
    counts = {split.name: count_levels(split.edges, levels) for split in splits}
    tiny = {split.name: count_tiny(split.edges, levels) for split in splits}
    rows = [
        [f"stride {level.stride}", _range(level), *(_share(counts[name][place], sum(counts[name])) for name in counts)]
        for place, level in enumerate(levels)
    ]
    rows.append(
        [
            f"below stride {levels[0].stride}",
            "smaller than one location",
            *(_share(tiny[name], sum(counts[name])) for name in counts),
        ]
    )
    drawn = [split for split in splits if len(split.edges)]
    shares = ", ".join(f"stride {level.stride}: {row[2]}" for level, row in zip(levels, rows, strict=False))
    edges, ratios = {split.name: split.edges for split in drawn}, {split.name: split.ratios for split in drawn}
    drawings = (
        Plot(
            "box-sizes",
            f"sizes of boxes beside levels; of {splits[0].name} {shares}",
            partial(draw_edges, edges=edges, levels=levels),
            "Shades are levels, named by their strides.",
        ),
        Plot("aspect-ratios", "widths of boxes divided by their heights", partial(draw_ratios, ratios=ratios)),
    )
    figures = {
        name: {
            "levels": [{"stride": level.stride, "boxes": count} for level, count in zip(levels, found, strict=True)],
            "smaller_than_a_location": tiny[name],
            "edge_quantiles": _quantiles(next(split.edges for split in splits if split.name == name)),
            "aspect_ratio_quantiles": _quantiles(next(split.ratios for split in splits if split.name == name)),
        }
        for name, found in counts.items()
    }
    head = ["level", "edges in pixels", *counts]
    note = (
        "The edge of a box is that of the square of its area. Objects that are smaller than one location of the finest "
        "level are hardly found: larger images, or a detector with a finer level, help."
    )
    html = paragraph(about) + table(head, rows, text_columns=2)
    return Section("Sizes of boxes", html, drawings if drawn else (), {"box_sizes": figures}, note)


def _range(level: Level) -> str:
    if level.low == 0 and level.high == np.inf:
        return "all"
    if level.low == 0:
        return f"below {number(level.high, digits=3)}"
    low = number(level.low, digits=3)
    return f"{low} and more" if level.high == np.inf else f"{low} to {number(level.high, digits=3)}"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if count else "0"


def _quantiles(values: Floats) -> dict[str, float]:
    if not len(values):
        return {}
    shares = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
    return {f"{share:g}": float(value) for share, value in zip(shares, np.quantile(values, shares), strict=True)}


def draw_edges(axes: Axes, *, edges: dict[str, Floats], levels: Sequence[Level]) -> None:
    """Draw how many boxes have which edge, with the levels that they are for as bands."""
    logs = {name: np.log2(np.maximum(values, 0.5)) for name, values in edges.items()}
    low = np.floor(min(values.min() for values in logs.values()))
    high = max(np.ceil(max(values.max() for values in logs.values())), low + 1)
    bins = np.arange(low, high + 0.01, 0.25)
    for place, level in enumerate(levels):
        left = max(np.log2(level.low), low) if level.low > 0 else low
        right = min(np.log2(level.high), high)
        if left < right:
            axes.axvspan(left, right, color=MUTED, alpha=0.06 + 0.08 * (place % 2), linewidth=0)
            axes.annotate(
                f"/{level.stride}",
                ((left + right) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                color=MUTED,
            )
    _histograms(axes, logs, bins)
    axes.set_xlim(low, high)
    powers = np.arange(low, high + 1)
    axes.set_xticks(powers, [f"{2.0**power:g}" for power in powers])
    axes.set_xlabel("edge of the square of a box's area (pixels)")


def draw_ratios(axes: Axes, *, ratios: dict[str, Floats]) -> None:
    """Draw how many boxes have which aspect ratio."""
    logs = {name: np.log2(np.clip(values, 2.0**-5, 2.0**5)) for name, values in ratios.items()}
    _histograms(axes, logs, np.arange(-5, 5.01, 0.25))
    axes.set_xlim(-5, 5)
    axes.set_xticks([-4, -2, -1, 0, 1, 2, 4], ["1:16", "1:4", "1:2", "1", "2:1", "4:1", "16:1"])
    axes.set_xlabel("width : height of boxes")


def _histograms(axes: Axes, values: dict[str, Floats], bins: Floats) -> None:
    """Draw the shares of boxes of each split as steps."""
    for (name, logs), color in zip(values.items(), COLORS, strict=False):
        shares = np.histogram(logs, bins)[0] / len(logs)
        axes.stairs(shares, bins, color=color, linewidth=1.4, label=name)
    axes.set_ylabel("share of boxes")
    axes.set_ylim(bottom=0)
    ticks(axes.yaxis)


# ---- images ------------------------------------------------------------------------------------------------------


def images_section(splits: Sequence[SplitStatistics]) -> Section:
    """Return the commonest sizes of images."""
    sizes = {split.name: Counter(map(tuple, split.dataset.image_hw.tolist())) for split in splits}
    total: Counter[tuple[int, ...]] = sum(sizes.values(), Counter())
    rows = [
        [f"{width}×{height}", *(f"{sizes[name][height, width]:,}" for name in sizes)]
        for (height, width), _ in total.most_common(MAX_SIZES)
    ]
    more = len(total) - len(rows)
    figures: dict[str, Any] = {
        name: {f"{width}x{height}": count for (height, width), count in found.most_common(MAX_SIZES)}
        for name, found in sizes.items()
    }
    html = table(["width×height", *sizes], rows, text_columns=1) if rows else Markup(NONE)
    return Section(
        "Sizes of images", html, figures={"image_sizes": figures}, note=f"And {more:,} more." if more > 0 else ""
    )
