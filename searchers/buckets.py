"""Searches by buckets: intervals of a cost, within which alone scores compare.

Reference: Oyama et al., "DetOFA", sections 3.1 and 3.4: as many paths of every FLOPs range, and evolution among them.

Differs from the paper in: one run searches all buckets side by side, where the paper searches below one bound; samples
are uniform inside a bucket.

Shapes: N architectures, G genes, K buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import Proposal, Searcher
from nasray.searchers.evolution import Evolution
from nasray.searchers.pareto import ParetoEvolution
from nasray.searchers.random import RandomSearch
from nasray.spaces import Budget, InfeasibleError, NasrayError, Population, Space, row_keys
from nasray.spaces.buckets import Buckets
from nasray.spaces.ranges import MAX_SEED, Range, Share, check_whole
from nasray.spaces.windows import is_surely_empty

NUM_BUCKETS, MAX_BUCKETS = 5, 100


class BucketSampling(Searcher):
    """As many architectures of every bucket, an interval of a cost; uniform inside it where the space can draw so.

    Every bucket has a search of its own, with the bucket's bounds beside those of the budget; what one of them learns
    the others do not. A bucket without architectures, or without further ones, is closed and the others take its share.

    Args:
        space: Space to search.
        num: Number of buckets; 5 if left out. They are equally wide, from the least cost of the space to the greatest;
            where operations are pruned, of the space before.
        by: Cost whose range is divided.
        edges: Bounds of the buckets, ascending, one more than there are buckets, instead of equally wide ones. What
            lies beyond the first or the last is not searched.
        options: Further options; see `Searcher`.

    Attributes:
        closed: Buckets that are at their end, and why.

    Raises:
        NasrayError: For a cost that there is not, edges that do not ascend, or that the budget leaves nothing of.
    """

    max_objectives = 8

    def __init__(
        self,
        space: Space,
        *,
        num: Annotated[int, Range(1, MAX_BUCKETS)] | None = None,
        by: str = "gmacs",
        edges: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        self._edges = None if edges is None else Buckets(by, tuple(float(edge) for edge in edges))
        if self._edges is not None:
            inside = Budget({by: self._edges.edges[-1]}, {by: self._edges.edges[0]})
            given = options.get("budget") or Budget()
            options["budget"] = given.joined(inside)
            if options["budget"] is None:
                raise NasrayError(f"the budget ({given}) leaves nothing of the buckets ({inside}). Change either")
        super().__init__(space, **options)
        self.by, self._seed = by, options.get("seed", 0)
        self.num = NUM_BUCKETS if num is None else check_whole("num", num, 1, MAX_BUCKETS)
        if self._edges is not None:
            if num is not None and num != len(self._edges):
                raise NasrayError(f"{len(self._edges) + 1} edges bound {len(self._edges)} buckets, got num={num}")
            self.num = len(self._edges)
        known = self.cost(np.empty((0, space.num_genes), dtype=np.int64))
        if by not in known:
            raise NasrayError(
                f"buckets by {by}: space {space.family!r} does not have that cost. It has: {', '.join(known) or 'none'}"
            )
        self.closed: dict[int, str] = {}
        self._infeasible: InfeasibleError | None = None

    # ---- buckets ----------------------------------------------------------------------------------------------------

    @cached_property
    def buckets(self) -> Buckets:
        """The buckets; their range is found when it is first needed."""
        return self._edges or Buckets.spanning(self.space, self.by, self.num, count=self.cost)

    @cached_property
    def searchers(self) -> list[Searcher | None]:
        """The search of each bucket; None where the budget leaves nothing of the bucket."""
        seeds = np.random.SeedSequence(self._seed).generate_state(self.num, np.uint64) % np.uint64(MAX_SEED)
        found: list[Searcher | None] = []
        for bucket, seed in enumerate(seeds.tolist()):
            budget = self.budget.joined(self.buckets.budget(bucket))
            found.append(None if budget is None else self._make(budget=budget, seed=seed))
        return found

    def _make(self, **options: Any) -> Searcher:
        """Return a searcher of one bucket."""
        return RandomSearch(self.space, cost=self.cost, objectives=self.objectives, **options)

    def niches(self, genes: Population) -> NDArray[np.int64]:
        """Return (N,) the bucket of each row."""
        return self.buckets.of(self.cost(genes)[self.by])

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {"num": self.num}

    # ---- the contract -----------------------------------------------------------------------------------------------

    def ask(self, num: int) -> Proposal:
        """See `Searcher.ask`; buckets that have had less than others come first, and at the end all had the same."""
        self.shortfall, missing = "", num
        found = [self._nothing]
        while missing > 0 and len(self.closed) < len(self.searchers):
            for bucket, share in enumerate(self._shares(missing).tolist()):
                if share:
                    found.append(self._ask_one(bucket, share))
                    missing -= len(found[-1])
        genes = np.concatenate([proposal.genes for proposal in found])
        self.seen.update(row_keys(genes).tolist())
        self.num_replaced = sum(searcher.num_replaced for searcher in self.searchers if searcher is not None)
        if not self.seen and num:
            raise self._infeasible or self.newcomers.infeasible(0)
        if missing > 0:
            self.shortfall = f"every bucket is closed: {'; '.join(self.notes())}"
        return Proposal(genes, np.concatenate([proposal.parents for proposal in found]))

    def _shares(self, num: int) -> NDArray[np.int64]:
        """Return (K,) how many of the next `num` each open bucket gets, so that all come to be equally many."""
        is_open = [bucket for bucket in range(len(self.searchers)) if bucket not in self.closed]
        counts = np.array([0 if searcher is None else len(searcher.seen) for searcher in self.searchers])
        turns = counts[is_open, None] + np.arange(num)
        owners = np.repeat(is_open, num)
        return np.bincount(owners[np.lexsort((owners, turns.ravel()))[:num]], minlength=len(self.searchers))

    def _ask_one(self, bucket: int, num: int) -> Proposal:
        """Return up to `num` new architectures of a bucket, which is closed where there are fewer."""
        searcher, proposal = self.searchers[bucket], None
        if searcher is None:
            self.closed[bucket] = "outside of the budget"
        elif not searcher.seen and is_surely_empty(self.space, searcher.budget, self.cost):
            self.closed[bucket] = "the space has no architecture there"
        else:
            searcher.max_tries, searcher.evaluations = self.max_tries, self._evaluations_each
            searcher.predictor, searcher.oversample = self.predictor, self.oversample
            try:
                proposal = searcher.ask(num)
            except InfeasibleError as error:
                self._infeasible = error
                self.closed[bucket] = f"none of {self.max_tries:,} architectures was there"
            else:
                if len(proposal) < num:
                    self.closed[bucket] = searcher.shortfall
        return self._nothing if proposal is None else proposal

    @property
    def _nothing(self) -> Proposal:
        return Proposal(np.empty((0, self.space.num_genes), np.int64), np.empty((0, 2), np.int64))

    @property
    def _evaluations_each(self) -> int | None:
        """Architectures that the search of a bucket will evaluate."""
        return None if self.evaluations is None else -(-self.evaluations // self.num)

    def notes(self) -> list[str]:
        """See `Searcher.notes`: the buckets that are closed, in the order in which they were."""
        edges = self.buckets.edges
        return [
            f"bucket of {self.by} {edges[bucket]:.4g} to {edges[bucket + 1]:.4g} closed: {reason}"
            for bucket, reason in self.closed.items()
        ]

    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        raise AssertionError(f"the searches of the buckets propose, not that of all: asked for {num} of kind {kind}")

    def _learn(self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        niches = self.niches(genes)
        for bucket, searcher in enumerate(self.searchers):
            own = niches == bucket
            if searcher is not None and own.any():  # evaluations are numbered over all buckets, and so parents are
                searcher.num_told += int(own.sum())
                searcher._learn(genes[own], values[own], numbers[own])

    def population(self) -> Population:
        """Return (P, G) what the searches of the buckets hold, bucket by bucket."""
        empty = np.empty((0, self.space.num_genes), dtype=np.int64)
        return np.concatenate([empty, *(searcher.population() for searcher in self.searchers if searcher is not None)])

    def state_dict(self) -> dict[str, Any]:
        """See `Searcher.state_dict`."""
        return {
            "num_told": self.num_told,
            "num_replaced": self.num_replaced,
            "closed": dict(self.closed),
            "searchers": [None if searcher is None else searcher.state_dict() for searcher in self.searchers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Searcher.load_state_dict`."""
        self.num_told, self.num_replaced, self.closed = state["num_told"], state["num_replaced"], dict(state["closed"])
        self.seen = set()
        for searcher, own in zip(self.searchers, state["searchers"], strict=True):
            if searcher is not None:
                searcher.load_state_dict(own)
                self.seen |= searcher.seen


class BucketEvolution(BucketSampling):
    """Evolution in every bucket: a population and parents of its own, so that only architectures of like cost compete.

    With several objectives, such as score against gmacs, each bucket evolves towards its Pareto front: the best of a
    bucket then differ in cost as well, where by score alone they lie close together.

    Options that are left out follow from a bucket's share of the evaluations; what they mean, `evolution` says.

    Args:
        space: Space to search.
        population_size: Number of architectures that are kept in each bucket.
        parents: Number of the best of a bucket that may breed.
        mutation: Share of children that are mutants.
        crossover: Share of children that are crossed from two parents of a bucket; the rest are random newcomers.
        mutations_per_child: Number of times that a mutant is mutated.
        initial: Number of architectures that are sampled in each bucket before the first is bred there.
        options: Further options; see `BucketSampling`.
    """

    max_objectives = 8

    def __init__(
        self,
        space: Space,
        *,
        population_size: Annotated[int, Range(2, 10**6)] | None = None,
        parents: Annotated[int, Range(1, 10**6)] | None = None,
        mutation: Share | None = None,
        crossover: Share | None = None,
        mutations_per_child: Annotated[int, Range(1, 1000)] = 1,
        initial: Annotated[int, Range(0, 10**6)] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, **options)
        self._breeding: dict[str, Any] = {
            "population_size": population_size,
            "parents": parents,
            "mutation": mutation,
            "crossover": crossover,
            "mutations_per_child": mutations_per_child,
            "initial": initial,
        }
        self._make()  # what does not go together is refused before the buckets are known

    def _make(self, **options: Any) -> Evolution:
        evolution = Evolution if len(self.objectives) == 1 else ParetoEvolution
        return evolution(
            self.space,
            cost=self.cost,
            objectives=self.objectives,
            evaluations=self._evaluations_each,
            **self._breeding,
            **options,
        )

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`; those of a bucket are the same for all."""
        return {**super().options(), **self._make().options()}
