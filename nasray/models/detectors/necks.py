"""Feature pyramids.

Reference: Lin et al., "Feature pyramid networks for object detection", CVPR 2017; the levels P6 and P7 on top of P5 are
those of Tian et al., "FCOS", ICCV 2019, section 3.2.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

REDUCTIONS = (8, 16, 32)
"""Of the backbone's maps that dense detectors take: C3 to C5."""

STRIDES = (8, 16, 32, 64, 128)
"""Of the levels that they predict on: P3 to P7."""

NORMS = ("batch", "group", "none")


class FPN(nn.Module):
    """A feature pyramid: every level has `channels` channels. Weights are drawn as in torchvision.

    Args:
        in_channels: Channels of the backbone's maps, finest first.
        channels: Channels of every level.
        extra: Levels on top of the coarsest: "convs" (P6 and P7, each by a 3x3 convolution of stride 2), "pool" (P6,
            every second pixel) or "none".
        norm: Norm behind each convolution, one of `NORMS`.

    Raises:
        ValueError: for an unknown norm.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        extra: Literal["convs", "pool", "none"] = "convs",
        norm: str = "none",
    ) -> None:
        super().__init__()
        top = {"convs": lambda: LastLevelP6P7(channels, channels), "pool": LastLevelMaxPool, "none": lambda: None}
        self.pyramid = FeaturePyramidNetwork(list(in_channels), channels, top[extra](), norm_layer(norm))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map (B, C, H, W) maps, finest first, to the pyramid's levels, finest first."""
        levels = self.pyramid(OrderedDict((str(index), level) for index, level in enumerate(maps)))
        return list(levels.values())


def norm_layer(name: str) -> Callable[[int], nn.Module] | None:
    """Return what makes a norm of a number of channels; None for "none".

    Raises:
        ValueError: for an unknown name.
    """
    if name not in NORMS:
        raise ValueError(f"norm is one of {', '.join(NORMS)}; got {name!r}")
    layers: dict[str, Callable[[int], nn.Module] | None] = {"batch": nn.BatchNorm2d, "group": group_norm, "none": None}
    return layers[name]


def group_norm(channels: int) -> nn.GroupNorm:
    """Return 32 groups as in the papers, but fewer where a group would have less than three channels.

    A group of one channel and one pixel, as on the coarsest level of a small image, is always zero.
    """
    groups = max(count for count in range(1, 33) if channels % count == 0 and (count == 1 or count * 3 <= channels))
    return nn.GroupNorm(groups, channels)
