"""The loss of a network on images that it does not learn from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from nasray.data.examples import Examples, moved_targets
from nasray.devices import autocast


@torch.no_grad()
def mean_loss(
    network: nn.Module,
    batches: Iterable[Examples],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    channels_last: bool = False,
) -> float:
    """Return the sum of all losses, the mean over batches weighted by their images; NaN without any.

    What the losses themselves divide by, such as the objects of a batch, they count batch by batch: the division into
    batches belongs to the figure.

    Args:
        network: Detector or classifier in inference mode, on the device.
        batches: Batches with targets.
        seed: Seed of what losses sample, such as regions; drawn for one batch after the other.
        device: Device where it runs.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision.
        channels_last: Whether images are NHWC.
    """
    device = torch.device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator(device).manual_seed(seed)
    total, num_images = torch.zeros((), dtype=torch.float64, device=device), 0
    for batch in batches:
        images = batch.images.to(device, memory_format=layout, non_blocking=True)
        with autocast(device, precision):
            losses = network(images, moved_targets(batch.targets, device), generator=generator)
        total += torch.stack([loss.double() for loss in losses.values()]).sum() * len(images)
        num_images += len(images)
    return total.item() / num_images if num_images else float("nan")
