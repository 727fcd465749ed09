"""The search over time: the best so far, its distance to the final best, the hypervolume of a front.

Reference: Sun et al., "MAE-DET", ICML 2022, Figure 8.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.reports.data import MAX_POINTS, Convergence, finite_or_none
from nasray.reports.figures import BLUE, MUTED, ORANGE, Floats, Ints, Plot, label, mark_switch, over_time
from nasray.reports.pieces import number, slug
from nasray.reports.section import Section, Subject
from nasray.searchers import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def convergence_section(subject: Subject) -> Section:
    """Return the section on the search over time."""
    run, fine = subject.run, subject.run.fine_after
    every = math.ceil(len(run.batch_ends) / MAX_POINTS)
    unit = "batch" if every == 1 else f"{every} batches"
    caption = f"Mean and band (one standard deviation) are over the evaluations of each {unit}."
    if fine:
        caption += f" From {fine:,} evaluations on (dotted line), mutation is fine: kernels and widths, no depths."
    # A cost that is minimized beside a score has no story of its own: its best is where the space ends.
    measured = [objective for objective in run.objectives if objective.name in run.metrics] or run.objectives[:1]
    drawings: list[Plot] = []
    for objective in measured:
        points = run.convergence(objective)
        best, name = number(float(points.best[-1]), digits=6), slug(objective.name)
        text = f"{objective.name} over evaluations; the best ends at {best}"
        plot = partial(draw_convergence, objective=objective, points=points, fine_after=fine)
        drawings.append(Plot(f"convergence-{name}", text, plot, caption))
        if len(run.objectives) == 1:
            text = f"distance of the best {objective.name} so far to the final best, over evaluations"
            note = f"The final best, {best}, is evaluation {run.leaders[0]:,}."
            plot = partial(draw_gap, objective=objective, points=points, fine_after=fine)
            drawings.append(Plot(f"gap-{name}", text, plot, note))
    figures: dict[str, Any] = {"convergence": {o.name: _points(run.convergence(o)) for o in run.objectives}}
    if len(run.objectives) == 2:
        shares = run.hypervolume()
        note = "Share of the box between the run's worst and best values that the Pareto front covers."
        plot = partial(draw_hypervolume, told=run.points, shares=shares, fine_after=fine)
        drawings.append(Plot("hypervolume", "hypervolume of the Pareto front over evaluations", plot, note))
        figures["hypervolume"] = [finite_or_none(share) for share in shares]
    return Section("Convergence", drawings=tuple(drawings), figures=figures)


def _points(points: Convergence) -> list[dict[str, float | int | None]]:
    return [
        {
            "evaluations": int(told),
            "best": finite_or_none(best),
            "mean": finite_or_none(mean),
            "std": finite_or_none(std),
        }
        for told, best, mean, std in zip(*points, strict=True)
    ]


def draw_convergence(axes: Axes, objective: Objective, points: Convergence, fine_after: int | None) -> None:
    """Draw the best so far, and every batch's mean with a band of one standard deviation."""
    told = points.evaluations
    axes.fill_between(told, points.mean - points.std, points.mean + points.std, color=ORANGE, alpha=0.25, linewidth=0)
    axes.plot(told, points.best, color=BLUE, drawstyle="steps-post", label="best so far", zorder=3)
    axes.plot(told, points.mean, color=ORANGE, label="batch mean ± std")
    mark_switch(axes, fine_after)
    if fine_after:
        place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate("fine mutation", (fine_after, 0.0), (4, 5), color=MUTED, **place)
    over_time(axes, told, label(objective.name))


def draw_gap(axes: Axes, objective: Objective, points: Convergence, fine_after: int | None) -> None:
    """Draw how far the best so far was from the final best, in its own units, logarithmic."""
    distance = np.abs(points.best - points.best[-1])
    axes.plot(points.evaluations, np.where(distance > 0, distance, np.nan), color=BLUE, drawstyle="steps-post")
    if len(np.unique(distance[distance > 0])) > 1:
        axes.set_yscale("log")
        axes.minorticks_off()
    mark_switch(axes, fine_after)
    over_time(axes, points.evaluations, f"{label(objective.name)}: gap to the final best")


def draw_hypervolume(axes: Axes, told: Ints, shares: Floats, fine_after: int | None) -> None:
    """Draw the share of the box between the worst and the best values that the front covers."""
    axes.plot(told, shares, color=BLUE, drawstyle="steps-post")
    mark_switch(axes, fine_after)
    over_time(axes, told, "hypervolume (share of the box)")
