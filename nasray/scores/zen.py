"""Zen-Score: how strongly a random network without shortcuts reacts to a small change of its input.

Reference: Lin et al., "Zen-NAS: A zero-shot NAS for high-performance image recognition", ICCV 2021, Algorithm 1.

Differs from the paper in:
- The variances of a batch norm are those of the unperturbed batch, biased. (The released code reads the running
  variances, which mix in their initial value 1.)
- Shortcuts are removed where a block keeps one in an attribute `shortcut`, as `nasray.models.backbone` does.
- Squeeze-and-excitation gates act as they are; ReLU6 clips as it does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nasray.scores.weights import last_map, random_images, redrawn


@torch.no_grad()
def zen_score(
    module: nn.Module,
    *,
    generator: torch.Generator,
    image_hw: tuple[int, int] = (224, 224),
    batch_size: int = 16,
    alpha: float = 0.01,
) -> float:
    """Log of the mean Frobenius norm of f(x) - f(x + alpha e), plus the logarithms of the batch norms' scales.

    Args:
        module: A backbone; it is copied, never changed. f is its deepest map.
        generator: Generator that draws weights, images x and noise e, all from N(0, 1).
        image_hw: Height and width in pixels.
        batch_size: Images in the batch, at least 2 where maps shrink to a single pixel.
        alpha: Size of the perturbation.
    """
    network = redrawn(module, generator, unit=True)
    log_scales: list[float] = []

    def note_scale(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variances = inputs[0].var(dim=(0, 2, 3), correction=0)
        log_scales.append(0.5 * math.log(max(float(variances.double().mean()), 1e-300)))

    for block in list(network.modules()):
        if getattr(block, "shortcut", None) is not None:
            block.register_module("shortcut", None)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = random_images(network, generator, batch_size, image_hw)
    noise = random_images(network, generator, batch_size, image_hw)
    handles = [norm.register_forward_pre_hook(note_scale) for norm in norms]
    plain = last_map(network(images))
    for handle in handles:
        handle.remove()
    change = plain - last_map(network(images + alpha * noise))
    norm = float(torch.linalg.vector_norm(change.flatten(1).double(), dim=1).mean())
    return (math.log(norm) if norm > 0 else -math.inf) + sum(log_scales)
