"""Evolution with mutation, crossover and random newcomers.

Reference: Algorithm 1 of Sun et al., "MAE-DET", ICML 2022 (steady state, mutation alone) and Chen et al., "DetNAS",
NeurIPS 2019 (mutation and crossover half by half); the shares are options.

Differs from MAE-DET's listing in: architectures are asked for in batches, so that a batch is bred from the population
before it; those that are invalid, over the budget or already seen do not count as evaluations; every architecture is
evaluated once.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.breeding import Breeding
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.ranges import Range


class Evolution(Breeding):
    """Keep the best, breed from them, forget the rest.

    Args:
        space: Space to search.
        parents: Number of the best that may breed; a fifth of the population if left out, and with several objectives
            more than there are objectives.
        options: Further options; see `Breeding`.
    """

    def __init__(self, space: Space, *, parents: Annotated[int, Range(1, 10**6)] | None = None, **options: Any) -> None:
        super().__init__(space, **options)
        self._parents = parents
        # Sizes that are left out count once the evaluations are known.
        size = self._population_size if self.evaluations is None else self.population_size
        if parents is not None and not 1 <= parents <= (size or parents):
            raise NasrayError(
                f"evolution needs 1 <= parents <= population_size, got population_size={size}, parents={parents}"
            )

    @property
    def num_parents(self) -> int:
        """How many of the best may breed."""
        return min(self._parents or max(self.population_size // 5, self.min_parents), self.population_size)

    @property
    def min_parents(self) -> int:
        """Least number of parents where it is left out."""
        return 1

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {**super().options(), "parents": self.num_parents}

    def population(self) -> Population:
        """Return (P, G) the survivors, best first."""
        return self.genes

    def _pick(self, num: int) -> NDArray[np.int64]:
        return self.rng.integers(min(self.num_parents, len(self.genes)), size=num)

    def _survivors(self) -> NDArray[np.int64]:
        return self._ranking()[: self.population_size]

    def _ranking(self) -> NDArray[np.int64]:
        """Return the indices of the population, best first; ties go to the earlier evaluation."""
        return np.lexsort((self.numbers, -self.values[:, 0]))
