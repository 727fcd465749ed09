"""Paths that a pruning leaves and whose scores by a path filter are high enough.

Reference: Oyama et al., "DetOFA: Efficient Training of Once-for-All Networks for Object Detection Using Path Filter",
section 3.2 and Algorithm 1: a path is drawn again while its score is below the threshold of its bucket.

Differs from the paper in: a path is drawn `TRIES` times at most; then the best of them is taken, which has no pruned
operation either.

Shapes: N paths, G genes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import distributed

from nasray.counting import CountedOptions, cost_of_detector
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import read_pruned
from nasray.models.supernets.sampling import BLOCK, Block, BlockPaths, BucketPaths, GenePaths, UniformPaths
from nasray.spaces import CostFunction, Population, Space

TRIES = 50
"""Paths that are drawn for one step at most; with three in four accepted, 1 in 10^30 steps has none."""


class AcceptedPaths(BlockPaths):
    """Paths without pruned operations that the path filter does not score below the threshold of their bucket.

    Args:
        space: Space of the paths.
        seed: Seed of all draws.
        pruned: File pruned.json of a stage of kind prune; the filter is beside it.
        draw: How a path is drawn before it is scored: `genes`, gene by gene, depths first; `uniform`; or `buckets`, a
            bucket uniformly and a path uniformly within.
        counted: Detector whose costs the buckets are of, as in an experiment with `costs: detector`; the space's own
            costs if left out.

    Attributes:
        space: What the pruning leaves of the space.

    Raises:
        NasrayError: If the pruning or its filter cannot be read, or is of another space or cost.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        pruned: str,
        draw: Literal["genes", "uniform", "buckets"] = "genes",
        counted: CountedOptions | None = None,
    ) -> None:
        cost: CostFunction | None = None if counted is None else cost_of_detector(counted, space)
        found = read_pruned(pruned, space, cost=cost)
        self.filter = PathFilter.load(found.path_filter, space, cost=cost)
        self.space, self.seed = found.restricted(space), seed
        self.thresholds = np.array([-np.inf if value is None else value for value in found.thresholds])
        self.sampler: UniformPaths | GenePaths | BucketPaths
        if draw == "buckets":
            self.sampler = BucketPaths(self.space, seed=seed, buckets=self.filter.buckets, measure=cost)
        else:
            self.sampler = (GenePaths if draw == "genes" else UniformPaths)(self.space, seed=seed)

    def block(self, number: int) -> Block:
        """See `BlockPaths.block`."""
        rng = np.random.default_rng([self.seed, 1, number])
        rows, best = self.sampler.rows(BLOCK, rng), np.full(BLOCK, -np.inf)
        drawn, open_places, num_drawn = rows, np.arange(BLOCK), 0
        for _ in range(TRIES):
            num_drawn += len(drawn)
            margin = self.margins(drawn)
            better = margin > best[open_places]
            rows[open_places[better]], best[open_places[better]] = drawn[better], margin[better]
            open_places = open_places[best[open_places] < 0]
            if not len(open_places):
                break
            drawn = self.sampler.rows(len(open_places), rng)
        return Block(rows, BLOCK / num_drawn)

    def agreed(self, block: Block) -> Block:
        """Return the block of the first worker: scores of different processors differ in their last digits."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return block
        found = [block]
        distributed.broadcast_object_list(found, src=0)
        return found[0]

    def margins(self, paths: Population) -> NDArray[np.float64]:
        """Return (N,) by how much the scores of (N, G) paths are above the thresholds of their buckets."""
        margins: NDArray[np.float64] = self.filter(paths) - self.thresholds[self.filter.bucket_of(paths)]
        return margins
