"""Newcomers: architectures within a budget that owe nothing to what was told.

They are samples of the space within the budget. Where a space of few architectures is nearly used up, they are drawn
from the list of what is left; where samples do not meet the budget, they are found by mutating others within it.

Shapes: N architectures, G genes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import Budget, CostFunction, InfeasibleError, Population, Space, row_keys

MAX_LISTED = 100_000
"""Combinations of gene values of a space that is listed once little of it is left."""
MAX_WALKERS = 256


@dataclass(frozen=True)
class _Listing:
    """A small space within the budget: (N, G) rows, the place of each key, and (N,) which were not asked for yet."""

    rows: Population
    places: dict[int, int]
    is_left: NDArray[np.bool_]


class Newcomers:
    """Where a searcher finds architectures without knowing any.

    Args:
        space: Space to search.
        budget: Bounds on costs.
        cost: Function that returns the bounded costs.
        rng: The searcher's generator.
    """

    def __init__(self, space: Space, budget: Budget, cost: CostFunction, rng: np.random.Generator) -> None:
        self.space, self.budget, self.cost, self.rng = space, budget, cost, rng
        self.walkers: Population | None = None  # where newcomers are looked for under a budget that samples do not meet
        self._listing: _Listing | None = None

    def is_admissible(self, rows: Population) -> NDArray[np.bool_]:
        """Return (N,) whether each row is valid and within the budget."""
        good = self.space.is_valid(rows)
        if self.budget.names:
            good &= self.budget.admits(self.cost(rows), len(rows))
        return good

    def draw(self, num: int, *, max_samples: int, max_tries: int) -> Population:
        """Return (K, G) rows, K <= num, known ones among them; 0 only if no architecture within the budget is found.

        Args:
            num: Number of rows to return.
            max_samples: Samples that are drawn before others within the budget are mutated instead, then and later.
            max_tries: Architectures that are looked at to find the first ones within the budget.
        """
        if self.walkers is None:
            rows = self.space.sample_within(num, self.budget, self.rng, cost=self.cost, max_tries=max_samples)
            if len(rows):
                return rows
            try:
                self.walkers = self.seeds(num, max_tries)
            except InfeasibleError:
                return rows
        steps = self.rng.integers(1, 4, size=num)
        rows = self.walkers[self.rng.integers(len(self.walkers), size=num)]
        for step in range(3):
            rows = np.where((step < steps)[:, None], self.space.mutate(rows, self.rng), rows)
        return rows

    def remember(self, newcomers: Population) -> None:
        """Let the search for newcomers go on from the last ones that were found."""
        if self.walkers is not None and len(newcomers):
            self.walkers = np.concatenate([self.walkers, newcomers])[-MAX_WALKERS:]

    def forget_list(self) -> None:
        """Make the list of what is left anew when it is next needed."""
        self._listing = None

    def mark(self, keys: list[int], *, is_left: bool) -> None:
        """Strike rows off the list of what is left, or put them back."""
        if self._listing is not None:
            self._listing.is_left[[self._listing.places[key] for key in keys if key in self._listing.places]] = is_left

    def left(self, seen: Collection[int], max_listed: int) -> Population | None:
        """Return (K, G) what is left of a space of few architectures, in a fixed order; None of a larger space."""
        if self._listing is None:
            if math.prod(len(gene.values) for gene in self.space.genes) > min(MAX_LISTED, max_listed):
                return None
            combinations = itertools.product(*(gene.values for gene in self.space.genes))
            rows = np.unique(self.space.repair(np.array(list(combinations), dtype=np.int64)), axis=0)
            chunks = np.array_split(rows, -(-len(rows) // 4096))
            rows = np.concatenate([chunk[self.is_admissible(chunk)] for chunk in chunks])
            keys = row_keys(rows).tolist()
            is_left = np.array([key not in seen for key in keys], dtype=bool)
            self._listing = _Listing(rows, {key: place for place, key in enumerate(keys)}, is_left)
        return self._listing.rows[self._listing.is_left]

    def seeds(self, num: int, max_tries: int) -> Population:
        """Return (K, G) architectures within the budget from which to start; K in [1, num].

        The space's own start where it fits the budget; otherwise descendants of it, or of a random sample, found by
        mutating towards the budget.

        Raises:
            InfeasibleError: if none is found.
        """
        rows = self.space.start()
        if len(rows) == 0:
            rows = self.space.sample(num, self.rng)
        tried = 0
        while tried <= max_tries:
            costs = self.cost(rows)
            admitted = self.budget.admits(costs, len(rows))
            if admitted.any():
                return rows[admitted][:num]
            violation = self.budget.violations(costs).sum(axis=1)
            rows = rows[np.argsort(violation, kind="stable")[:32]]
            offspring = self.space.mutate(np.repeat(rows, 1 + 512 // len(rows), axis=0), self.rng)
            rows = np.unique(np.concatenate([rows, offspring, self.space.sample(64, self.rng)]), axis=0)
            tried += len(offspring) + 64
        raise self.infeasible(tried, rows)

    def infeasible(self, tried: int, rows: Population | None = None) -> InfeasibleError:
        """Return the error that says how near to the budget an architecture came."""
        rows = self.space.sample(4096, self.rng) if rows is None else rows
        costs = self.cost(rows)
        nearest = int(self.budget.violations(costs).sum(axis=1).argmin())
        reached = ", ".join(f"{name}={costs[name][nearest]:.4g}" for name in self.budget.names)
        return InfeasibleError(
            f"no architecture of space {self.space.family!r} meets the budget ({self.budget}): tried {tried}, "
            f"the nearest has {reached}. Loosen the budget, or take another space"
        )
