"""Coarse-to-fine evolution.

Reference: Sun et al., "MAE-DET", ICML 2022, Algorithms 1 and 2: at half time keep the ten best networks; from then on
only small steps (kernel and width) are taken.

Differs from the paper in: the iteration count T counts evaluated architectures; half time falls on the first
evaluation told after T/2.
"""

from __future__ import annotations

from typing import Any

from nasray.searchers.evolution import Evolution
from nasray.spaces import NasrayError


class CoarseToFineEvolution(Evolution):
    """Evolution that, once `fine_after` evaluations are told, keeps the best `keep` and mutates finely.

    Args:
        space: what can be built.
        fine_after: evaluations of the coarse half, T/2.
        keep: survivors of half time.
        options: see `Evolution`.
    """

    def __init__(self, space: Any, *, fine_after: int, keep: int = 10, **options: Any) -> None:
        super().__init__(space, **options)
        if fine_after < 1 or keep < 1:
            raise NasrayError(
                f"coarse-to-fine needs fine_after >= 1 and keep >= 1, got fine_after={fine_after}, keep={keep}"
            )
        self.fine_after, self.keep = fine_after, keep

    def _learn(self, genes: Any, values: Any, numbers: Any) -> None:
        super()._learn(genes, values, numbers)
        if not self.fine and self.num_told >= self.fine_after:
            self.fine = True
            self._keep(self._ranking()[: self.keep])
