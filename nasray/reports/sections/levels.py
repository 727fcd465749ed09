"""Where depth and computation go, level by level (C1 has stride 2, C5 stride 32), for spaces that count their layers.

Reference: Sun et al., "MAE-DET", ICML 2022, Figures 9 and 10.

Shapes: N architectures, T points in time, L levels C1 to C5.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nasray.architectures import layer_table
from nasray.reports.figures import BLUE, COLORS, MUTED, Floats, Ints, Plot, apart, label, mark_switch, over_time, ticks
from nasray.reports.pieces import paragraph
from nasray.reports.section import Section, Subject
from nasray.spaces import LayerTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (1, 2, 3, 4, 5)


class LevelCosts(NamedTuple):
    """Layers of the main branch, gmacs and parameters in millions, each (L, N)."""

    layers: Floats
    gmacs: Floats
    params_m: Floats


def level_costs(table: LayerTable) -> LevelCosts:
    """Return what every level costs, for each of a table's N architectures."""
    of_level = [table.level == level for level in LEVELS]
    main = table.role == "main"
    return LevelCosts(
        np.stack([table.repeats[rows & main].sum(axis=0) for rows in of_level]),
        np.stack([table.macs[rows].sum(axis=0) for rows in of_level]) / 1e9,
        np.stack([table.params[rows].sum(axis=0) for rows in of_level]) / 1e6,
    )


def levels_section(subject: Subject) -> Section:
    """Return the section on the levels of the best so far, and of the winner beside the reference."""
    run, fine = subject.run, subject.run.fine_after
    space: Any = subject.space
    costs = level_costs(space.layers(run.genes[run.best_so_far[run.points - 1]]))
    drawings = []
    for name, rows, unit in (
        ("level-layers", costs.layers, "main-branch layers"),
        ("level-gmacs", costs.gmacs, label("gmacs")),
        ("level-params", costs.params_m, label("params_m")),
    ):
        ends = ", ".join(f"C{level} {value:.3g}" for level, value in zip(LEVELS, rows[:, -1], strict=True))
        text = f"{unit} of each level of the best so far, at the end: {ends}"
        plot = partial(draw_levels, told=run.points, rows=rows, unit=unit, fine_after=fine)
        drawings.append(Plot(name, text, plot))
    winner = level_costs(space.layers(run.genes[subject.best][None]))
    bars: list[tuple[str, Floats]] = [("best", winner.gmacs[:, 0])]
    if subject.reference is not None:
        table = layer_table(subject.reference, space.image_hw)
        bars.append((subject.reference_name, level_costs(table).gmacs[:, 0]))
    text = "multiply-adds of each level: " + " and ".join(name for name, _ in bars)
    drawings.append(Plot("level-winner", text, partial(draw_level_bars, gmacs=bars)))
    height, width = space.image_hw
    text = (
        f"The best architecture so far by {run.objectives[0].name}, level by level (C1 has stride 2, C5 stride "
        f"32). Layers are those of the main branch; costs are the backbone's at {height}×{width} pixels."
    )
    figures = {
        f"C{level}": {name: float(rows[level - 1, 0]) for name, rows in winner._asdict().items()} for level in LEVELS
    }
    return Section("Where the depth and the computation go", paragraph(text), tuple(drawings), {"levels": figures})


def draw_levels(axes: Axes, told: Ints, rows: Floats, unit: str, fine_after: int | None) -> None:
    """Draw (L, T) one line for each level, named at its end."""
    mark_switch(axes, fine_after)
    for line, color in zip(rows, COLORS, strict=True):
        axes.plot(told, line, color=color, drawstyle="steps-post")
    over_time(axes, told, unit)
    axes.set_ylim(bottom=0)
    ends = rows[:, -1]
    heights = apart(ends, axes.get_ylim()[1] / 17)
    right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    for level, end, height, color in zip(LEVELS, ends, heights, COLORS, strict=True):
        axes.plot([1.0, 1.035], [end, height], color=color, linewidth=0.8, **right)
        axes.plot(1.045, height, "o", color=color, markersize=4, **right)
        axes.text(1.07, height, f"C{level}", va="center_baseline", **right)


def draw_level_bars(axes: Axes, gmacs: list[tuple[str, Floats]]) -> None:
    """Draw each named architecture's multiply-adds at the L levels."""
    width = 0.76 / len(gmacs)
    for number, ((name, values), color) in enumerate(zip(gmacs, (BLUE, MUTED), strict=False)):
        center = np.arange(len(LEVELS)) + (number - (len(gmacs) - 1) / 2) * width
        axes.bar(center, values, width * 0.94, color=color, label=name)
    axes.set_xticks(range(len(LEVELS)), [f"C{level}" for level in LEVELS])
    axes.set_ylabel(label("gmacs"))
    axes.grid(False, axis="x")
    ticks(axes.yaxis)
