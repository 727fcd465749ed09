"""Random search: the baseline of every method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NO_PARENT, Searcher
from nasray.spaces import Population


class RandomSearch(Searcher):
    """Independent samples of the space, within the budget and without repetition."""

    max_objectives = 8

    def _propose(self, num: int) -> tuple[Population, NDArray[np.int64]]:
        num = max(num, 64)
        return self.space.sample(num, self.rng), np.full((num, 2), NO_PARENT)
