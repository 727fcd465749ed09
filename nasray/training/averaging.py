"""A moving average of a model's weights, which is what is evaluated and exported.

Reference: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the decay's warm-up is
that of TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Keeps a copy of a model whose floating-point weights and buffers follow it exponentially.

    After n updates the decay is at most (1 + n) / (10 + n), so that the first weights, which are random, fade soon.
    Other buffers (counters) are copied.

    Args:
        model: Model to follow; it is copied as it is now.
        decay: Decay in [0, 1).

    Attributes:
        model: The average, in inference mode.
        updates: Number of updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards a model's weights as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = _tensors(self.model), _tensors(model)
        moving = [index for index, value in enumerate(values) if value.is_floating_point()]
        torch._foreach_lerp_([averages[i] for i in moving], [values[i] for i in moving], 1 - decay)
        for average, value in zip(averages, values, strict=True):
            if not value.is_floating_point():
                average.copy_(value)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
