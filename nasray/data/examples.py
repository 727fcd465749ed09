"""What computing on images needs of a batch and of a loader, whether boxes or classes are learned.

Shapes: B images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nasray.data.classification import ClassificationBatch
    from nasray.data.loader import Batch


class Examples(Protocol):
    """What a step needs of a batch."""

    @property
    def images(self) -> Tensor:
        """(B, 3, H, W) RGB values, 0 to 255."""
        ...

    @property
    def targets(self) -> Any:
        """A (B,) tensor of labels, or B dictionaries of tensors."""
        ...


class Batches(Protocol):
    """What a training needs of a loader."""

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        ...

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch | ClassificationBatch]:
        """Return the batches of an epoch from one on, each with this worker's images."""
        ...


def moved_targets(targets: Any, device: torch.device) -> Any:
    """Return the same on the device: a tensor of labels, or dictionaries of tensors."""
    if isinstance(targets, Tensor):
        return targets.to(device, non_blocking=True)
    return [{name: value.to(device, non_blocking=True) for name, value in one.items()} for one in targets]
