"""The best architectures of a run, as `nasray front` draws them: from best.json alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from nasray.cluster.leaders import Entry
from nasray.reports.figures import BLUE, RED, Plot, label, ticks
from nasray.searchers import Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def front_plots(
    entries: Sequence[Entry], objectives: Sequence[Objective], chosen: Entry | None = None
) -> tuple[Plot, ...]:
    """Return the first objective over each other one, or of a single objective over the first cost.

    Args:
        entries: Entries of best.json.
        objectives: Objectives of the run.
        chosen: The one that is marked.
    """
    first = objectives[0]
    names = [objective.name for objective in objectives[1:]] or list(entries[0].costs)[:1]
    return tuple(
        Plot(
            "front" if len(names) == 1 else f"front-{name}",
            f"{first.name} over {name} of the {len(entries)} best architectures",
            partial(draw_front, entries=entries, x=name, y=first.name, is_front=len(objectives) > 1, chosen=chosen),
        )
        for name in names
    )


def draw_front(axes: Axes, *, entries: Sequence[Entry], x: str, y: str, is_front: bool, chosen: Entry | None) -> None:
    """Draw entries as dots, those of a front with a line, and the chosen one."""
    points = sorted((entry.figures[x], entry.figures[y]) for entry in entries)
    name = "Pareto front" if is_front else "the best"
    axes.plot(
        *zip(*points, strict=True), "o-" if is_front else "o", color=BLUE, markersize=3.5, linewidth=1, label=name
    )
    if chosen is not None:
        axes.plot(chosen.figures[x], chosen.figures[y], "D", color=RED, markersize=6, label="best within the budget")
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(y))
    ticks(axes.xaxis)
    ticks(axes.yaxis)
