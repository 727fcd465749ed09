"""Heads of FAD: the cells of the best as graphs, and which receptive fields they have.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, Figure 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nasray.architectures import checked_spec
from nasray.reports.figures import BLUE, GREEN, INK, ORANGE, PAPER, Plot
from nasray.reports.pieces import table
from nasray.reports.section import Section, Subject
from nasray.spaces import Architecture
from nasray.spaces.transformations import BY_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DRAWN, MAX_ROWS = 3, 10
"""Heads whose cells are drawn, and those that the table has."""
INPUTS = {
    "box": "Inputs 0 and 1 are the level.",
    "class": "Input 0 are the features of boxes, input 1 is the level.",
    "mask": "Inputs 0 and 1 are the region.",
}
"""What the first cell of each group begins with; later ones take the second input and the output of the one before."""
STREAMS = {"standard": ("dense", BLUE), "separable": ("separable", ORANGE), "": ("of DARTS", GREEN)}
"""Name and color of each kind of transformation."""


class Edge(NamedTuple):
    """An edge of a cell.

    Attributes:
        node: State that it ends at; 0 and 1 are the inputs.
        state: State that it begins at.
        transformation: Name of what it does.
    """

    node: int
    state: int
    transformation: str

    @property
    def receptive_field(self) -> int:
        """Side of what a pixel sees, in pixels."""
        return BY_NAME[self.transformation].receptive_field


def edges_of(architecture: Architecture) -> dict[str, list[Edge]]:
    """Return the six edges of a cell of each group."""
    return {
        name: [Edge(node, state, what) for node, edges in enumerate(group["nodes"], start=2) for state, what in edges]
        for name, group in checked_spec(architecture)["groups"].items()
    }


def describe(architecture: Architecture) -> str:
    """Return the edges of every group in a line."""
    spec = checked_spec(architecture)
    cells = f"{spec['cells']} cell{'s' if spec['cells'] > 1 else ''}"
    groups = "; ".join(
        f"{name} ({spec['groups'][name]['channels']} channels) "
        + ", ".join(f"{edge.state}→{edge.node} {edge.transformation}" for edge in edges)
        for name, edges in edges_of(architecture).items()
    )
    return f"head of {cells} a group: {groups}"


def sections(subject: Subject) -> list[Section]:
    """Return the sections on a run in a space of heads."""
    run = subject.run
    leaders = [(run.ids[index], subject.space.to_architecture(run.genes[index])) for index in run.leaders[:MAX_ROWS]]
    return [cells(leaders)]


def cells(heads: Sequence[tuple[str, Architecture]]) -> Section:
    """Return the cells of heads as graphs, and the receptive fields of their edges.

    Args:
        heads: Ids and heads, best first.
    """
    rows, drawings = [], []
    sides = sorted({edge.receptive_field for _, head in heads for edges in edges_of(head).values() for edge in edges})
    for rank, (name, architecture) in enumerate(heads):
        for group, edges in edges_of(architecture).items():
            counts = Counter(edge.receptive_field for edge in edges)
            num_separable = sum(BY_NAME[edge.transformation].stream == "separable" for edge in edges)
            figures = [str(counts[side]) for side in sides]
            rows.append([name, group, *figures, str(num_separable)])
            if rank < MAX_DRAWN:
                text = "; ".join(f"{each.state} to {each.node} {each.transformation}" for each in edges)
                caption = f"{name}, cells of group {group}. {INPUTS[group]} The output is nodes 2 to 4, concatenated."
                plot = partial(draw_cell, edges=edges)
                drawings.append(Plot(f"cell-{rank + 1}-{group}", f"cell of group {group}: {text}", plot, caption))
    head = ["id", "group", *(f"sees {side}" for side in sides), "separable"]
    best = edges_of(heads[0][1])
    figures_of_best = {
        group: [{**edge._asdict(), "receptive_field": edge.receptive_field} for edge in edges]
        for group, edges in best.items()
    }
    note = "Edges of a cell by the side of what a pixel sees, and how many have separable convolutions alone."
    html = table(head, rows, text_columns=2)
    return Section("Cells of the best", html, tuple(drawings), {"cells_of_best": figures_of_best}, note)


def draw_cell(axes: Axes, *, edges: Sequence[Edge]) -> None:
    """Draw the states of a cell in a row, and its edges as arcs: the first of each node above, the second below."""
    along = np.linspace(0.0, 1.0, 41)
    used, reach = set(), {1: 0.0, -1: 0.0}
    for number, edge in enumerate(edges):
        side, span = (1 if number % 2 == 0 else -1), edge.node - edge.state
        stream = BY_NAME[edge.transformation].stream
        label, color = STREAMS[stream]
        height = side * 0.6 * span**1.5  # a longer one leaves its state more steeply, so that no two are one at first
        reach[side] = max(reach[side], abs(height))
        x, y = edge.state + span * along, height * 4 * along * (1 - along)
        axes.plot(x, y, color=color, linewidth=1.4, label=None if stream in used else label, zorder=1)
        used.add(stream)
        arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 0, "mutation_scale": 9, "shrinkB": 7}
        axes.annotate("", (edge.node, 0.0), (x[-4], y[-4]), arrowprops=arrow, zorder=1)
        box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none"}
        text = f"{edge.transformation}\nsees {edge.receptive_field}"
        axes.text(edge.state + span / 2, height, text, ha="center", va="center", fontsize=6.5, bbox=box, zorder=3)
    states = range(edges[-1].node + 1)
    axes.scatter(list(states), [0.0] * len(states), s=150, color=PAPER, edgecolors=INK, linewidths=1.0, zorder=4)
    for state in states:
        axes.text(state, 0.0, str(state), ha="center", va="center", fontsize=8.5, zorder=5)
    axes.set_xlim(-0.5, edges[-1].node + 0.5)
    axes.set_ylim(-reach[-1] - 0.6, reach[1] + 0.6)
    axes.set_axis_off()
