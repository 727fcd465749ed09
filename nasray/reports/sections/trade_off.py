"""The first objective against every cost: all evaluations, the Pareto front, the winner, the budget."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.reports.figures import BLUE, INK, MANY, MID_BLUE, MUTED, PAPER, RED, Floats, Ints, Plot, label, ticks
from nasray.reports.pieces import slug
from nasray.reports.section import Section, Subject
from nasray.searchers import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PLOTS = 4


def trade_off_sections(subject: Subject) -> list[Section]:
    """Return the section on score and costs; none where there is nothing to set a score against."""
    run = subject.run
    first = run.objectives[0]
    signs = {name: -1.0 for name in ("gmacs", "params_m", "latency_ms", *run.costs) if name in run.costs}
    signs.pop("layers", None)
    signs = {**{o.name: o.sign for o in run.objectives[1:]}, **signs}
    signs.pop(first.name, None)
    drawings = []
    y = run.column(first.name)
    for name, sign in list(signs.items())[:MAX_PLOTS]:
        x = run.column(name)
        usable = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if not len(usable):
            continue
        front = usable[pareto_front(np.stack([x[usable] * sign, y[usable] * first.sign], axis=1))]
        front = front[np.argsort(x[front], kind="stable")]
        bounds = [bound[name] for bound in (run.budget.upper, run.budget.lower) if name in bound]
        plot = partial(
            draw_scatter, x=x, y=y, front=front, winner=subject.best, names=(name, first.name), sign=sign, bounds=bounds
        )
        text = f"{first.name} against {name}, with the Pareto front of {len(front)} architectures"
        caption = "The stronger the color, the more evaluations (logarithmic)." if len(usable) > MANY else ""
        drawings.append(Plot(f"{slug(first.name)}-{slug(name)}", text, plot, caption))
    return [Section(f"{first.name.capitalize()} against cost", drawings=tuple(drawings))] if drawings else []


def draw_scatter(
    axes: Axes,
    x: Floats,
    y: Floats,
    *,
    front: Ints,
    winner: int,
    names: tuple[str, str],
    sign: float,
    bounds: list[float],
) -> None:
    """Draw all evaluations, or where they are many their density; the front, the winner and the budget.

    Args:
        axes: Axes to draw on.
        x: (N,) cost.
        y: (N,) objective.
        front: Indices of the Pareto front in order of `x`.
        winner: Index of the best evaluation.
        names: Names of x and y.
        sign: -1 where a small x is better, 1 where a large one is.
        bounds: Bounds of the budget on x.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.sum() > MANY:
        _density(axes, x[finite], y[finite])
    else:
        axes.plot(x[finite], y[finite], "o", color=BLUE, alpha=0.35, markersize=3, markeredgewidth=0)
    for bound in bounds:
        axes.axvline(bound, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=f"budget {bound:,.6g}")
    style: dict[str, Any] = {
        "marker": "o" if len(front) <= 60 else "",
        "drawstyle": "steps-post" if sign < 0 else "steps-pre",
    }
    axes.plot(x[front], y[front], color=RED, linewidth=1.2, markersize=2.5, label="Pareto front", **style)
    if finite[winner]:
        star: dict[str, Any] = {"markersize": 9, "markeredgecolor": PAPER, "markeredgewidth": 0.6}
        axes.plot(x[winner], y[winner], "*", color=INK, label="best", zorder=5, **star)
    axes.set_xlabel(label(names[0]))
    axes.set_ylabel(label(names[1]))
    ticks(axes.xaxis)
    ticks(axes.yaxis)


def _density(axes: Axes, x: Floats, y: Floats) -> None:
    """Draw evaluations per cell as the opacity of one color, on a logarithmic scale."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=(88, 56))
    shade = np.log1p(counts.T) / np.log1p(counts.max())
    image = np.empty((*shade.shape, 4))
    image[..., :3] = MID_BLUE
    image[..., 3] = np.where(shade > 0, 0.12 + 0.8 * shade, 0.0)
    extent = (x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
    axes.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="nearest", zorder=1)
    axes.use_sticky_edges = False
    axes.margins(0.03)
    axes.autoscale(True)
