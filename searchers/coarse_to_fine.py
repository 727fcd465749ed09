"""Coarse-to-fine evolution.

Reference: Sun et al., "MAE-DET", ICML 2022, Algorithms 1 and 2: at half time keep the ten best networks; from then on
only small steps (kernel and width) are taken.

Differs from the paper in: the iteration count T counts evaluated architectures; half time falls on the first
evaluation told after T/2.
"""

from __future__ import annotations

from typing import Any

from nasray.searchers.defaults import UNKNOWN_EVALUATIONS
from nasray.searchers.evolution import Evolution
from nasray.spaces import NasrayError
from nasray.spaces.ranges import Count


class CoarseToFineEvolution(Evolution):
    """Evolution that at half time keeps the best few and then mutates only kernels and widths (MAE-DET).

    Args:
        space: Space to search.
        fine_after: Evaluations of the coarse half, T/2; half of all if left out.
        keep: Survivors of half time.
        mutation: Share of mutants among the children; if left out what `crossover` leaves, or all, as in the paper.
        options: Further options; see `Evolution`.
    """

    def __init__(self, space: Any, *, fine_after: Count | None = None, keep: Count = 10, **options: Any) -> None:
        if options.get("mutation") is None and options.get("crossover") is None:
            options["mutation"] = 1.0
        super().__init__(space, **options)
        if (fine_after is not None and fine_after < 1) or keep < 1:
            raise NasrayError(
                f"coarse-to-fine needs fine_after >= 1 and keep >= 1, got fine_after={fine_after}, keep={keep}"
            )
        self._fine_after, self.keep = fine_after, keep

    @property
    def fine_after(self) -> int:
        """Evaluations of the coarse half."""
        return self._fine_after or max((self.evaluations or UNKNOWN_EVALUATIONS) // 2, 1)

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {**super().options(), "fine_after": self.fine_after, "keep": self.keep}

    def _learn(self, genes: Any, values: Any, numbers: Any) -> None:
        super()._learn(genes, values, numbers)
        if not self.fine and self.num_told >= self.fine_after:
            self.fine = True
            self._keep(self._ranking()[: self.keep])
