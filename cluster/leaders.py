"""The best architectures of a search: which they are, and how they stand in best.json.

Shapes: N architectures, O objectives, larger is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers import Metrics, Searcher, pareto_front, ranking
from nasray.spaces import Architecture, Budget, Costs, NasrayError, Population, Space

NUM_BEST = 10
"""Architectures that best.json holds of a search with one objective."""


@dataclass(frozen=True)
class Entry:
    """An evaluated architecture, as best.json holds it.

    Attributes:
        architecture: What it is.
        evaluation: Number of its evaluation, counted from 0 in the order told.
        metrics: Metrics of the evaluator, by name.
        costs: Costs of the space, by name.
    """

    architecture: Architecture
    evaluation: int
    metrics: Mapping[str, float]
    costs: Mapping[str, float]

    @property
    def id(self) -> str:
        """Id of the architecture."""
        return self.architecture.id

    @property
    def figures(self) -> dict[str, float]:
        """Metrics and costs, by name."""
        return {**self.metrics, **self.costs}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Entry:
        """Return the entry that `to_json` described."""
        architecture = Architecture.create(**content["architecture"])
        return cls(architecture, content["evaluation"], dict(content["metrics"]), dict(content["costs"]))

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it stands in best.json."""
        return {
            "id": self.id,
            "evaluation": self.evaluation,
            "metrics": dict(self.metrics),
            "costs": dict(self.costs),
            "architecture": {"family": self.architecture.family, "spec": self.architecture.spec},
        }


def make_entry(
    space: Space,
    genes: NDArray[np.int64],
    evaluation: int,
    metrics: Mapping[str, float],
    costs: Mapping[str, float],
) -> Entry:
    """Return the entry of one evaluation.

    Args:
        space: Space of the genes.
        genes: (G,) row.
        evaluation: Number of the evaluation.
        metrics: Its metrics, each a single number.
        costs: Its costs, each a single number.
    """
    return Entry(
        space.to_architecture(genes),
        evaluation,
        {name: float(value) for name, value in metrics.items()},
        {name: float(value) for name, value in costs.items()},
    )


def leaders(
    values: NDArray[np.float64],
    numbers: NDArray[np.int64] | None = None,
    niches: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the positions of the best architectures, best first.

    Args:
        values: (N, O) objectives; minus infinity stands for no value.
        numbers: (N,) evaluations, the earlier of equal ones first; the positions by default.
        niches: (N,) niches between which values do not compare; all are in one by default.

    Returns:
        In each niche the `NUM_BEST` best by one objective, or the whole Pareto front of several; all niches together
        ordered by the first objective.
    """
    numbers = np.arange(len(values)) if numbers is None else numbers
    niches = np.zeros(len(values), dtype=np.int64) if niches is None else niches
    order = np.lexsort((numbers, -values[:, 0]))
    kept = np.zeros(len(values), dtype=bool)
    for niche in np.unique(niches):
        members = order[niches[order] == niche]
        kept[members[:NUM_BEST] if values.shape[1] == 1 else members[pareto_front(values[members])]] = True
    return order[kept[order]]


def in_turn(values: NDArray[np.float64], niches: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all positions, best first: the best of each niche, then the second of each, and so on.

    Args:
        values: (N, O) objectives, in the order in which they were evaluated; minus infinity stands for no value.
        niches: (N,) niches between which values do not compare.
    """
    turns = np.zeros(len(values), dtype=np.int64)
    for niche in np.unique(niches):
        members = np.flatnonzero(niches == niche)
        turns[members[ranking(values[members], members)]] = np.arange(len(members))
    return np.lexsort((np.arange(len(values)), -values[:, 0], turns))


def best_within(entries: Sequence[Entry], budget: Budget) -> Entry:
    """Return the best entry within a budget.

    Args:
        entries: Entries, best first, as in best.json.
        budget: Bounds on their costs.

    Raises:
        NasrayError: if none is within the budget, or the budget bounds a cost that they do not have.
    """
    known = list(entries[0].costs)
    for name in budget.names:
        if name not in known:
            raise NasrayError(f"budget on {name}: this run has no such cost. It has: {', '.join(known) or 'none'}")
    for entry in entries:
        if budget.admits({name: np.array([value]) for name, value in entry.costs.items()}, 1)[0]:
            return entry
    ranges = []
    for name in budget.names:
        found = [entry.costs[name] for entry in entries]
        ranges.append(f"{name} {min(found):.5g} to {max(found):.5g}")
    raise NasrayError(
        f"none of the {len(entries)} best architectures is within {budget}: they have {', '.join(ranges)}. Change the "
        "budget, or search with it"
    )


class Leaders:
    """The best architectures so far, batch by batch.

    Args:
        searcher: Searcher whose objectives rank them.
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.genes: Population = np.empty((0, searcher.space.num_genes), dtype=np.int64)
        self.values: NDArray[np.float64] = np.empty((0, len(searcher.objectives)))
        self.numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.costs: Costs = {}
        self.metrics: Metrics = {}
        self.count = 0

    def __len__(self) -> int:
        return len(self.genes)

    def add(self, genes: Population, costs: Costs, metrics: Metrics) -> None:
        """Take a batch, told after all that were taken before."""
        values = self.searcher.objective_values(genes, {**costs, **metrics})
        numbers = np.arange(self.count, self.count + len(genes))
        self.count += len(genes)
        all_values = np.concatenate([self.values, values])
        all_numbers = np.concatenate([self.numbers, numbers])
        all_genes = np.concatenate([self.genes, genes])
        keep = leaders(all_values, all_numbers, self.searcher.niches(all_genes))
        self.genes = all_genes[keep]
        self.values, self.numbers = all_values[keep], all_numbers[keep]

        def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
            empty = np.empty(0)
            return {name: np.concatenate([old.get(name, empty), new[name]])[keep] for name in new}

        self.costs, self.metrics = merged(self.costs, costs), merged(self.metrics, metrics)

    def entry(self, index: int) -> Entry:
        """Return the one at a position, 0 for the best."""
        metrics = {name: values[index] for name, values in self.metrics.items()}
        costs = {name: values[index] for name, values in self.costs.items()}
        return make_entry(self.searcher.space, self.genes[index], int(self.numbers[index]), metrics, costs)

    def summary(self) -> str:
        """Return a few words for a line of progress."""
        figures = self.entry(0).figures
        names = dict.fromkeys([*(objective.name for objective in self.searcher.objectives), *self.costs])
        what = "best" if len(self.searcher.objectives) == 1 else f"front {len(self)}, first"
        return f"{what} " + " ".join(f"{name} {figures[name]:.5g}" for name in names if name in figures)
