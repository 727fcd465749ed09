"""Random search: the baseline of every method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NO_PARENT, Searcher
from nasray.spaces import Population


class RandomSearch(Searcher):
    """Independent samples of the space, within the budget and without repetition.

    Under a budget that fewer than about one in 20,000 samples meets, architectures within it are found by mutating
    others within it, and are then not independent.
    """

    max_objectives = 8

    def _propose(self, num: int) -> tuple[Population, NDArray[np.int64]]:
        rows = self._newcomers(max(num, 64))
        return rows, np.full((len(rows), 2), NO_PARENT)
