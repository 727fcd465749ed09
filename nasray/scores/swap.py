"""SWAP: how many different patterns a random network's rectifiers show over the images of a batch.

Reference: Peng et al., "SWAP-NAS: Sample-wise activation patterns for ultra-fast NAS", ICLR 2024, Definitions 4.2 to
4.4.

Differs from the paper in:
- Images are drawn from N(0, 1), since no data is at hand; the paper takes a batch of the training set.
- Weights are He et al.'s, drawn here, so that the score does not depend on the module's own.
- A ReLU6 counts as active above 0; its upper bend is not looked at.
- The width of the regularization is given in millions of parameters, the paper's sigma is its square.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nasray.scores.weights import random_images, rectifiers_of, redrawn

WORD = 62
"""Images of which a whole number of 64 bits holds the signs."""


@torch.no_grad()
def swap_score(
    module: nn.Module,
    *,
    generator: torch.Generator,
    image_hw: tuple[int, int] = (224, 224),
    batch_size: int = 32,
) -> int:
    """Return the number of different patterns of all rectifiers, at most 2 to the power of `batch_size`.

    A rectifier's pattern is the list of the images for which it is active: S signs for S images.

    Args:
        module: A network whose activations are `nn.ReLU` or `nn.ReLU6` modules; it is copied, never changed.
        generator: Generator that draws weights and images.
        image_hw: Height and width in pixels.
        batch_size: Images in the batch.

    Raises:
        ValueError: if the network has no such modules.
    """
    network = redrawn(module, generator)
    images = random_images(network, generator, batch_size, image_hw)
    patterns: list[Tensor] = []
    for layer in rectifiers_of(network, "swap"):
        layer.register_forward_hook(lambda _, __, output: patterns.append(_packed(output > 0)))
    network(images)
    return _count(torch.cat(patterns, dim=1))


def size_weight(params_m: float, target_m: float, width_m: float) -> float:
    """Return the regularization of a network's size: exp(-((params - target) / width)^2), 1 at the target.

    Args:
        params_m: Parameters in millions.
        target_m: Parameters at which it is greatest.
        width_m: Distance from there at which it has fallen to 1 / e.
    """
    return math.exp(-(((params_m - target_m) / width_m) ** 2))


def _packed(active: Tensor) -> Tensor:
    """Return (words, U) whole numbers whose bits are the signs of (S, ...) activations, U units each."""
    words = []
    for part in active.flatten(1).split(WORD):
        word = torch.zeros(part.shape[1], dtype=torch.int64, device=part.device)
        for place, row in enumerate(part):
            word |= row.long() << place
        words.append(word)
    return torch.stack(words)


def _count(patterns: Tensor) -> int:
    """Return the number of different columns."""
    if len(patterns) == 1:
        return len(torch.unique(patterns[0]))
    return int(np.unique(patterns.cpu().numpy(), axis=1).shape[1])
