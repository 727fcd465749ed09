"""SynFlow: the flow through all paths of a network whose weights are made positive.

Reference: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic flow",
NeurIPS 2020, Eq. 2 and Algorithm 1. As a score of networks: Abdelfattah et al., "Zero-cost proxies for lightweight
NAS", ICLR 2021. MAE-DET's Table 9 calls it "SyncFlow".

Differs from the papers in:
- The sum of all parameters' saliencies is given as its logarithm: it spans hundreds of orders of magnitude.
- R sums the deepest map of a backbone; there are no class scores.
- Batch norms are left out, as Abdelfattah et al. do; ReLU6 is replaced by ReLU, which is the identity here.
- Squeeze-and-excitation gates act as they are: with positive weights they stand near 1.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from nasray.scores.weights import last_map, redrawn
from nasray.spaces import NasrayError


def synflow_score(
    module: nn.Module,
    *,
    generator: torch.Generator,
    image_hw: tuple[int, int] = (224, 224),
) -> float:
    """Log of the sum over all weights w of |w dR/dw|, R the sum of the output for an image of ones. In 64 bits.

    Args:
        module: A backbone; it is copied, never changed.
        generator: Generator that draws the weights whose absolute values are used.
        image_hw: Height and width in pixels.

    Raises:
        NasrayError: if the flow exceeds 1e308, which takes several hundred layers.
    """
    network = redrawn(module, generator).double()
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.ReLU6):
                setattr(parent, name, nn.ReLU())
    weights = list(network.parameters())
    for weight in weights:
        weight.data.abs_()
        weight.requires_grad_(True)
    images = torch.ones((1, 3, *image_hw), dtype=torch.float64, device=weights[0].device)
    with torch.enable_grad():
        flow = last_map(network(images)).sum()
        gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    pairs = zip(weights, gradients, strict=True)
    total = float(sum((w.detach() * g).abs().sum() for w, g in pairs if g is not None))
    if not math.isfinite(total):
        raise NasrayError(
            f"synflow overflows in {type(module).__name__}: the flow through {len(weights)} layers exceeds 1e308. "
            "Take a shallower network, or the scores entropy, zen or naswot"
        )
    return math.log(total) if total > 0 else -math.inf
