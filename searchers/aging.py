"""Aging evolution: tournaments, and the oldest dies.

Reference: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019, Algorithm 1.

Differs from the paper in: architectures are asked for in batches, each bred from the population before it; no
architecture is evaluated twice; children can be crossed, or be random newcomers, where that is asked for.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.breeding import Breeding
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.ranges import Range


class AgingEvolution(Breeding):
    """Mutate the best of a few drawn at random, and let the oldest die (Real et al., AAAI 2019).

    Args:
        space: Space to search.
        tournament: Number of members that are drawn, with replacement, of which the best breeds; 10 if left out, or
            a fifth of the population if that is more.
        mutation: Share of mutants among the children; if left out what `crossover` leaves, or all, as in the paper.
        options: Further options; see `Breeding`.
    """

    def __init__(
        self, space: Space, *, tournament: Annotated[int, Range(1, 10**6)] | None = None, **options: Any
    ) -> None:
        if options.get("mutation") is None and options.get("crossover") is None:
            options["mutation"] = 1.0
        super().__init__(space, **options)
        if tournament is not None and tournament < 1:
            raise NasrayError(f"aging evolution needs tournament >= 1, got tournament={tournament}")
        self._tournament = tournament

    @property
    def tournament(self) -> int:
        """How many are drawn, of which the best breeds."""
        return self._tournament or max(self.population_size // 5, 10)

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {**super().options(), "tournament": self.tournament}

    def population(self) -> Population:
        """Return (P, G) the living, best first; ties go to the older."""
        return self.genes[np.lexsort((self.numbers, -self.values[:, 0]))]

    def _pick(self, num: int) -> NDArray[np.int64]:
        drawn = np.sort(self.rng.integers(len(self.genes), size=(num, self.tournament)), axis=1)
        best: NDArray[np.int64] = self.values[drawn, 0].argmax(axis=1)  # the first of equals: the oldest
        return drawn[np.arange(num), best]

    def _survivors(self) -> NDArray[np.int64]:
        return np.arange(len(self.genes))[-self.population_size :]
