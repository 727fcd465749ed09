"""Which path a training step takes: uniform, or within a window of multiply-adds. Needs no PyTorch.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019: paths are sampled uniformly
(section 3.2). The windows are those of its released pre-training, of which the paper does not speak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nasray.registry import Registry
from nasray.spaces import CostFunction, NasrayError, Space

DETNAS_WINDOWS: tuple[tuple[float, float], ...] = tuple((low / 100, (low + 1) / 100) for low in range(29, 36))
"""Of `gmacs` of the small space's whole classifiers at 224x224 (`ShuffleNetSpace.classifier_cost`)."""

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


class UniformPaths:
    """Every path with the same probability: uniform samples of the space.

    Args:
        space: Space of the paths.
        seed: Seed of all draws.
    """

    def __init__(self, space: Space, *, seed: int = 0) -> None:
        self.space, self.seed = space, seed

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """Return the (G,) genes of the path of a step, counted from 0."""
        genes: NDArray[np.int64] = self.space.sample(1, np.random.default_rng([self.seed, 1, iteration]))[0]
        return genes


class WindowedPaths:
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
        self.space, self.seed, self.windows, self.cost_name = space, seed, tuple(windows), cost_name
        kind: Any = type(space)
        measured = kind(**space.network_options(), image_hw=image_hw)
        self.cost: CostFunction = cost(measured) if cost is not None else measured.cost
        costs = self._costs(space.sample(PROBES, np.random.default_rng([seed, 0])))
        for low, high in self.windows:
            if not ((costs >= low) & (costs <= high)).any():
                raise NasrayError(
                    f"none of {PROBES} random paths has {cost_name} from {low:g} to {high:g}: theirs lie between "
                    f"{costs.min():.4g} and {costs.max():.4g}. Move the window, or take --paths.name uniform"
                )

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """Return the (G,) genes of the path of a step, counted from 0."""
        rng = np.random.default_rng([self.seed, 1, iteration])
        low, high = self.windows[int(rng.integers(len(self.windows)))]
        paths = self.space.sample(TRIES, rng)
        costs = self._costs(paths)
        first = np.argmax((costs >= low) & (costs <= high))  # the first hit; the first of all if there is none
        genes: NDArray[np.int64] = paths[first]
        return genes

    def _costs(self, paths: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.cost(paths)[self.cost_name]


PATHS = Registry(
    "path-sampler",
    {"uniform": UniformPaths, "windows": WindowedPaths},
    given=frozenset({"space", "seed", "cost", "cost_name"}),
)
"""A new way to choose the path of a step is one line here."""
