"""Which path a training step takes: uniform, or within a window of multiply-adds. Needs no PyTorch.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019: paths are sampled uniformly
(section 3.2). The windows are those of its released pre-training, of which the paper does not speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import CostFunction, NasrayError, Space

DETNAS_WINDOWS: tuple[tuple[float, float], ...] = tuple((low / 100, (low + 1) / 100) for low in range(29, 36))
"""Of `gmacs` of the small space's whole classifiers at 224x224 (`ShuffleNetSpace.classifier_cost`)."""

PROBES = 20_000


@dataclass(frozen=True)
class PathSampler:
    """Draws the path of every training step, a function of `seed` and the step alone: the same on every worker.

    Without windows a path is a sample of the space, which for choices means each of them with the same probability.
    With windows, first one of them is drawn, then paths until one's cost lies in it; after `tries` in vain the first
    drawn path is taken, whatever it costs (of DetNAS's windows the rarest misses 0.4 % of its draws).

    Args:
        space: whose paths they are.
        seed: of all draws.
        windows: least and most value of the cost, both inclusive; none for paths of any cost.
        cost: what the windows are about; `space.cost` if left out.
        cost_name: which of its costs.
        tries: most draws of one step.

    Raises:
        ValueError: for a window whose least value is the larger one, or fewer than one try.
        NasrayError: if a window can hardly be hit: none of 20,000 paths lies in it.
    """

    space: Space
    seed: int
    windows: Sequence[tuple[float, float]] = ()
    cost: CostFunction | None = None
    cost_name: str = "gmacs"
    tries: int = 500

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is at least 1, got {self.tries}")
        if crossed := [window for window in self.windows if window[0] > window[1]]:
            raise ValueError(f"a window is its least and its most value, got {crossed}")
        if not self.windows:
            return
        costs = self._costs(self.space.sample(PROBES, np.random.default_rng([self.seed, 0])))
        for low, high in self.windows:
            if not ((costs >= low) & (costs <= high)).any():
                raise NasrayError(
                    f"none of {PROBES} random paths has {self.cost_name} from {low:g} to {high:g}: theirs lie between "
                    f"{costs.min():.4g} and {costs.max():.4g}. Move the window, or take none"
                )

    def draw(self, iteration: int) -> NDArray[np.int64]:
        """The (G,) genes of the path of a step, counted from 0."""
        rng = np.random.default_rng([self.seed, 1, iteration])
        if not self.windows:
            return self.space.sample(1, rng)[0]
        low, high = self.windows[int(rng.integers(len(self.windows)))]
        paths = self.space.sample(self.tries, rng)
        costs = self._costs(paths)
        return paths[np.argmax((costs >= low) & (costs <= high))]  # the first hit; the first of all if there is none

    def _costs(self, paths: NDArray[np.int64]) -> NDArray[np.float64]:
        return (self.cost or self.space.cost)(paths)[self.cost_name]
