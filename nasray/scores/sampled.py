"""Multi-scale entropy by sampling: the literal forward pass through random weights.

Reference: Sun et al., "MAE-DET", ICML 2022, Eq. 3-5: weights and image from N(0, 1), every feature map divided by its
Euclidean norm gamma after the activation, H(Ci) = 1/2 log Var of the last pre-activation map of the stage, plus the
logarithms of the gammas before it.

Differs from the paper in:
- Eq. 4 sums log gamma up to l = D. Only the gammas up to D - 1 act on the last pre-activation map, and only they are
  summed; so the result does not depend on the gammas (it would with the other reading).
- The shortcuts of the deployed network take part by default (Eq. 2 is written for a vanilla network). Every map
  carries its own log-scale, so that main branch and shortcut add in the right ratio. The variance is read before the
  shortcut is added.
- "Multiplied by the size of the feature map": see `size_factor` of `nasray.scores.entropy.entropy_score`.
- Inverted residuals use ReLU, not ReLU6: ReLU6 is not homogeneous, so that the compensation of Eq. 4 would be wrong
  and the score would depend on the gammas. A linear map is divided by its norm like the others.
- Gates of squeeze and excitation are not homogeneous either; they stand at 1/2 (what they are for a map of small mean).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nasray.architectures import checked_spec, layer_table
from nasray.architectures.staged import MID_KEYS
from nasray.scores.borders import NUM_LEVELS
from nasray.scores.entropy import MULTI_SCALE, SizeFactor, level_widths, weigh_levels
from nasray.spaces import Architecture, NasrayError


def sampled_entropy(
    architecture: Architecture,
    *,
    generator: torch.Generator,
    repeats: int = 1,
    weights: tuple[float, ...] = MULTI_SCALE,
    size_factor: SizeFactor = "log-channels",
    residual: bool = True,
    image_hw: tuple[int, int] = (384, 384),
    device: torch.device | str = "cpu",
) -> float:
    """Return the multi-scale entropy Z of Eq. 5, the mean of `repeats` forward passes.

    Args:
        architecture: Architecture of a staged family.
        generator: Generator of weights, images. It may live on another device than `device`: numbers are drawn where it
            lives, so that a generator on the CPU gives the same score, but for rounding, on every device.
        repeats: Number of passes, each with weights and an image of its own.
        weights: Alpha of C1 to C5.
        size_factor: Factor of map sizes as in `nasray.scores.entropy.entropy_score`.
        residual: Whether the shortcuts take part.
        image_hw: Height and width in pixels of the image.
        device: Device where to compute.

    Raises:
        ValueError: for fewer than one repeat.
        NasrayError: if the architecture is not a staged one.
    """
    if repeats < 1:
        raise ValueError(f"repeats is at least 1, got {repeats}")
    passes = [
        sampled_level_entropies(architecture, generator=generator, residual=residual, image_hw=image_hw, device=device)
        for _ in range(repeats)
    ]
    return float(weigh_sampled(architecture, np.stack(passes), weights, size_factor, image_hw).mean())


def weigh_sampled(
    architecture: Architecture,
    entropies: NDArray[np.float64],
    weights: tuple[float, ...],
    size_factor: SizeFactor,
    image_hw: tuple[int, int],
) -> NDArray[np.float64]:
    """Weigh R passes of one architecture by Eq. 5: (R, 5) level entropies to (R,) scores."""
    widths = np.repeat(level_widths(layer_table(architecture, image_hw)), len(entropies), axis=1)
    return weigh_levels(entropies.T, widths, weights, size_factor, image_hw)


@torch.no_grad()
def sampled_level_entropies(
    architecture: Architecture,
    *,
    generator: torch.Generator,
    residual: bool = True,
    image_hw: tuple[int, int] = (384, 384),
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:
    """Return H(C1) to H(C5) of one forward pass: (5,), natural logarithms. Arguments as in `sampled_entropy`.

    A level that a network skips has the entropy of the one before. Minus infinity where a map is constant, which
    happens only to maps of a few pixels and channels.
    """
    if architecture.family not in MID_KEYS:
        raise NasrayError(
            f"family {architecture.family!r} is not one of staged networks, which are: {', '.join(MID_KEYS)}"
        )
    spec = checked_spec(architecture)
    draw = _Draw(generator, torch.device(device))
    entropies = torch.zeros(NUM_LEVELS, dtype=torch.float64, device=device)
    image = _Map(draw((1, 3, *image_hw)), torch.zeros((), dtype=torch.float64, device=device))
    before = _conv(image, spec["stem"]["width"], draw, kernel=spec["stem"]["kernel"], stride=2)
    entropies[:] = _half_log_variance(before)
    x = _rescaled(before, relu=True)
    level = 1
    if spec["stem"]["pool"]:
        x = x._replace(values=F.max_pool2d(x.values, 3, 2, padding=1))
        level = 2
    for stage in spec["stages"]:
        level += stage["stride"] == 2
        for index in range(stage["depth"]):
            stride = stage["stride"] if index == 0 else 1
            before, x = _block(architecture.family, x, stage, stride, draw, index == 0, spec["shortcut"], residual)
        entropies[level - 1 :] = _half_log_variance(before)
    return entropies.cpu().numpy()


class _Map(NamedTuple):
    """A (1, C, H, W) feature map, `values` times exp(`log_scale`); the latter is a scalar of 64 bits."""

    values: Tensor
    log_scale: Tensor


class _Draw(NamedTuple):
    """Draws from N(0, 1) where the generator lives and hands out on `device`."""

    generator: torch.Generator
    device: torch.device

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)


def _conv(x: _Map, out: int, draw: _Draw, *, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> _Map:
    channels = x.values.shape[1]
    weight = draw((out, 1 if depthwise else channels, kernel, kernel))
    groups = channels if depthwise else 1
    return x._replace(values=F.conv2d(x.values, weight, stride=stride, padding=kernel // 2, groups=groups))


def _rescaled(before: _Map, *, relu: bool) -> _Map:
    """Return Eq. 4's x = activation(h) / gamma, with log gamma added to the scale."""
    values = before.values.relu() if relu else before.values
    gamma = torch.linalg.vector_norm(values).clamp_min(1e-30)  # a map of zeros stays one
    return _Map(values / gamma, before.log_scale + gamma.double().log())


def _half_log_variance(before: _Map) -> Tensor:
    return 0.5 * before.values.var(correction=0).double().log() + before.log_scale


def _sum(first: _Map, second: _Map) -> _Map:
    scale = torch.maximum(first.log_scale, second.log_scale)
    parts = [x.values * (x.log_scale - scale).exp().to(x.values.dtype) for x in (first, second)]
    return _Map(parts[0] + parts[1], scale)


def _block(
    family: str,
    x: _Map,
    stage: dict[str, int],
    stride: int,
    draw: _Draw,
    is_first: bool,
    shortcut: str,
    residual: bool,
) -> tuple[_Map, _Map]:
    """Return the block's last map before shortcut and activation, and what the next block reads."""
    is_inverted = family.startswith("inverted")
    channels, out, kernel = x.values.shape[1], stage["width"], stage["kernel"]
    if is_inverted:
        hidden = channels * stage["expansion"]
        inner = x
        if stage["expansion"] > 1:
            inner = _rescaled(_conv(inner, hidden, draw), relu=True)
        inner = _rescaled(_conv(inner, hidden, draw, kernel=kernel, stride=stride, depthwise=True), relu=True)
        if family == "inverted-se":
            inner = inner._replace(log_scale=inner.log_scale + math.log(0.5))
        before = _conv(inner, out, draw)
    elif family == "bottleneck":
        inner = _rescaled(_conv(x, stage["bottleneck"], draw), relu=True)
        inner = _rescaled(_conv(inner, stage["bottleneck"], draw, kernel=kernel, stride=stride), relu=True)
        before = _conv(inner, out, draw)
    else:
        inner = _rescaled(_conv(x, out, draw, kernel=kernel, stride=stride), relu=True)
        before = _conv(inner, out, draw, kernel=kernel)
    side = _shortcut(x, out, stride, draw, is_first, shortcut, is_inverted) if residual else None
    return before, _rescaled(before if side is None else _sum(before, side), relu=not is_inverted)


def _shortcut(
    x: _Map, out: int, stride: int, draw: _Draw, is_first: bool, shortcut: str, is_inverted: bool
) -> _Map | None:
    """Return the shortcut as `nasray.models.backbone` has it; None where there is none."""
    changes = stride == 2 or x.values.shape[1] != out
    if is_inverted:
        return None if changes else x
    if not is_first or not (changes or shortcut == "pool"):
        return x
    if shortcut == "stride" or stride == 1:
        return _conv(x, out, draw, stride=stride)
    pooled = F.avg_pool2d(x.values, 2, 2, ceil_mode=True, count_include_pad=False)
    return _conv(x._replace(values=pooled), out, draw)
