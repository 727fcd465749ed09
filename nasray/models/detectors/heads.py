"""Parts of heads that are shared by all levels of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from nasray.models.detectors.necks import norm_layer

PRIOR = 0.01
"""What a fresh classifier says of every class: Lin et al., "Focal loss for dense object detection", section 4.1."""


class Tower(nn.Module):
    """3x3 convolutions with norm and ReLU, the same for all levels.

    Batch norms alone are each level's own, since the levels' statistics differ (Ghiasi et al., "NAS-FPN", CVPR 2019).

    Args:
        in_channels: Channels of the levels.
        channels: Channels of every convolution.
        num_convs: 0 or more.
        norm: "batch", "group" or "none".
        num_levels: Number of different levels that `forward` is called with.

    Attributes:
        out_channels: Channels of what `forward` returns.

    Raises:
        ValueError: for an unknown norm.
    """

    def __init__(self, in_channels: int, channels: int, num_convs: int, norm: str, num_levels: int) -> None:
        super().__init__()
        make_norm = norm_layer(norm)
        num_norms = num_levels if norm == "batch" else 1
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.activation = nn.ReLU(inplace=True)
        self.out_channels = channels if num_convs else in_channels
        for index in range(num_convs):
            # A batch norm takes away what a bias adds.
            conv = nn.Conv2d(channels if index else in_channels, channels, 3, padding=1, bias=norm != "batch")
            self.convs.append(reset(conv))
            if make_norm is not None:
                self.norms.append(nn.ModuleList(make_norm(channels) for _ in range(num_norms)))

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Map one level, (B, C, H, W), to (B, out_channels, H, W).

        Args:
            x: The level.
            level: Which of `num_levels` it is.
        """
        for number, conv in enumerate(self.convs):
            x = conv(x)
            if len(self.norms):
                norms = self.norms[number]
                assert isinstance(norms, nn.ModuleList)
                x = norms[level % len(norms)](x)
            x = self.activation(x)
        return x


class DenseHead(Protocol):
    """What a dense detector needs of the network in its slot `head`, which is built with `in_channels`, `num_levels`.

    Attributes:
        out_channels: Channels of both maps.
    """

    out_channels: int

    def towers(self, level: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Map a level (B, in_channels, H, W) to features of classes and of boxes, both (B, out_channels, H, W).

        Args:
            level: Level of the pyramid.
            index: Index of the level, finest first.
        """
        ...


class TwinTowers(nn.Module):
    """The usual head: a tower of convolutions for classes and one like it for boxes, the same for all levels.

    Args:
        channels: Channels of the levels and of every convolution.
        num_convs: Convolutions of each tower, 0 or more.
        norm: "batch", "group" or "none".
        num_levels: Number of levels.

    Attributes:
        out_channels: Channels of both maps.

    Raises:
        ValueError: for an unknown norm.
    """

    def __init__(self, channels: int, num_convs: int, norm: str, num_levels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.class_tower = Tower(channels, channels, num_convs, norm, num_levels)
        self.box_tower = Tower(channels, channels, num_convs, norm, num_levels)

    def towers(self, level: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Map a level (B, C, H, W) to features of classes and of boxes, both of the same shape."""
        return self.class_tower(level, index), self.box_tower(level, index)


Purpose = Literal["boxes", "masks"]
"""What a detector makes of a head's features. A head for one of them alone says so by an attribute `purpose`."""
MakeHead = Callable[..., nn.Module]
"""What builds the network of a detector's slot `head`, called with `in_channels` and `num_levels`."""


def dense_head(make: MakeHead | None, channels: int, num_convs: int, norm: str, num_levels: int) -> nn.Module:
    """Build the head of a dense detector: the one that fills its slot, or by default `TwinTowers`.

    Args:
        make: What builds the head of the slot; None for the default.
        channels: Channels of the levels.
        num_convs: Convolutions of each tower of the default head.
        norm: Norm of the default head.
        num_levels: Number of levels.

    Raises:
        ValueError: if the head is not one for dense detectors.
    """
    if make is None:
        return TwinTowers(channels, num_convs, norm, num_levels)
    head = make(in_channels=channels, num_levels=num_levels)
    check_purpose(head, "boxes")
    if not callable(getattr(head, "towers", None)):
        raise ValueError(
            f"its head makes features of classes and boxes of every level; {type(head).__name__} has no `towers`. "
            "Choose another head, or a detector that this one is for"
        )
    return head


def check_purpose(head: nn.Module, wanted: Purpose) -> None:
    """Refuse a head whose features are for something else.

    Raises:
        ValueError: saying what it is for.
    """
    own = getattr(head, "purpose", wanted)
    if own != wanted:
        raise ValueError(
            f"its head makes features of {wanted}, and this one, {type(head).__name__}, those of {own}. Choose another "
            "head, or a detector that this one is for"
        )


Output = TypeVar("Output")


def each_level(function: Callable[[Tensor, int], Output], levels: Sequence[Tensor]) -> list[Output]:
    """Return what a function makes of each level and its index, in the order of the levels.

    The last, coarsest level is computed first: a backward pass goes the other way and so frees the largest maps first.
    """
    return [function(levels[index], index) for index in reversed(range(len(levels)))][::-1]


class Scale(nn.Module):
    """A factor that is learned, 1 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the tensor times the factor."""
        return x * self.factor


def predictor(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
    """Return the 3x3 convolution at the end of a head, whose biases all start at `bias`."""
    return reset(nn.Conv2d(in_channels, out_channels, 3, padding=1), bias)


def reset(conv: nn.Conv2d, bias: float = 0.0) -> nn.Conv2d:
    """Return the convolution, with weights as the heads of dense detectors have at first, and all biases at `bias`.

    That is a deviation of 0.01 at 256 input channels; of more where there are fewer, so that signals are as strong.
    """
    nn.init.normal_(conv.weight, std=0.01 * math.sqrt(256 / min(conv.in_channels, 256)))
    if conv.bias is not None:
        nn.init.constant_(conv.bias, bias)
    return conv


def prior_bias(probability: float = PRIOR) -> float:
    """Return the logit of a probability."""
    return -math.log((1 - probability) / probability)


def flatten_level(level: Tensor, width: int) -> Tensor:
    """Map (B, A * width, H, W) to (B, H * W * A, width): the A anchors of a location follow each other."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, width)


def take(levels: Iterable[Tensor], where: Sequence[tuple[Tensor, Tensor]], width: int) -> Tensor:
    """Return what (B, A * width, H, W) levels say of some anchors: (P, width) in float32, level by level.

    Picks from the maps as they lie, since to flatten all of them copies far more.

    Args:
        levels: Levels of the head's output.
        where: Per level, indices (P,) of image and anchor, as in `anchors.Positives`.
        width: Number of values of one anchor.
    """
    rows = []
    for level, (image, anchor) in zip(levels, where, strict=True):
        anchors = level.unflatten(1, (-1, width))
        location, number = anchor // anchors.shape[1], anchor % anchors.shape[1]
        y, x = location // level.shape[-1], location % level.shape[-1]
        rows.append(anchors[image, number, :, y, x])
    return torch.cat(rows).float()
