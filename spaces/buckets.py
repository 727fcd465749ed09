"""Buckets: intervals of a cost, of equal width, within which architectures are compared.

Shapes: N architectures, K buckets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasray.spaces.base import Space
from nasray.spaces.budget import Budget, CostFunction
from nasray.spaces.errors import NasrayError
from nasray.spaces.profile import NUM_SAMPLES, cost_ends, list_rows
from nasray.spaces.ranges import check_finite


@dataclass(frozen=True)
class Buckets:
    """Intervals of one cost, of which each begins where the one before ends.

    Attributes:
        cost: Name of the cost.
        edges: K + 1 ascending values. What is beyond an end belongs to the bucket there; an inner edge belongs to the
            bucket above it.

    Raises:
        NasrayError: If the edges do not ascend, or are fewer than two.
    """

    cost: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        for edge in self.edges:
            check_finite(f"edge of a bucket of {self.cost}", edge)
        if len(self.edges) < 2 or any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise NasrayError(f"edges of buckets of {self.cost} ascend, and are two at least; got {list(self.edges)}")

    @classmethod
    def equal(cls, cost: str, low: float, high: float, num: int) -> Buckets:
        """Return `num` buckets of the same width from `low` to `high`."""
        return cls(cost, tuple(float(edge) for edge in np.linspace(low, high, num + 1)))

    @classmethod
    def spanning(cls, space: Space, cost: str, num: int, *, count: CostFunction | None = None) -> Buckets:
        """Return `num` buckets of the same width over a cost's whole range, the same ones on every call.

        A restricted space has the buckets of the space that it restricts, so that buckets stay what they are when
        operations are pruned. Of spaces of more than 20,000 architectures the ends are found by descent and ascent,
        gene by gene: exact where every gene's larger values cost more.

        Args:
            space: Space.
            cost: Name of the cost.
            num: Number of buckets.
            count: Function that returns the cost; the space's own if left out.

        Raises:
            NasrayError: If there is no such cost, or all architectures cost the same.
        """
        count = count or space.cost
        space = space.whole
        listed = list_rows(space, NUM_SAMPLES)
        rows = space.sample(NUM_SAMPLES, np.random.default_rng(0)) if listed is None else listed
        known = count(rows[:1])
        if cost not in known:
            raise NasrayError(
                f"buckets of {cost}: space {space.family!r} does not have that cost. It has: "
                f"{', '.join(known) or 'none'}"
            )
        low, high = cost_ends(space, count, cost, rows, is_whole=listed is not None)
        if not low < high:
            raise NasrayError(
                f"buckets of {cost}: all architectures of space {space.family!r} have {cost} {low:g}. Take another cost"
            )
        return cls.equal(cost, low, high, num)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def of(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return (N,) the bucket of each of (N,) costs."""
        return np.searchsorted(self.edges[1:-1], np.asarray(values), side="right").astype(np.int64)

    def budget(self, bucket: int) -> Budget:
        """Return the bounds of a bucket; an inner upper edge, which belongs to the next bucket, is left out."""
        low, high = self.edges[bucket], self.edges[bucket + 1]
        if bucket < len(self) - 1:
            high = float(np.nextafter(high, -np.inf))
        return Budget(upper={self.cost: high}, lower={self.cost: low})
