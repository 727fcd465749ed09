"""Random search: the baseline of every method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NEWCOMER, Searcher
from nasray.spaces import Population


class RandomSearch(Searcher):
    """Independent samples of the space, within the budget and without repetition.

    Under a budget that fewer than about one in 20,000 samples meets, architectures within it are found by mutating
    others within it, and are then not independent.
    """

    max_objectives = 8

    def _kinds(self, num: int) -> NDArray[np.int64]:
        return np.full(num, NEWCOMER)

    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        raise AssertionError(f"random search has newcomers alone, asked for {num} of kind {kind}")
