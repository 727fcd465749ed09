"""From pixels to what networks take."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""Of ImageNet's RGB values in 0 to 255."""


class Normalize(nn.Module):
    """RGB values in 0 to 255 to mean 0 and deviation 1 over ImageNet. It has no state."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) images of any dtype."""
        return (images.to(self.mean.dtype) - self.mean) / self.std
