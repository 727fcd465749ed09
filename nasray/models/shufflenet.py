"""Backbones of ShuffleNetV2 blocks, a kind for each block: the networks of DetNAS. Needs only PyTorch.

`nasray export` writes this file verbatim beside an architecture, so it imports nothing but torch.

References: Ma et al., "ShuffleNet V2", ECCV 2018; Chen et al., "DetNAS: Backbone Search for Object Detection",
NeurIPS 2019, and its released code (initial weights, kernels of projections, both channel shuffles).

Shapes: B images, C channels, H x W pixels. Every level halves height and width, rounding up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

KERNELS = {"3x3": 3, "5x5": 5, "7x7": 7, "xception": 3}
"""The kinds of blocks, and the kernel of their depthwise convolutions."""

SHUFFLES = ("interleave", "even-odd")


class ShuffleNet(nn.Module):
    """A stem of stride 2 and four stages (C2 to C5) of ShuffleNetV2 blocks.

    Args:
        stem: `width`. The stem is a 3x3 convolution with a bias, its norm and a ReLU.
        stages: `width`, and `blocks`, a kind of `KERNELS` for each. The first block has stride 2, the others 1. Widths
            are multiples of 4, and each is more than the one before.
        shuffle: How blocks of stride 1 divide their input, see `divide`. Weights belong to one of the two.
        out_levels: Which of C1 to C5 `forward` returns.
        momentum: Momentum of the batch norms.

    Attributes:
        feature_info: Per returned level `num_chs`, `reduction` and `module` (the module whose output it is).
        out_channels: The number of channels of every returned level.

    Raises:
        ValueError: for an unknown shuffle, kind or level, or widths that do not fit.
    """

    def __init__(
        self,
        stem: Mapping[str, int],
        stages: Sequence[Mapping[str, Any]],
        shuffle: str,
        out_levels: Sequence[int] = (2, 3, 4, 5),
        *,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        width = stem["width"]
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width, momentum=momentum), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        level_info: dict[int, dict[str, Any]] = {1: {"num_chs": width, "reduction": 2, "module": "stem"}}
        for index, stage in enumerate(stages):
            blocks = []
            for place, kind in enumerate(stage["blocks"]):
                stride = 2 if place == 0 else 1
                blocks.append(ShuffleBlock(kind, width, stage["width"], stride, shuffle, momentum=momentum))
                width = stage["width"]
            self.stages.append(nn.Sequential(*blocks))
            level = index + 2
            level_info[level] = {"num_chs": width, "reduction": 2**level, "module": f"stages.{index}"}
        if missing := [level for level in out_levels if level not in level_info]:
            raise ValueError(f"out_levels are among {sorted(level_info)} in this network, got {missing}")
        self.feature_info = [level_info[level] for level in sorted(out_levels)]
        self.out_channels = [info["num_chs"] for info in self.feature_info]
        self.names = {info["module"]: f"c{level}" for level, info in level_info.items() if level in out_levels}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as DetNAS does: normal, of deviation 0.01 in the stem, else see `reset_layers`."""
        reset_layers(self)
        conv = self.stem[0]
        assert isinstance(conv, nn.Conv2d)
        nn.init.normal_(conv.weight, 0.0, 0.01)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary from "c2" (or the level asked for) to (B, C, H', W')."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(images)
        if "stem" in self.names:
            maps[self.names["stem"]] = x
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in self.names:
                maps[self.names[f"stages.{index}"]] = x
        return maps


class ShuffleBlock(nn.Module):
    """Half of the channels pass, the other half are convolved; at stride 2 all pass a projection and are convolved.

    Args:
        kind: Kind of block, one of `KERNELS`.
        width_in: Channels of the input.
        width_out: Channels of the output; at stride 1 as many, at stride 2 more. A multiple of 4.
        stride: 1 or 2.
        shuffle: Kind of shuffle; see `divide`.
        momentum: Momentum of the batch norms.
    """

    def __init__(
        self, kind: str, width_in: int, width_out: int, stride: int, shuffle: str, *, momentum: float = 0.1
    ) -> None:
        super().__init__()
        if kind not in KERNELS:
            raise ValueError(f"a block is one of {', '.join(KERNELS)}; got {kind!r}")
        if shuffle not in SHUFFLES:
            raise ValueError(f"shuffle is one of {', '.join(SHUFFLES)}; got {shuffle!r}")
        if width_out % 4 or not (width_in == width_out if stride == 1 else width_in < width_out):
            raise ValueError(
                "widths are multiples of 4, more than the one before at stride 2 and the same at stride 1; "
                f"got {width_out} after {width_in} at stride {stride}"
            )
        kernel, mid = KERNELS[kind], width_out // 2
        inner, outer = (width_in, width_out - width_in) if stride == 2 else (mid, mid)
        if kind == "xception":
            main = [
                *_separable(inner, mid, kernel, stride, momentum),
                *_separable(mid, mid, kernel, 1, momentum),
                *_separable(mid, outer, kernel, 1, momentum),
            ]
        else:
            main = [*_pointwise(inner, mid, momentum), *_separable(mid, outer, kernel, stride, momentum)]
        self.main = nn.Sequential(*main)
        self.projection = nn.Sequential(*_separable(inner, inner, kernel, 2, momentum)) if stride == 2 else None
        self.shuffle = shuffle

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        if self.projection is not None:
            return torch.cat([self.projection(x), self.main(x)], dim=1)
        passed, x = divide(x, self.shuffle)
        return torch.cat([passed, self.main(x)], dim=1)


def divide(x: Tensor, shuffle: str) -> tuple[Tensor, Tensor]:
    """Divide (B, C, H, W), C a multiple of 4, into two maps of C / 2 channels.

    Args:
        x: Tensor to divide.
        shuffle: "interleave": the two halves are shuffled into each other (channels 0, C/2, 1, C/2 + 1, ...), then cut
            in half; DetNAS's supernet. "even-odd": channels 0, 2, 4, ... and 1, 3, 5, ...; its retrained networks.
    """
    if shuffle == "even-odd":
        return x[:, 0::2], x[:, 1::2]
    quarter = x.shape[1] // 4
    if x.stride(1) == 1 and not torch.compiler.is_compiling():  # NHWC, which the other way would copy to NCHW
        pairs = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2 * quarter)).transpose(-1, -2)  # (B, H, W, C/2, 2)
        first, second = (half.flatten(-2).permute(0, 3, 1, 2) for half in pairs.split(quarter, dim=-2))
        return first, second
    halves = x.unflatten(1, (2, 2 * quarter)).transpose(1, 2)  # (B, C/2, 2, H, W)
    return halves[:, :quarter].flatten(1, 2), halves[:, quarter:].flatten(1, 2)


def reset_layers(module: nn.Module) -> None:
    """Draw the weights of a module's layers anew, as DetNAS does.

    Convolutions: normal, of a deviation of one over the input channels of a group; linear layers: normal, 0.01; norms:
    weight 1, bias 1e-4, so that a ReLU behind one starts alive; other biases 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, 1.0 / layer.weight.shape[1])
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            nn.init.constant_(layer.bias, 1e-4)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.zeros_(layer.bias)


def _pointwise(width_in: int, width_out: int, momentum: float) -> list[nn.Module]:
    conv = nn.Conv2d(width_in, width_out, 1, bias=False)
    return [conv, nn.BatchNorm2d(width_out, momentum=momentum), nn.ReLU(inplace=True)]


def _separable(width_in: int, width_out: int, kernel: int, stride: int, momentum: float) -> list[nn.Module]:
    """Return a depthwise convolution and its norm, without ReLU; a 1x1 convolution, its norm and a ReLU."""
    conv = nn.Conv2d(width_in, width_in, kernel, stride=stride, padding=kernel // 2, groups=width_in, bias=False)
    return [conv, nn.BatchNorm2d(width_in, momentum=momentum), *_pointwise(width_in, width_out, momentum)]
