"""Heads of two cells of transformations, as FAD derives them.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, section 3
and Figure 3; its released code where the paper is silent.

Reads it as: a cell's second input is what the cell before it returns, brought back to the levels' channels by a 1x1
convolution with norm and ReLU; its first input is the second one of the cell before it. The cells for classes begin
with the features of boxes and the level itself. Convolutions at the ends of edges have no norm and no activation.

Shapes: B images, C channels of a level, E channels within an edge, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasray.models.detectors.heads import Purpose, reset
from nasray.models.detectors.necks import group_norm
from nasray.spaces.fad import NUM_NODES
from nasray.spaces.transformations import BY_NAME, Transformation, Unit

PLACES = {"box": "boxes", "class": "classes", "mask": "masks"}
"""Where the cells of each group are in a head. torch.export writes these names into Python: `class` would be none."""


def unit(channels: int, what: Unit) -> nn.Sequential:
    """Return a convolution with group norm and ReLU, (B, E, H, W) to the same.

    Args:
        channels: E.
        what: Kind of the convolution.
    """
    padding = what.dilation * (what.kernel - 1) // 2
    if not what.is_separable:
        layers: list[nn.Module] = [nn.Conv2d(channels, channels, what.kernel, padding=padding)]
    else:
        is_dilated = what.dilation > 1
        depthwise = nn.Conv2d(
            channels, channels, what.kernel, 1, padding, what.dilation, groups=channels, bias=is_dilated
        )
        layers = [depthwise, nn.Conv2d(channels, channels, 1)]
    return nn.Sequential(*layers, group_norm(channels), nn.ReLU(inplace=True))


def units_of(channels: int, transformation: Transformation) -> list[nn.Module]:
    """Return the parts of a transformation, in their order, with fresh weights; none of one that changes nothing.

    Args:
        channels: E.
        transformation: Transformation.
    """
    if transformation.pool == "max":
        return [nn.MaxPool2d(3, stride=1, padding=1)]
    if transformation.pool == "average":
        return [nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)]
    return [unit(channels, what) for what in transformation.units]


class Edge(nn.Sequential):
    """A 1x1 convolution to fewer channels, a transformation, and a 1x1 convolution back: (B, C, H, W) to the same.

    Args:
        in_channels: C.
        channels: E.
        transformation: What is between the two.
    """

    def __init__(self, in_channels: int, channels: int, transformation: Transformation) -> None:
        units = units_of(channels, transformation)
        super().__init__(nn.Conv2d(in_channels, channels, 1), *units, nn.Conv2d(channels, in_channels, 1))


class Cell(nn.Module):
    """Three nodes, each the sum of two edges from earlier states.

    Args:
        in_channels: C.
        channels: E.
        nodes: For each node two pairs of a state, 0 and 1 the inputs, and the name of a transformation.
    """

    def __init__(self, in_channels: int, channels: int, nodes: Sequence[Sequence[tuple[int, str]]]) -> None:
        super().__init__()
        self.states = [[state for state, _ in node] for node in nodes]
        self.edges = nn.ModuleList(
            nn.ModuleList(Edge(in_channels, channels, BY_NAME[name]) for _, name in node) for node in nodes
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two (B, C, H, W) inputs to the (B, 3C, H, W) nodes, one behind the other."""
        states = [first, second]
        for sources, edges in zip(self.states, self.edges, strict=True):
            assert isinstance(edges, nn.ModuleList)
            one, other = (edge(states[source]) for source, edge in zip(sources, edges, strict=True))
            states.append(one + other)
        return torch.cat(states[2:], dim=1)


class Cells(nn.Module):
    """The cells of a group, one behind the other, and a 1x1 convolution at the end.

    Args:
        in_channels: C.
        num_cells: Number of cells, all alike.
        channels: E.
        nodes: As of `Cell`.
    """

    def __init__(
        self, in_channels: int, num_cells: int, channels: int, nodes: Sequence[Sequence[tuple[int, str]]]
    ) -> None:
        super().__init__()
        self.cells = nn.ModuleList(Cell(in_channels, channels, nodes) for _ in range(num_cells))
        self.joints = nn.ModuleList(self._joint(in_channels) for _ in range(num_cells - 1))
        self.end = nn.Conv2d(NUM_NODES * in_channels, in_channels, 1)

    @staticmethod
    def _joint(in_channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(NUM_NODES * in_channels, in_channels, 1), group_norm(in_channels), nn.ReLU(inplace=True)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two (B, C, H, W) inputs to (B, C, H, W) features."""
        nodes = self.cells[0](first, second)
        for joint, cell in zip(self.joints, list(self.cells)[1:], strict=True):
            first, second = second, joint(nodes)
            nodes = cell(first, second)
        features: Tensor = self.end(nodes)
        return features


class FADHead(nn.Module):
    """Head of a dense detector, of two groups of cells shared by all levels; or of one group, for masks.

    Args:
        cells: Cells of each group.
        groups: For each group, `box` and `class` or `mask`, its `channels` and `nodes`.
        in_channels: C.
        num_levels: Number of levels that share it; not used.

    Attributes:
        purpose: "boxes" or "masks".
        out_channels: Channels of all features, C.
    """

    def __init__(self, cells: int, groups: Mapping[str, Any], in_channels: int, num_levels: int) -> None:
        super().__init__()
        del num_levels  # group norms need none of their own
        self.out_channels = in_channels
        self.purpose = purpose_of(groups)
        self.groups = nn.ModuleDict({PLACES[name]: Cells(in_channels, cells, **each) for name, each in groups.items()})
        if "class" in groups:
            end = self.groups["classes"].end
            assert isinstance(end, nn.Conv2d)
            reset(end)  # as the released code does, of this one alone

    def towers(self, level: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Map a (B, C, H, W) level to features of classes and of boxes, both of the same shape; see `DenseHead`."""
        del index
        boxes = self.groups["boxes"](level, level)
        return self.groups["classes"](boxes, level), boxes

    def forward(self, regions: Tensor) -> Tensor:
        """Map (R, C, 14, 14) regions to features of masks of the same shape."""
        features: Tensor = self.groups["masks"](regions, regions)
        return features


def purpose_of(groups: Iterable[str]) -> Purpose:
    """Return what the features of a head are for, by the names of its groups of cells."""
    return "masks" if "mask" in groups else "boxes"
