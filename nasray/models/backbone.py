"""Backbones of a stem and residual stages C2 to C5: bottlenecks, basic blocks, inverted residuals. Needs only PyTorch.

`nasray export` writes this file verbatim beside an architecture, so it imports nothing but torch.

References: He et al., "Deep residual learning for image recognition", CVPR 2016; Sandler et al., "MobileNetV2",
CVPR 2018; Howard et al., "Searching for MobileNetV3", ICCV 2019 (the width of the gates); Sun et al., "MAE-DET",
ICML 2022 (average pool before a strided projection).

Shapes: B images, C channels, H x W pixels. Every level halves height and width, rounding up.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

BLOCKS = ("bottleneck", "basic", "inverted", "inverted-se")


class Backbone(nn.Module):
    """A stem of stride 2 and stages of residual blocks.

    Args:
        block: "bottleneck" (1x1, kxk, 1x1), "basic" (kxk, kxk), "inverted" (1x1 expansion, depthwise kxk, linear 1x1)
            or "inverted-se" (the same with a squeeze-and-excitation gate before the linear 1x1).
        stem: `kernel`, `width`, and optionally `pool`: whether a 3x3 max pool of stride 2 follows (ResNet).
        stages: `kernel`, `width`, `depth` (in blocks), `stride` (1 or 2, of the first block), and `bottleneck` (its
            width) or `expansion` (a ratio). Kernels are odd. Every stride of 2 begins the next level.
        shortcut: "pool": the first block of a stage always has a projection, at stride 2 behind a 2x2 average pool.
            "stride": a projection, itself strided, only where the shape changes (ResNet). Inverted residuals ignore
            it: they have an identity shortcut where the shape stays, and none elsewhere.
        out_levels: Which of C1 to C5 `forward` returns.
        zero_init_residual: Whether the last norm of every residual branch starts at zero, so that the block starts as
            its shortcut.

    Attributes:
        feature_info: Per returned level `num_chs`, `reduction` and `module` (the module whose output it is).
        out_channels: The number of channels of every returned level.

    Raises:
        ValueError: for an unknown kind of block or shortcut, or a level that the stages do not reach.
    """

    def __init__(
        self,
        block: str,
        stem: Mapping[str, int],
        stages: Sequence[Mapping[str, int]],
        shortcut: str = "pool",
        out_levels: Sequence[int] = (2, 3, 4, 5),
        *,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if block not in BLOCKS:
            raise ValueError(f"block is one of {', '.join(BLOCKS)}; got {block!r}")
        if shortcut not in ("pool", "stride"):
            raise ValueError(f'shortcut is "pool" or "stride", got {shortcut!r}')
        width = stem["width"]
        self.stem = nn.Sequential(*_conv_norm(3, width, stem["kernel"], stride=2), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, padding=1) if stem.get("pool", False) else None
        self.stages = nn.ModuleList()
        level_info = {1: {"num_chs": width, "reduction": 2, "module": "stem"}}
        level = 2 if self.pool is not None else 1
        for index, stage in enumerate(stages):
            level += stage["stride"] == 2
            self.stages.append(_stage(block, width, stage, shortcut))
            width = stage["width"]
            level_info[level] = {"num_chs": width, "reduction": 2**level, "module": f"stages.{index}"}
        if missing := [level for level in out_levels if level not in level_info]:
            raise ValueError(f"out_levels are among {sorted(level_info)} in this network, got {missing}")
        self.feature_info = [level_info[level] for level in sorted(out_levels)]
        self.out_channels = [info["num_chs"] for info in self.feature_info]
        self.names = {info["module"]: f"c{level}" for level, info in level_info.items() if level in out_levels}
        self.reset_parameters(zero_init_residual)

    def reset_parameters(self, zero_init_residual: bool = False) -> None:
        """Draw the weights anew: He et al.'s normal distribution over the fan-out; norms at 1, biases at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Residual) and module.shortcut is not None:
                    norm = module.main[-1]
                    assert isinstance(norm, nn.BatchNorm2d)
                    nn.init.zeros_(norm.weight)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary from "c2" (or the level asked for) to (B, C, H', W')."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(images)
        if "stem" in self.names:
            maps[self.names["stem"]] = x
        if self.pool is not None:
            x = self.pool(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in self.names:
                maps[self.names[f"stages.{index}"]] = x
        return maps


class Residual(nn.Module):
    """A main branch, a shortcut around it (or none), and an activation after their sum (or none)."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Module | None, activation: nn.Module | None) -> None:
        super().__init__()
        self.main, self.shortcut, self.activation = main, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        out: Tensor = self.main(x)
        if self.shortcut is not None:
            out += self.shortcut(x)
        if self.activation is not None:
            out = self.activation(out)
        return out


class Gate(nn.Module):
    """Squeeze and excitation: scale every channel by a number in (0, 1) that depends on the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = gate_width(width)
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.activation = nn.ReLU(inplace=True)
        self.excite = nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        means = x.mean(dim=(2, 3), keepdim=True)
        gates: Tensor = self.excite(self.activation(self.squeeze(means))).sigmoid()
        return x * gates


def gate_width(hidden: int) -> int:
    """Return the squeezed channels: a quarter of the hidden width, a multiple of 8, at least 8 (MobileNetV3)."""
    return max(8, math.floor(hidden / 32 + 0.5) * 8)


def _stage(block: str, width: int, stage: Mapping[str, int], shortcut: str) -> nn.Sequential:
    """Return `depth` blocks, of which the first has the stage's stride and takes `width` channels."""
    blocks = [_block(block, width, stage, stage["stride"], shortcut, is_first=True)]
    blocks += [_block(block, stage["width"], stage, 1, shortcut, is_first=False) for _ in range(stage["depth"] - 1)]
    return nn.Sequential(*blocks)


def _block(block: str, width: int, stage: Mapping[str, int], stride: int, shortcut: str, *, is_first: bool) -> Residual:
    out, kernel = stage["width"], stage["kernel"]
    if block in ("inverted", "inverted-se"):
        main = _inverted(width, out, kernel, stride, stage["expansion"], gated=block == "inverted-se")
        return Residual(main, nn.Identity() if stride == 1 and width == out else None, None)
    if block == "bottleneck":
        main = _bottleneck(width, out, kernel, stride, stage["bottleneck"])
    else:
        main = _basic(width, out, kernel, stride)
    changes = stride == 2 or width != out
    projects = is_first and (changes or shortcut == "pool")
    side = _projection(width, out, stride, shortcut) if projects else nn.Identity()
    return Residual(main, side, nn.ReLU(inplace=True))


def _bottleneck(width: int, out: int, kernel: int, stride: int, mid: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm(width, mid, 1),
        nn.ReLU(inplace=True),
        *_conv_norm(mid, mid, kernel, stride=stride),
        nn.ReLU(inplace=True),
        *_conv_norm(mid, out, 1),
    )


def _basic(width: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv_norm(width, out, kernel, stride=stride), nn.ReLU(inplace=True), *_conv_norm(out, out, kernel)
    )


def _inverted(width: int, out: int, kernel: int, stride: int, expansion: int, *, gated: bool) -> nn.Sequential:
    """Return the expansion (none at ratio 1), depthwise convolution, gate where asked for, linear projection."""
    hidden = width * expansion
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*_conv_norm(width, hidden, 1), nn.ReLU6(inplace=True)]
    layers += [*_conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden), nn.ReLU6(inplace=True)]
    if gated:
        layers.append(Gate(hidden))
    return nn.Sequential(*layers, *_conv_norm(hidden, out, 1))


def _projection(width: int, out: int, stride: int, shortcut: str) -> nn.Sequential:
    """Return a 1x1 convolution, strided, or behind an average pool whose last window may be cut by the border."""
    if shortcut == "stride" or stride == 1:
        return nn.Sequential(*_conv_norm(width, out, 1, stride=stride))
    pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(pool, *_conv_norm(width, out, 1))


def _conv_norm(width: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps height and width but for the stride (rounded up), and its norm."""
    conv = nn.Conv2d(width, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out)]
