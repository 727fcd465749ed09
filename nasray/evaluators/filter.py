"""Scores of a path filter, which was fitted to what other architectures are worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from nasray.cluster.progress import say
from nasray.devices import Threads
from nasray.searchers import Metrics, Searcher
from nasray.spaces import CostFunction, NasrayError, Population, Space
from nasray.spaces.references import From

if TYPE_CHECKING:
    from nasray.filters.filter import PathFilter
    from nasray.spaces.buckets import Buckets


def has_costs(space: Space) -> str | None:
    """Return why a space has no buckets, which are of a cost; None if it has."""
    known = space.cost(np.empty((0, space.num_genes), dtype=np.int64))
    return None if known else "needs a space with costs, of which its buckets are"


@dataclass
class FilterEvaluator:
    """Score of a path filter: what it takes an architecture for among those of like cost (DetOFA).

    The filter is loaded with the first batch, once in every process.

    Attributes:
        space: Space of the genes.
        filter: Stage that fits a path filter, or the file of one.
        cost: Function that returns the cost of the filter's buckets; the space's own if left out.
        threads: Threads that compute; the last digits of a score depend on it.
    """

    meaning = (
        "The score is a path filter's: the higher, the better it takes an architecture to be among those of the same "
        "bucket of costs. Scores of different buckets do not compare, and its scale means nothing by itself."
    )

    space: Space
    filter: Annotated[str, From("filter")]
    cost: CostFunction | None = None
    threads: Threads = 1
    _loaded: PathFilter | None = field(default=None, init=False, repr=False, compare=False)
    fits = staticmethod(has_costs)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what is loaded."""
        return {**self.__dict__, "_loaded": None}

    def __call__(self, genes: Population) -> Metrics:
        """`score`, the filter's output before its sigmoid.

        Raises:
            NasrayError: if the file is no filter of this space, or its buckets are of a cost that is not counted.
        """
        return {"score": self.loaded(genes)}

    def check(self) -> None:
        """Load the filter, and score one architecture.

        Raises:
            NasrayError: as a call does.
        """
        self(self.space.sample(1, np.random.default_rng(0)))

    def check_search(self, searcher: Searcher) -> None:
        """Refuse a search in other buckets than the filter's; say it where scores of several buckets are compared.

        Raises:
            NasrayError: if the searcher has buckets, and others.
        """
        own, buckets = self.loaded.buckets, getattr(searcher, "buckets", None)
        if buckets is not None:
            if buckets.cost != own.cost or len(buckets) != len(own) or not np.allclose(buckets.edges, own.edges, 1e-9):
                raise NasrayError(
                    f"the searcher's buckets are of {_described(buckets)}, those of path filter {self.filter} of "
                    f"{_described(own)}: a filter's scores compare in its own buckets alone. Set searcher.num (by, "
                    "edges) as it was fitted, or fit it anew"
                )
            return
        bounds = searcher.budget
        low, high = bounds.lower.get(own.cost, own.edges[0]), bounds.upper.get(own.cost, own.edges[-1])
        first, last = own.of([low, high]).tolist()
        if first != last:
            say(
                f"scores of a path filter compare inside a bucket of {own.cost} alone, and this search compares those "
                f"of {last - first + 1} buckets. Take searcher bucket-evolution or buckets, or a budget inside one "
                "bucket"
            )

    @property
    def loaded(self) -> PathFilter:
        """The filter, loaded when it is first asked for."""
        if self._loaded is None:
            from nasray.filters.filter import PathFilter

            self._loaded = PathFilter.load(Path(self.filter), self.space, cost=self.cost, threads=self.threads)
        return self._loaded


def _described(buckets: Buckets) -> str:
    return f"{buckets.cost} with edges {', '.join(f'{edge:.6g}' for edge in buckets.edges)}"
