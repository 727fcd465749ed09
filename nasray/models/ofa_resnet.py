"""Once-for-all residual networks: backbones in one of their elastic depths, widths and expansions. Needs only PyTorch.

`nasray export` writes this file verbatim beside an architecture, so it imports nothing but torch.

References: Cai et al., "Once-for-All", ICLR 2020, and its released ResNet-50; He et al., "Bag of tricks for image
classification with convolutional neural networks", CVPR 2019 (ResNet-D: a stem of small convolutions, and an average
pool before a strided projection).

Shapes: B images, C channels, H x W pixels. Every level halves height and width, rounding up.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


def divisible(value: float, divisor: int) -> int:
    """Return the multiple of a divisor that is nearest to a number of channels, and not below 90 % of it."""
    channels = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return channels + divisor if channels < 0.9 * value else channels


class OFAResNet(nn.Module):
    """A stem of stride 4 and four stages (C2 to C5) of bottlenecks.

    Args:
        stem_width: Channels of the widest network's stem.
        widths: Channels of its C2 to C5.
        depths: Least blocks of C2 to C5.
        divisor: What all channels are multiples of.
        stem: `depth`, 2 with the residual convolution and 0 without; `mid` and `width` in percent of the widest.
        stages: `depth`, blocks beyond the least; `width` in percent; `expand`, for every block the channels in its
            middle in percent of those behind it.
        out_levels: Which of C2 to C5 `forward` returns.
        momentum: Momentum of the batch norms.

    Attributes:
        feature_info: For every returned level, `num_chs`, `reduction` and `module` (the module whose output it is).
        out_channels: Number of channels of every returned level.

    Raises:
        ValueError: If a level is asked for that there is not, or the blocks of a stage are not as many as its depth.
    """

    def __init__(
        self,
        stem_width: int,
        widths: Sequence[int],
        depths: Sequence[int],
        divisor: int,
        stem: Mapping[str, int],
        stages: Sequence[Mapping[str, Any]],
        out_levels: Sequence[int] = (2, 3, 4, 5),
        *,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        width = divisible(stem_width * stem["width"] / 100, divisor)
        mid = divisible(stem_width // 2 * stem["mid"] / 100, divisor)
        self.stem = nn.Sequential(
            ConvNorm(3, mid, 3, stride=2, momentum=momentum),
            Residual(ConvNorm(mid, mid, 3, momentum=momentum)) if stem["depth"] else nn.Identity(),
            ConvNorm(mid, width, 3, momentum=momentum),
            nn.MaxPool2d(3, 2, padding=1),
        )
        self.stages = nn.ModuleList()
        level_info: dict[int, dict[str, Any]] = {}
        for index, (stage, widest, least) in enumerate(zip(stages, widths, depths, strict=True)):
            if len(stage["expand"]) != least + stage["depth"]:
                raise ValueError(f"C{index + 2} has {least + stage['depth']} blocks, got {len(stage['expand'])}")
            out = divisible(widest * stage["width"] / 100, divisor)
            blocks = []
            for place, percent in enumerate(stage["expand"]):
                inner = divisible(round(out * percent / 100), divisor)
                stride = 2 if place == 0 and index > 0 else 1
                blocks.append(Bottleneck(width, inner, out, stride, projects=place == 0, momentum=momentum))
                width = out
            self.stages.append(nn.Sequential(*blocks))
            level = index + 2
            level_info[level] = {"num_chs": width, "reduction": 2**level, "module": f"stages.{index}"}
        if missing := [level for level in out_levels if level not in level_info]:
            raise ValueError(f"out_levels are among {sorted(level_info)} in this network, got {missing}")
        self.feature_info = [level_info[level] for level in sorted(out_levels)]
        self.out_channels = [info["num_chs"] for info in self.feature_info]
        self.names = {index: f"c{index + 2}" for index in range(len(self.stages)) if index + 2 in out_levels}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew: He et al.'s normal distribution over the fan-out; norms at 1, biases at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary from "c2" (or the level asked for) to (B, C, H', W')."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        x = self.stem(images)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.names:
                maps[self.names[index]] = x
        return maps


class ConvNorm(nn.Sequential):
    """A convolution that keeps height and width but for the stride (rounded up), its norm, and a ReLU unless left out.

    Args:
        width: Channels of the input.
        out: Channels of the output.
        kernel: Height and width of the kernel.
        stride: 1 or 2.
        relu: Whether a ReLU follows.
        momentum: Momentum of the batch norm.
    """

    def __init__(
        self, width: int, out: int, kernel: int, *, stride: int = 1, relu: bool = True, momentum: float = 0.1
    ) -> None:
        conv = nn.Conv2d(width, out, kernel, stride=stride, padding=kernel // 2, bias=False)
        norm = nn.BatchNorm2d(out, momentum=momentum)
        super().__init__(conv, norm, *([nn.ReLU(inplace=True)] if relu else []))


class Residual(nn.Module):
    """The sum of a branch and its input.

    Args:
        main: The branch.
    """

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.main(x) + x
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1, a shortcut around them, and a ReLU.

    Args:
        width: Channels of the input.
        mid: Channels in the middle.
        out: Channels of the output.
        stride: 1 or 2.
        projects: Whether the shortcut is a projection, behind an average pool where the stride is 2.
        momentum: Momentum of the batch norms.
    """

    def __init__(self, width: int, mid: int, out: int, stride: int, *, projects: bool, momentum: float = 0.1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            ConvNorm(width, mid, 1, momentum=momentum),
            ConvNorm(mid, mid, 3, stride=stride, momentum=momentum),
            ConvNorm(mid, out, 1, relu=False, momentum=momentum),
        )
        side: list[nn.Module] = []
        if projects:
            side = [ConvNorm(width, out, 1, relu=False, momentum=momentum)]
            if stride == 2:
                side.insert(0, nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False))
        self.shortcut = nn.Sequential(*side)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        out: Tensor = self.activation(self.main(x) + self.shortcut(x))
        return out
