"""Which path a training step takes: by what probabilities paths are drawn. Needs no PyTorch.

References: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019: paths are sampled uniformly
(section 3.2); `windows` are those of its released pre-training, of which the paper does not speak. Cai et al.,
"Once-for-All", ICLR 2020, whose released code draws gene by gene (`genes`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nasray.registry import Registry
from nasray.spaces import CostFunction, NasrayError, Population, RestrictedSpace, Space
from nasray.spaces.buckets import Buckets
from nasray.spaces.groups import group_settings, in_order_shares
from nasray.spaces.ranges import Range

DETNAS_WINDOWS: tuple[tuple[float, float], ...] = tuple((low / 100, (low + 1) / 100) for low in range(29, 36))
"""Of `gmacs` of the small space's whole classifiers at 224x224 (`ShuffleNetSpace.classifier_cost`)."""

BLOCK = 256
"""Steps whose paths are drawn together where that is quicker."""
PROBES = 20_000
TRIES = 500
"""Paths that are drawn for one step at most until one lies in its window."""


class PathSampler(Protocol):
    """Draws the path of every training step."""

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """Return the (G,) genes of the path of a step, counted from 0.

        They are a function of the sampler's seed and of the iteration alone: the same on every worker, and in a
        training that is resumed.
        """
        ...


class Block(NamedTuple):
    """Paths of `BLOCK` steps.

    Attributes:
        rows: (256, G) genes.
        acceptance: Share of all paths that were drawn for them that they are.
    """

    rows: Population
    acceptance: float = 1.0


class BlockPaths(ABC):
    """Paths that are drawn for `BLOCK` steps at a time.

    Attributes:
        ahead: Whether a thread draws the next block while this one is trained. It is for devices that compute by
            themselves; where the CPU trains, the two would only share it.
    """

    ahead = False
    _number, _block = -1, Block(np.empty((0, 0), dtype=np.int64))
    _next: tuple[int, Future[Block]] | None = None
    _thread: ThreadPoolExecutor | None = None

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """Return the (G,) genes of the path of a step, counted from 0."""
        genes: NDArray[np.int64] = self._block_of(iteration).rows[iteration % BLOCK]
        return genes

    def acceptance(self, iteration: int) -> float:
        """Return the share of the paths that were drawn for a block of steps, that of this one, which it has taken."""
        return self._block_of(iteration).acceptance

    @abstractmethod
    def block(self, number: int) -> Block:
        """Return a block of steps, a function of seed and number alone, which any thread may call."""

    def agreed(self, block: Block) -> Block:
        """Return the block that all workers train, who call this at the same step."""
        return block

    def _block_of(self, iteration: int) -> Block:
        number = iteration // BLOCK
        if number != self._number:
            self._block, self._number = self.agreed(self._drawn(number)), number
        return self._block

    def _drawn(self, number: int) -> Block:
        if not self.ahead:
            return self.block(number)
        self._thread = self._thread or ThreadPoolExecutor(1, "paths")
        if self._next is None or self._next[0] != number:
            self._next = number, self._thread.submit(self.block, number)
        block = self._next[1].result()
        self._next = number + 1, self._thread.submit(self.block, number + 1)
        return block


class IndependentPaths(BlockPaths):
    """Paths that are drawn independently of each other; a step draws its own, where none is drawn ahead.

    Args:
        space: Space of the paths.
        seed: Seed of all draws.
    """

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """Return the (G,) genes of the path of a step, counted from 0."""
        return super().draw(iteration) if self.ahead else self._path(iteration)

    def block(self, number: int) -> Block:
        """See `BlockPaths.block`."""
        return Block(np.stack([self._path(step) for step in range(number * BLOCK, (number + 1) * BLOCK)]))

    @abstractmethod
    def rows(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths."""

    def _path(self, iteration: int) -> NDArray[np.int64]:
        genes: NDArray[np.int64] = self.rows(1, np.random.default_rng([self.seed, 1, iteration]))[0]
        return genes


class UniformPaths(IndependentPaths):
    """Every path with the same probability: samples of the space."""

    def rows(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths."""
        return self.space.sample(num, rng)


class GenePaths(IndependentPaths):
    """Gene by gene, each value of a gene as often as any other (once-for-all's sampling: depth first).

    Args:
        space: Space of the paths.
        seed: Seed of all draws.

    Raises:
        NasrayError: If genes that depend on each other have too many settings to be listed.
    """

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        super().__init__(space, seed=seed)
        self.groups: list[tuple[list[int], Population, NDArray[np.float64]]] = []
        for group in space.groups:
            settings = group_settings(space, group)
            if settings is None:
                raise NasrayError(
                    f"paths 'genes' lists what genes that depend on each other can be, and space {space.family!r} has "
                    f"{len(group)} of them with too many settings. Take --paths.name uniform"
                )
            self.groups.append((list(group), settings, np.cumsum(in_order_shares(settings))))

    def rows(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths."""
        rows = np.empty((num, self.space.num_genes), dtype=np.int64)
        for columns, settings, ends in self.groups:
            place = np.searchsorted(ends, rng.random(num) * ends[-1], side="right")
            rows[:, columns] = settings[np.minimum(place, len(settings) - 1)]
        return rows


class BucketPaths(BlockPaths):
    """Within an interval of a cost, which is drawn anew in every step, every path with the same probability.

    The intervals are of equal width, from the least to the greatest cost of the space; of a restricted space those
    that hold none of its paths are left out.

    Args:
        space: Space of the paths.
        seed: Seed of all draws.
        num: Number of intervals.
        cost_name: Cost that is divided.
        buckets: Intervals, instead of `num` equal ones.
        measure: Function that returns the cost; the space's own if left out.

    Raises:
        NasrayError: If the space does not have the cost.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        num: Annotated[int, Range(1, 1000)] = 5,
        cost_name: str = "gmacs",
        buckets: Buckets | None = None,
        measure: CostFunction | None = None,
    ) -> None:
        self.space, self.seed, self.measure = space, seed, measure
        self.buckets = buckets or Buckets.spanning(space, cost_name, num)
        rng = np.random.default_rng([seed, 0])
        self.inhabited = [bucket for bucket in range(len(self.buckets)) if len(self._inside(bucket, 1, rng))]

    def rows(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths."""
        bucket = rng.choice(self.inhabited, size=num)
        rows = np.empty((num, self.space.num_genes), dtype=np.int64)
        for value in self.inhabited:
            places = np.flatnonzero(bucket == value)
            if len(places):
                inside = self._inside(value, len(places), rng)
                if not len(inside):  # so rare that it was not met a second time
                    inside = self.space.sample(len(places), rng)
                rows[places] = np.resize(inside, (len(places), self.space.num_genes))
        return rows

    def block(self, number: int) -> Block:
        """See `BlockPaths.block`."""
        return Block(self.rows(BLOCK, np.random.default_rng([self.seed, 1, number])))

    def _inside(self, bucket: int, num: int, rng: np.random.Generator) -> Population:
        return self.space.sample_within(num, self.buckets.budget(bucket), rng, cost=self.measure)


def unrestricted(space: Space) -> Space:
    """Return the space that a space restricts; itself where it restricts none."""
    return space.space if isinstance(space, RestrictedSpace) else space


class WindowedPaths(IndependentPaths):
    """Paths within a window of multiply-adds, which is drawn anew in every step (DetNAS's released pre-training).

    After `TRIES` paths in vain the first of them is taken, whatever it costs: of DetNAS's windows the rarest misses
    0.4 % of its draws.

    Args:
        space: Space of the paths.
        seed: Seed of all draws.
        cost: Function from the space at `image_hw` to what is bounded; its own cost by default. In a training it counts
            the backbone alone, or where images are classified the classifier too.
        windows: Least and most multiply-adds / 1e9 of each window, both inclusive.
        image_hw: Height and width in pixels for which they are counted.
        cost_name: Cost that is bounded.

    Raises:
        ValueError: Without a window, or for one whose least value is the larger one.
        NasrayError: If a window can hardly be hit: none of 20,000 paths lies in it.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        cost: Callable[[Any], CostFunction] | None = None,
        windows: Sequence[tuple[float, float]],
        image_hw: tuple[int, int] = (224, 224),
        cost_name: str = "gmacs",
    ) -> None:
        if not windows or any(low > high for low, high in windows):
            raise ValueError(f"windows are pairs of a least and a most value, at least one; got {windows}")
        super().__init__(space, seed=seed)
        self.windows, self.cost_name = tuple(windows), cost_name
        kind: Any = type(unrestricted(space))
        measured = kind(**space.network_options(), image_hw=image_hw)
        self.cost: CostFunction = cost(measured) if cost is not None else measured.cost
        costs = self._costs(space.sample(PROBES, np.random.default_rng([seed, 0])))
        for low, high in self.windows:
            if not ((costs >= low) & (costs <= high)).any():
                raise NasrayError(
                    f"none of {PROBES} random paths has {cost_name} from {low:g} to {high:g}: theirs lie between "
                    f"{costs.min():.4g} and {costs.max():.4g}. Move the window, or take --paths.name uniform"
                )

    def rows(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths, each within a window of its own."""
        return np.stack([self._within(self.windows[int(rng.integers(len(self.windows)))], rng) for _ in range(num)])

    def _within(self, window: tuple[float, float], rng: np.random.Generator) -> NDArray[np.int64]:
        paths = self.space.sample(TRIES, rng)
        costs = self._costs(paths)
        first = np.argmax((costs >= window[0]) & (costs <= window[1]))  # the first hit; the first of all without one
        genes: NDArray[np.int64] = paths[first]
        return genes

    def _costs(self, paths: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.cost(paths)[self.cost_name]


PATHS = Registry(
    "path-sampler",
    {
        "uniform": UniformPaths,
        "genes": GenePaths,
        "buckets": BucketPaths,
        "windows": WindowedPaths,
        "accepted": "nasray.training.accepted:AcceptedPaths",
    },
    given=frozenset({"space", "seed", "cost", "cost_name", "buckets", "measure"}),
    is_slow=True,
)
"""A new way to choose the path of a step is one line here."""
