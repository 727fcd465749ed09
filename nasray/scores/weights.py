"""Random weights for the scores that read a PyTorch module."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


def redrawn(module: nn.Module, generator: torch.Generator, *, unit: bool = False) -> nn.Module:
    """Return a copy of `module` in training mode with fresh weights; the module itself is left alone.

    Args:
        module: Module whose convolutions, fully connected layers and batch norms are set; others are copied.
        generator: Generator that draws the weights, in the order of `module.modules()`, on its own device.
        unit: Whether weights come from N(0, 1), or from He et al.'s N(0, 2 / fan-in).
    """
    fresh = copy.deepcopy(module).train()
    with torch.no_grad():
        for layer in fresh.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                scale = 1.0 if unit else math.sqrt(2.0 / layer.weight[0].numel())
                weight = torch.randn(layer.weight.shape, generator=generator, device=generator.device)
                layer.weight.copy_(weight * scale)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()
    return fresh


def last_map(output: Any) -> Tensor:
    """Return the deepest map of what a backbone returns: a tensor, or the last value of a dictionary or sequence."""
    if isinstance(output, dict):
        output = list(output.values())
    return output if isinstance(output, Tensor) else output[-1]


def random_images(module: nn.Module, generator: torch.Generator, batch_size: int, image_hw: tuple[int, int]) -> Tensor:
    """Return (B, 3, H, W) images from N(0, 1), on the device of the module's parameters."""
    device = next(module.parameters()).device
    return torch.randn((batch_size, 3, *image_hw), generator=generator, device=generator.device).to(device)


def rectifiers_of(network: nn.Module, score: str) -> list[nn.Module]:
    """Return the `nn.ReLU` and `nn.ReLU6` modules of a network, each once.

    Args:
        network: Network whose activations are looked at.
        score: Name of the score that needs them, for the message.

    Raises:
        ValueError: if there are none.
    """
    found: list[nn.Module] = [layer for layer in network.modules() if isinstance(layer, (nn.ReLU, nn.ReLU6))]
    if not found:
        raise ValueError(f"{score} needs nn.ReLU or nn.ReLU6 modules; {type(network).__name__} has none")
    return found
