"""Buckets of cost in figures: which a run has, as bands behind what is drawn over the cost, and by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from nasray.filters.pruned import FILTER, PRUNED, read_pruned
from nasray.reports.figures import GRID
from nasray.reports.section import Subject
from nasray.spaces.buckets import Buckets

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def buckets_of(subject: Subject, cost: str) -> Buckets | None:
    """Return the buckets of a cost that the last stage of a run has that has any; None if none has.

    A path filter and a pruning have buckets, and so do searchers that search by them.
    """
    stages = subject.plan.stages if subject.plan else {}
    for name, stage in reversed(list(stages.items())):
        folder, found = subject.folder.path / name, None
        if (folder / PRUNED).is_file():
            pruned = read_pruned(folder / PRUNED, subject.space, cost=subject.cost)
            found = Buckets(pruned.cost, pruned.edges)
        elif (folder / FILTER).is_file():
            from nasray.filters.filter import PathFilter

            found = PathFilter.load(folder / FILTER, subject.space, cost=subject.cost).buckets
        else:
            found = getattr(getattr(getattr(stage, "parts", None), "searcher", None), "buckets", None)
        if isinstance(found, Buckets) and found.cost == cost:
            return found
    return None


def draw_bands(axes: Axes, buckets: Buckets) -> None:
    """Shade every second bucket, and let the axis end where what is drawn ends."""
    low, high = axes.get_xlim()
    for bucket, (begin, end) in enumerate(zip(buckets.edges, buckets.edges[1:], strict=False)):
        if bucket % 2 and begin < high and end > low:
            axes.axvspan(max(begin, low), min(end, high), color=GRID, alpha=0.45, linewidth=0, zorder=0)
    axes.set_xlim(low, high)


def bucket_names(buckets: Buckets) -> list[str]:
    """Return the interval of each bucket, with as many digits as tell its edges apart."""
    edges = edge_texts(buckets.edges)
    return [f"{low}–{high}" for low, high in pairwise(edges)]


def edge_texts(edges: Sequence[float]) -> list[str]:
    """Return ascending numbers with the fewest decimals, beyond three digits of their distance at most, that differ."""
    width = min(high - low for low, high in pairwise(edges))
    decimals = max(0, 1 - math.floor(math.log10(width)))
    return [f"{edge:,.{decimals}f}" for edge in edges]
