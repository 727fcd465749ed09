"""What evolutions have in common: a population of told architectures, and shares of kinds of children.

Shapes: N architectures, G genes, P members of the population, O objectives.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NEWCOMER, NO_PARENT, Searcher
from nasray.searchers.defaults import UNKNOWN_EVALUATIONS, default_population_size
from nasray.spaces import NasrayError, Population, Space, row_keys
from nasray.spaces.ranges import Range, Share

MUTANT, CROSSED, SEED = 1, 2, 3
"""Kinds of children beside newcomers; seeds are the space's start and its mutants, until anything is told."""
ROUNDING = 1e-9
"""What shares may miss of 1, and multiples of a share of a whole number."""


class Breeding(Searcher):
    """A population from which children are bred. A subclass says who breeds (`_pick`) and who stays (`_survivors`).

    What is left out follows from the number of evaluations (`nasray.searchers.defaults`).

    Args:
        space: Space to search.
        population_size: Number of architectures that are kept; if left out a sixth of the evaluations, from 8 to 50, or
            a hundredth of very many, up to 256.
        mutation: Share of children that are mutants; if left out what `crossover` leaves, or half.
        crossover: Share of children that are crossed from two parents; if left out what `mutation` leaves, or half. The
            rest of the children are random newcomers.
        mutations_per_child: Number of times that a mutant is mutated. Two let depth move between stages under a tight
            budget.
        initial: Number of architectures that are sampled before the first is bred (DetNAS: the first population); as
            many as are kept if left out. 0 starts from the space's own start, or else from a few samples.
        options: Further options; see `Searcher`.
    """

    def __init__(
        self,
        space: Space,
        *,
        population_size: Annotated[int, Range(2, 10**6)] | None = None,
        mutation: Share | None = None,
        crossover: Share | None = None,
        mutations_per_child: Annotated[int, Range(1, 1000)] = 1,
        initial: Annotated[int, Range(0, 10**6)] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        if mutation is None:
            mutation = 0.5 if crossover is None else 1.0 - crossover
        if crossover is None:
            crossover = 1.0 - mutation
        if not (mutation >= 0 and crossover >= 0 and mutation + crossover <= 1 + ROUNDING):  # NaN is in no range
            raise NasrayError(
                f"evolution needs shares mutation >= 0 and crossover >= 0 with a sum of at most 1, "
                f"got mutation={mutation}, crossover={crossover}"
            )
        if mutations_per_child < 1:
            raise NasrayError(f"evolution needs mutations_per_child >= 1, got {mutations_per_child}")
        if initial is not None and initial < 0:
            raise NasrayError(f"evolution needs initial >= 0, got {initial}")
        if population_size is not None and population_size < 2:
            raise NasrayError(f"evolution needs population_size >= 2, got population_size={population_size}")
        self._population_size, self._initial = population_size, initial
        self.mutation, self.crossover, self.mutations_per_child = mutation, crossover, mutations_per_child
        self.fine = False
        self.pending_seeds: Population | None = None
        self.genes: Population = np.empty((0, space.num_genes), dtype=np.int64)
        self.values: NDArray[np.float64] = np.empty((0, len(self.objectives)))
        self.numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    @property
    def population_size(self) -> int:
        """How many are kept."""
        return self._population_size or default_population_size(self.evaluations)

    @property
    def initial(self) -> int:
        """Architectures that are sampled before the first is bred."""
        most = max((self.evaluations or UNKNOWN_EVALUATIONS) // 5, 2)
        return min(self.population_size, most) if self._initial is None else self._initial

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {
            "population_size": self.population_size,
            "mutation": self.mutation,
            "crossover": self.crossover,
            "mutations_per_child": self.mutations_per_child,
            "initial": self.initial,
        }

    def _kinds(self, num: int) -> NDArray[np.int64]:
        untold = not len(self.genes)
        if len(self.seen) < self.initial or (self.initial and untold):
            return np.full(num, NEWCOMER)
        if untold:
            return np.full(num, SEED)
        bred = max(len(self.seen) - self.initial, 0)
        return kinds_in_turn(bred, num, self.mutation, self.crossover)[self.rng.random(num).argsort(kind="stable")]

    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        parents = np.full((num, 2), NO_PARENT)
        if kind == SEED:
            if self.pending_seeds is None:  # the first batch starts with the seeds themselves
                self.pending_seeds = self.newcomers.seeds(num, self.max_tries)
                return self.pending_seeds, parents[: len(self.pending_seeds)]
            return self._mutate(self.pending_seeds[self.rng.integers(len(self.pending_seeds), size=num)]), parents
        first = self._pick(num)
        parents[:, 0] = self.numbers[first]
        if kind == MUTANT:
            return self._mutate(self.genes[first]), parents
        second = self._pick(num)
        parents[:, 1] = self.numbers[second]
        children = self.space.crossover(self.genes[first], self.genes[second], self.rng)
        known = np.fromiter((key in self.seen for key in row_keys(children).tolist()), dtype=bool, count=num)
        if known.any():  # parents that are alike, or the same one twice, have few new children
            children[known] = self._mutate(children[known])
        return children, parents

    def _mutate(self, genes: Population) -> Population:
        mutate = self.space.mutate_finely if self.fine else self.space.mutate
        for _ in range(self.mutations_per_child):
            genes = mutate(genes, self.rng)
        return genes

    @abstractmethod
    def _pick(self, num: int) -> NDArray[np.int64]:
        """Return (num,) members of the population that breed, some perhaps several times."""

    @abstractmethod
    def _survivors(self) -> NDArray[np.int64]:
        """Return the members that stay, at most `population_size`, in the order in which they are kept."""

    def _learn(self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        self.genes = np.concatenate([self.genes, genes])
        self.values = np.concatenate([self.values, values])
        self.numbers = np.concatenate([self.numbers, numbers])
        self._keep(self._survivors())

    def _keep(self, indices: NDArray[np.int64]) -> None:
        self.genes, self.values, self.numbers = self.genes[indices], self.values[indices], self.numbers[indices]

    def _state(self) -> dict[str, Any]:
        names = ("genes", "values", "numbers", "pending_seeds", "fine")
        return {name: getattr(self, name) for name in names}


def kinds_in_turn(first: int, num: int, mutation: float, crossover: float) -> NDArray[np.int64]:
    """Return (num,) the kinds of the children after the `first` ones.

    They take turns, so that of any children in a row mutants have their share to within one, the others to within two:
    drawn by chance, a search of a few dozen evaluations would often have half as many of a kind, or twice as many.

    Args:
        first: Number of children before.
        num: Number of children.
        mutation: Share of mutants.
        crossover: Share of crossed ones; newcomers have the rest.
    """
    places = np.arange(first, first + num + 1)
    mutants = np.floor(places * mutation + ROUNDING)
    is_all = mutation + crossover >= 1 - ROUNDING
    crossed = np.floor((places - mutants) * (1.0 if is_all else crossover / (1 - mutation)) + ROUNDING)
    return np.where(np.diff(mutants) > 0, MUTANT, np.where(np.diff(crossed) > 0, CROSSED, NEWCOMER))
