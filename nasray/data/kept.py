"""Batches that are kept in memory after they were loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class CacheBudget:
    """Bytes that are left for batches to be kept in."""

    left: int


class KeptBatches:
    """Batches that are loaded once and kept, as far as there is memory for them: all of them, or none.

    Args:
        load: Function that loads all batches anew.
        budget: Memory for this and others; what is kept is taken from it.

    Attributes:
        kept: All batches, once they were all loaded and there was memory for them.
    """

    def __init__(self, load: Callable[[], Iterable[Any]], budget: CacheBudget) -> None:
        self.load, self.budget = load, budget
        self.kept: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self.kept is not None:
            yield from self.kept
            return
        batches: list[Any] = []
        used = 0
        iterator = iter(self.load())
        batch = next(iterator, None)
        while batch is not None:
            used += batch.images.nbytes
            if used <= self.budget.left:
                batches.append(batch)
            else:
                batches.clear()
            following = next(iterator, None)  # whoever has had the last batch may not ask again
            if following is None and batches:
                self.kept, self.budget.left = batches, self.budget.left - used
            yield batch
            batch = following
