"""Batches made smaller after they were loaded, by interpolation on the device that computes.

Shapes: B images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from nasray.data.loader import Batch, pack, unpack
from nasray.data.transforms import cleaned, make_sample, resize


def images_at(images: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Return (B, 3, H, W) uint8 images in another size."""
    resized: Tensor = F.resize(images, list(image_hw), antialias=True)
    return resized


def scaled_batch(batch: Batch, factor: float, longest: int, stride: int, device: torch.device) -> Batch:
    """Return a batch with its images made smaller, and their boxes and masks with them.

    Each image is scaled by itself, without its padding, and all are padded anew. Boxes that vanish are left out.

    Args:
        batch: Images as a loader pads them, with targets.
        factor: Factor of height and width, at most 1.
        longest: Largest side in pixels, for which an image is scaled by less than `factor` where it must.
        stride: Images are padded to multiples of it.
        device: Device of the images that are returned; targets stay where they are.
    """
    samples = []
    for image, target, (height, width) in zip(
        batch.images.to(device), batch.targets, batch.image_hw.tolist(), strict=True
    ):
        scale = min(factor, longest / max(height, width))
        own = {name: value[:, :height, :width] if name == "masks" else value for name, value in target.items()}
        sample = make_sample(image[:, :height, :width], own)
        samples.append(cleaned(resize(sample, (max(round(height * scale), 1), max(round(width * scale), 1)))))
    return unpack(pack(samples, stride, batch.original_hw, batch.indices))
