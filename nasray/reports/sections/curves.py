"""A training over time: losses and validations, from its log.jsonl."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.reports.figures import BLUE, COLORS, MUTED, Plot, over_iterations
from nasray.training.folder import TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_METRICS = ("mAP", "AP50", "AP75", "top1", "top5")


def curves(log: TrainingLog, prefix: str = "") -> tuple[Plot, ...]:
    """Return the figures of a training: metrics of its validations, its losses, its learning rate.

    Args:
        log: Lines of the training's log.
        prefix: Begin of the figures' names.
    """
    plots = []
    if log.validations:
        names = [name for name in SHOWN_METRICS if name in log.validations[-1]["metrics"]]
        best = _last(log.validations, names[0]) if names else ""
        text = f"validation metrics over iterations{best}"
        plots.append(Plot(f"{prefix}metrics", text, partial(draw_metrics, log=log, names=names)))
    if log.steps:
        plots.append(Plot(f"{prefix}losses", "losses over iterations", partial(draw_losses, log=log)))
    return tuple(plots)


def _last(validations: list[dict[str, Any]], name: str) -> str:
    value = validations[-1]["metrics"][name]
    return "" if value is None else f"; {name} ends at {value:.3f}"


def draw_metrics(axes: Axes, *, log: TrainingLog, names: list[str]) -> None:
    """Draw the metrics of all validations."""
    iterations = [line["iteration"] for line in log.validations]
    for name, color in zip(names, COLORS, strict=False):
        values = np.array([line["metrics"].get(name) for line in log.validations], dtype=np.float64)
        axes.plot(iterations, values, "o-", color=color, markersize=3, label=name)
    over_iterations(axes, _last_iteration(log), "on the split val")
    axes.set_ylim(bottom=0)


def draw_losses(axes: Axes, *, log: TrainingLog) -> None:
    """Draw the sum of the losses, and each of them."""
    iterations = [line["iteration"] for line in log.steps]
    axes.plot(iterations, _column(log.steps, lambda line: line["loss"]), color=BLUE, label="loss")
    names = list(log.steps[-1]["losses"])
    if len(names) > 1:
        for name, color in zip(names, (*COLORS[1:], MUTED), strict=False):
            values = _column(log.steps, lambda line, name=name: line["losses"].get(name))
            axes.plot(iterations, values, color=color, linewidth=1.0, label=name)
    over_iterations(axes, _last_iteration(log), "loss")


def _column(lines: list[dict[str, Any]], value: Any) -> np.ndarray:
    return np.array([value(line) for line in lines], dtype=np.float64)


def _last_iteration(log: TrainingLog) -> float:
    return max((float(line["iteration"]) for line in [*log.steps, *log.validations]), default=0.0)
