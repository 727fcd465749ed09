"""Operations that a stage pruned: a map of every layer's, their scores over their costs, and what is left.

Reference: Oyama et al., "DetOFA", sections 3.2 and 3.3, Figure 8.

Shapes: P operations, K buckets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from nasray.filters.pruned import PRUNED, Operation, Pruned, PrunedOperation, State, read_pruned
from nasray.reports.figures import BLUE, GRID, ORANGE, RED, Plot, label, ticks
from nasray.reports.pieces import number, paragraph, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.bands import bucket_names, draw_bands
from nasray.reports.sections.filter import interval_text
from nasray.spaces.buckets import Buckets

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATES: dict[State, str] = {"kept": GRID, "pruned": RED, "spared": ORANGE}
"""States with their colors in the map."""


def pruning_section(subject: Subject, stage: str) -> list[Section]:
    """Return the section on what a stage pruned; none before it has."""
    path = subject.folder.path / stage / PRUNED
    if not path.is_file():
        return []
    pruned = read_pruned(path, subject.space, cost=subject.cost)
    buckets = Buckets(pruned.cost, pruned.edges)
    counted = Counter(one.state for one in pruned.operations)
    text = (
        f"Of {len(pruned.operations):,} operations {counted['pruned']:,} are pruned: no path uses them any more. "
        f"{counted['spared']:,} were to be, and are spared, since something would have lost its last choice."
    )
    parts = [paragraph(text), _table(pruned, buckets)]
    if how := _strategy(pruned.measured):
        parts.insert(1, paragraph(how))
    grid = grid_of(pruned.operations)
    drawings = (
        Plot(
            f"{stage}-map",
            f"which operations of every layer stage {stage} pruned",
            partial(draw_map, operations=pruned.operations, grid=grid),
            grid.caption,
        ),
        Plot(
            f"{stage}-operations",
            f"mean score over mean {pruned.cost} of the paths with each operation",
            partial(draw_operations, operations=pruned.operations, buckets=buckets),
            "A dot is an operation, by the paths that have it; bands are buckets, and scores compare within one alone.",
        ),
    )
    figures: dict[str, Any] = {
        "cost": pruned.cost,
        "edges": list(pruned.edges),
        "operations": len(pruned.operations),
        "kept": counted["kept"],
        "pruned": counted["pruned"],
        "spared": counted["spared"],
        "thresholds": list(pruned.thresholds),
        "measured": dict(pruned.measured),
        "pruned_operations": [dict(one.operation) for one in pruned.operations if one.state == "pruned"],
    }
    html = Markup("").join(parts)
    return [Section(f"Pruning by stage {stage}", html, drawings, {f"{stage}.pruning": figures})]


def _strategy(measured: Mapping[str, Any]) -> str:
    """Return how it was pruned, in words; nothing where the file does not say."""
    if not {"strategy", "worst", "worst_per_bucket", "paths"} <= set(measured):
        return ""
    share = f"{100 * measured['worst_per_bucket']:g} % of each bucket"
    text = {
        "flops": f"a random {share} was to go",
        "score-bucket": f"the worst {share} was to go",
        "score-all": f"the worst {100 * (measured['worst'] or 0):g} % of all was to go, then the worst {share}",
    }.get(measured["strategy"], "")
    passed = f"Trainings pass over {100 * measured['paths']:g} % of the paths that are left in a bucket, the worst."
    return f"Strategy {measured['strategy']}: {text}. {passed}"


def _table(pruned: Pruned, buckets: Buckets) -> Markup:
    """Return operations by state, architectures left, the threshold of paths and what it lets pass, by bucket."""
    rows, accepted = [], pruned.measured.get("acceptance")
    settings = pruned.measured.get("settings") or {}
    before, left = settings.get("before"), settings.get("left")
    for bucket, (name, threshold) in enumerate(zip(bucket_names(buckets), pruned.thresholds, strict=True)):
        counted = Counter(one.state for one in pruned.operations if one.bucket == bucket)
        cells = [f"{counted.total():,}", *(f"{counted[state]:,}" for state in STATES)]
        if before and left:
            cells += [_count(before[bucket]), _count(left[bucket])]
        cells.append("–" if threshold is None else number(threshold))
        rows.append([str(bucket), name, *cells, *([interval_text(accepted[bucket])] if accepted else [])])
    head = ["bucket", label(pruned.cost), "operations", *STATES]
    head += ["architectures", "left", "threshold"] if before and left else ["threshold"]
    return table(head + (["above it (95 %)"] if accepted else []), rows, text_columns=2)


def _count(num: int) -> str:
    """Return a number of architectures, in full as far as that can be read."""
    return f"{num:,}" if num < 10**7 else f"{num:.3g}"


# ---- the map -----------------------------------------------------------------------------------------------------


class Grid:
    """Where the operations of a space stand in their map: rows are layers, columns the other choices.

    An operation is a combination of gene values of which the last gene is the layer's own, such as a block's expansion,
    and those before it are its stage's. Of values of single genes the layer is the gene.

    Args:
        operations: Operations.

    Attributes:
        layers: Names of the rows.
        columns: Values of the columns, ascending, the first gene's outermost.
        places: Horizontal place of each column; columns that differ in their first values stand further apart.
        genes: What the values of a column are of, by the last words of the genes' names.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.layers = list(dict.fromkeys(operation[-1][0] for operation in operations))
        self.columns = sorted({self.column_of(operation) for operation in operations})
        self.genes = tuple(_last_word(name) for name, _ in operations[0])
        gaps = [0.0]
        for before, after in pairwise(self.columns):
            same = next((place for place, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
            gaps.append(1.0 + 0.35 * (len(after) - 1 - same))
        self.places = np.cumsum(gaps)

    @staticmethod
    def column_of(operation: Operation) -> tuple[int, ...]:
        """Return the values of an operation."""
        return tuple(value for _, value in operation)

    def place_of(self, operation: Operation) -> tuple[float, int]:
        """Return where an operation stands: the place of its column, and its row."""
        column = self.columns.index(self.column_of(operation))
        return float(self.places[column]), self.layers.index(operation[-1][0])

    def marks(self) -> tuple[list[float], list[str]]:
        """Return where the values of the last gene but one stand and their names, that before it on a second line."""
        level = max(len(self.genes) - 1, 1)
        found: dict[tuple[int, ...], list[float]] = {}
        for column, place in zip(self.columns, self.places.tolist(), strict=True):
            found.setdefault(column[:level], []).append(place)
        names = []
        for head in found:
            own = [other for other in found if other[:-1] == head[:-1]]
            is_middle = level > 1 and own.index(head) == (len(own) - 1) // 2
            names.append(f"{head[-1]}" + (f"\n{self.genes[level - 2]} {head[-2]}" if is_middle else ""))
        return [float(np.mean(places)) for places in found.values()], names

    @property
    def caption(self) -> str:
        """What the map shows, in words."""
        *outer, inner = self.genes
        values = ", ".join(str(value) for value in dict.fromkeys(column[-1] for column in self.columns))
        text = f"A row is a layer, a column the {inner} {values}"
        if outer:
            text += f" for each {' and '.join(reversed(outer))}"
        return f"{text}. Where nothing is drawn, the layer is not there."


def grid_of(operations: Sequence[PrunedOperation]) -> Grid:
    """Return the grid of operations that a pruning saw."""
    return Grid([one.operation for one in operations])


def _last_word(name: str) -> str:
    word = name.rpartition(".")[2]
    return "choice" if word.isdigit() else word


def _layer(name: str) -> str:
    """Return the name of a layer without the word that all of its kind end in."""
    head, _, word = name.rpartition(".")
    return head if head and not word.isdigit() else name


def draw_map(axes: Axes, *, operations: Sequence[PrunedOperation], grid: Grid) -> None:
    """Draw every operation as a cell in the color of its state."""
    for state, color in STATES.items():
        cells = [grid.place_of(one.operation) for one in operations if one.state == state]
        if cells:
            places, rows = np.array(cells).T
            axes.bar(places, 0.84, 0.84, bottom=rows - 0.42, color=color, linewidth=0, label=state)
    step = -(-len(grid.layers) // 20)
    axes.set_yticks(range(0, len(grid.layers), step), [_layer(name) for name in grid.layers[::step]])
    axes.set_ylim(len(grid.layers) - 0.4, -0.6)
    axes.set_xlim(grid.places[0] - 0.7, grid.places[-1] + 0.7)
    size: dict[str, Any] = {"fontsize": 7}
    axes.tick_params(axis="y", labelsize=size["fontsize"])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(*grid.marks(), **size)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(grid.genes[-2] if len(grid.genes) > 1 else grid.genes[0])


def draw_operations(axes: Axes, *, operations: Sequence[PrunedOperation], buckets: Buckets) -> None:
    """Draw the mean score of each operation over its mean cost, with the buckets behind."""
    colors = {**STATES, "kept": BLUE}
    for state, color in colors.items():
        points = [(one.cost, one.score) for one in operations if one.state == state]
        if points:
            x, y = np.array(points).T
            axes.plot(x, y, "o", color=color, alpha=0.75, markersize=3, markeredgewidth=0, label=state)
    axes.set_xlabel(label(buckets.cost))
    axes.set_ylabel("mean score of paths with it")
    ticks(axes.xaxis)
    ticks(axes.yaxis)
    draw_bands(axes, buckets)
