"""The networks of `pair_space`: an architecture's genes are the keywords of `PairNet`."""

from collections import OrderedDict

from pair_space import DENSE, LEVELS, STEM
from torch import nn


class PairNet(nn.Module):
    """A stem of stride 2 and four stages, each with a first block of stride 2.

    Attributes:
        feature_info: Channels, reduction and module of each map that `forward` returns.
    """

    def __init__(self, out_levels=LEVELS, **genes):
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, STEM, kernel=3, stride=2))
        self.stages, self.feature_info = nn.ModuleList(), []
        channels = STEM
        for index, level in enumerate(LEVELS):
            kind, width, depth = (genes[f"{name}{level}"] for name in ("kind", "width", "depth"))
            first, *others = [channels] + [width] * (depth - 1)
            self.stages.append(
                nn.Sequential(Block(kind, first, width, stride=2), *(Block(kind, width, width) for _ in others))
            )
            if level in out_levels:
                info = {"num_chs": width, "reduction": 2**level, "module": f"stages.{index}"}
                self.feature_info.append(info)
            channels = width
        self.out_channels = [info["num_chs"] for info in self.feature_info]

    def forward(self, images):
        """Return an ordered dictionary of maps, finest first."""
        x, maps = self.stem(images), OrderedDict()
        modules = {info["module"] for info in self.feature_info}
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if f"stages.{index}" in modules:
                maps[f"c{LEVELS[index]}"] = x
        return maps


class Block(nn.Module):
    """A dense block, or a split one; with a shortcut where the shape stays."""

    def __init__(self, kind, inputs, outputs, stride=1):
        super().__init__()
        self.has_shortcut = stride == 1
        if kind == DENSE:
            layers = convolution(inputs, outputs, kernel=3, stride=stride)
        else:
            layers = convolution(inputs, inputs, kernel=5, stride=stride, groups=inputs)
            layers += convolution(inputs, outputs, kernel=1)
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        """Return the block's map."""
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


def convolution(inputs, outputs, kernel, stride=1, groups=1):
    """Return a convolution, its norm and a ReLU."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]
