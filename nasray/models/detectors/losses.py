"""Normalisers and losses that several detectors share. Losses of torchvision.ops are used where there are some."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def mean_over_workers(value: Tensor) -> Tensor:
    """The mean of a tensor over all training workers, without gradient; the tensor itself where there is but one.

    Gradients are averaged over workers. A sum divided by the mean count therefore gives the gradient of the sum over
    all workers divided by the count over all workers.
    """
    value = value.detach()
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def positive_count(count: Tensor | int, like: Tensor) -> Tensor:
    """A number of positives as a divisor: its mean over workers, at least 1."""
    return mean_over_workers(torch.as_tensor(count, dtype=torch.float32, device=like.device)).clamp(min=1.0)
