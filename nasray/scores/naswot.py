"""NASWOT: how differently a random network's rectifiers answer to the images of a batch.

Reference: Mellor et al., "Neural architecture search without training", ICML 2021, Eq. 2 and Section 3.

Differs from the paper in:
- Images are drawn from N(0, 1), since no data is at hand; the paper takes a batch of the training set.
- Weights are He et al.'s, drawn here, so that the score does not depend on the module's own.
- A ReLU6 counts as active above 0; its upper bend is not looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nasray.scores.weights import random_images, rectifiers_of, redrawn


@torch.no_grad()
def naswot_score(
    module: nn.Module,
    *,
    generator: torch.Generator,
    image_hw: tuple[int, int] = (224, 224),
    batch_size: int = 32,
) -> float:
    """Log |det K|, where K[i, j] counts the rectifiers that agree on images i and j.

    Args:
        module: A network whose activations are `nn.ReLU` or `nn.ReLU6` modules; it is copied, never changed.
        generator: Generator that draws weights and images.
        image_hw: Height and width in pixels.
        batch_size: Images in the batch. Minus infinity where two of them have the same code.

    Raises:
        ValueError: if the network has no such modules.
    """
    network = redrawn(module, generator)
    images = random_images(network, generator, batch_size, image_hw)
    kernel = torch.zeros(batch_size, batch_size, dtype=torch.float64, device=images.device)
    rectifiers = rectifiers_of(network, "naswot")

    def count(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        # With codes of -1 and 1 the number that agrees is (units + product) / 2, whole numbers below 2^24 a layer.
        codes = torch.where(output > 0, 1.0, -1.0).flatten(1)
        kernel.add_((codes.shape[1] + (codes @ codes.T).double()) / 2)

    for layer in rectifiers:
        layer.register_forward_hook(count)
    network(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)
