"""MSNAS's encoders: residual blocks that halve, keep or double the resolution, and the maps that heads read.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021, sections
3.2 and 3.3; which lateral goes where is in `nasray.spaces.msnas_paths`.

The paper leaves open what a block is made of; what is built here meets its multiply-adds (Table 1) to 2 %:
- Blocks are those of ResNets of constant width: basic ones, or bottlenecks. Shortcuts have a 1x1 convolution where the
  stride is not 1 or the channels change.
- A block of stride 0.5 doubles height and width of its input (nearest neighbor), and goes on as one of stride 1.
- Lateral convolutions (1x1), and the one behind each map that heads read (3x3), have biases and no norms.
- Blocks that no head needs run all the same: the published figures count them.

Differs from the paper in: images whose sides are no multiples of 64 are padded at the bottom and on the right.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.backbone import Residual
from nasray.spaces import msnas_paths

STRIDE = max(msnas_paths.SCALES)
"""What height and width of images are padded to multiples of."""


class Route(NamedTuple):
    """How maps pass through L blocks to G heads.

    Attributes:
        laterals: For each block the one whose map is added to its own, through a 1x1 convolution; -1 for none.
        outputs: Block of each absolute stride that heads read, finest first.
        heads: Absolute stride that each head reads.
        last: Last block that a head reads; those behind it are dead.
    """

    laterals: tuple[int, ...]
    outputs: Mapping[int, int]
    heads: tuple[int, ...]
    last: int

    @classmethod
    def of(cls, strides: Sequence[float], heads: Sequence[int]) -> Route:
        """Return the route of a path.

        Args:
            strides: Stride of each block: 0.5, 1 or 2.
            heads: Absolute stride that each head reads.

        Raises:
            ValueError: If a map would be finer than 4 or coarser than 64, or a head reads a stride that there is not.
        """
        if not msnas_paths.are_valid([strides])[0]:
            raise ValueError(f"maps have strides from 4 to 64 to the image; these blocks leave it: {list(strides)}")
        sources = msnas_paths.sources([strides], [heads])[0].tolist()
        if missing := [stride for stride, source in zip(heads, sources, strict=True) if source == msnas_paths.NONE]:
            raise ValueError(f"heads read strides {list(heads)}; no block of this path has stride {missing[0]}")
        outputs = dict(sorted(zip(heads, sources, strict=True)))
        laterals = msnas_paths.laterals([strides])[0].tolist()
        return cls(tuple(laterals), outputs, tuple(heads), max(sources))


class StridePyramid(nn.Module):
    """A stem of stride 4, blocks of any strides with laterals, and a map for every group of objects.

    It fills the slot `pyramid` of a detector, see `nasray.models.detectors.base.Pyramid`.

    Args:
        block: "basic" (3x3, 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        stem_width: Channels of the stem.
        width: Channels of every block.
        strides: Stride of each block: 0.5, 1 or 2.
        heads: Absolute stride (4 to 64) of the map that each group's head reads, smallest objects first.
        mid: Channels within bottlenecks.
        momentum: Momentum of the batch norms.

    Attributes:
        out_channels: Channels of the maps: `width` of basic blocks, `mid` of bottlenecks.
        num_groups: Number of groups.
        stride: 64, what height and width of images are padded to multiples of.

    Raises:
        ValueError: For an unknown block, bottlenecks without `mid`, or strides that are no path.
    """

    stride = STRIDE

    def __init__(
        self,
        block: str,
        stem_width: int,
        width: int,
        strides: Sequence[float],
        heads: Sequence[int],
        mid: int | None = None,
        *,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if block not in ("basic", "bottleneck") or (block == "bottleneck") != (mid is not None):
            raise ValueError(f"block is basic, or bottleneck with its mid channels; got {block!r} with mid {mid}")
        self.route = Route.of(strides, heads)
        self.num_groups = len(heads)
        self.out_channels = width if mid is None else mid
        self.stem = nn.Sequential(
            *_conv_norm(3, stem_width, 7, 2, momentum), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)
        )
        inputs = [stem_width] + [width] * (len(strides) - 1)
        self.blocks = nn.ModuleList(
            StrideBlock(num, width, stride, mid, momentum=momentum) for num, stride in zip(inputs, strides, strict=True)
        )
        sources = sorted(source for source in self.route.laterals if source != msnas_paths.NONE)
        self.laterals = nn.ModuleDict({str(source): lateral_conv(width) for source in sources})
        self.outputs = nn.ModuleDict(
            {str(scale): output_conv(width, self.out_channels) for scale in self.route.outputs}
        )
        for module in (self.stem, self.blocks):
            module.apply(draw_weights)
        self._freeze_dead()

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two locations of each group's map."""
        return self.route.heads

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) images to the map (B, out_channels, h, w) of each group; groups may share one."""
        route, kept = self.route, dict[int, Tensor]()
        wanted = {*route.laterals, *route.outputs.values()}
        x: Tensor = self.stem(padded(images))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if (source := route.laterals[index]) != msnas_paths.NONE:
                x = x + self.laterals[str(source)](kept[source])
            if index in wanted:
                kept[index] = x
        maps = {scale: self.outputs[str(scale)](kept[source]) for scale, source in route.outputs.items()}
        return [maps[scale] for scale in route.heads]

    def _freeze_dead(self) -> None:
        """Take their gradient from the parameters that no head needs: workers would wait for it."""
        for index, (block, source) in enumerate(zip(self.blocks, self.route.laterals, strict=True)):
            if index > self.route.last:
                block.requires_grad_(False)
                if source != msnas_paths.NONE:
                    self.laterals[str(source)].requires_grad_(False)


class StrideBlock(nn.Module):
    """A residual block that halves (stride 2), keeps (1) or doubles (0.5) height and width.

    Args:
        width: Channels of the input.
        out: Channels of the output.
        stride: 0.5, 1 or 2.
        mid: Channels in the middle of a bottleneck; None for a basic block.
        momentum: Momentum of the batch norms.
    """

    def __init__(self, width: int, out: int, stride: float, mid: int | None = None, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.resize = nn.Upsample(scale_factor=2.0, mode="nearest") if stride == 0.5 else nn.Identity()
        step = 2 if stride == 2 else 1
        shapes = [(width, out, 3, step), (out, out, 3, 1)]
        if mid is not None:
            shapes = [(width, mid, 1, 1), (mid, mid, 3, step), (mid, out, 1, 1)]
        layers: list[nn.Module] = []
        for shape in shapes:
            layers += [*_conv_norm(*shape, momentum), nn.ReLU(inplace=True)]
        projects = stride != 1 or width != out
        shortcut = nn.Sequential(*_conv_norm(width, out, 1, step, momentum)) if projects else nn.Identity()
        self.residual = Residual(nn.Sequential(*layers[:-1]), shortcut, nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        out: Tensor = self.residual(self.resize(x))
        return out


def lateral_conv(width: int) -> nn.Conv2d:
    """Return the 1x1 convolution on the way from a block to a later one, drawn as those of feature pyramids."""
    return _pyramid_conv(width, width, 1)


def output_conv(width: int, out: int) -> nn.Conv2d:
    """Return the 3x3 convolution between a block and the heads that read it, drawn as those of feature pyramids."""
    return _pyramid_conv(width, out, 3)


def draw_weights(module: nn.Module) -> None:
    """Draw the weights of a convolution: He et al.'s normal distribution over the fan-out."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))


def padded(images: Tensor) -> Tensor:
    """Return images with zeros at the bottom and on the right, so that their sides are multiples of 64.

    Every map then is exactly half or twice as high and wide as another.
    """
    below, right = (-side % STRIDE for side in images.shape[-2:])
    if not torch.compiler.is_exporting() and not below and not right:
        return images
    return F.pad(images, (0, right, 0, below))


def _pyramid_conv(width: int, out: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(width, out, kernel, padding=kernel // 2)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _conv_norm(width: int, out: int, kernel: int, stride: int, momentum: float) -> list[nn.Module]:
    """Return a convolution that keeps height and width but for the stride, and its norm."""
    conv = nn.Conv2d(width, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(out, momentum=momentum)]
