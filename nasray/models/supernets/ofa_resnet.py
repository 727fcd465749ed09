"""The supernet of once-for-all ResNets: the largest network, of whose channels and blocks the leading ones run.

Reference: Cai et al., "Once-for-All", ICLR 2020; its released ResNet-50.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nasray.models.ofa_resnet import Bottleneck, OFAResNet
from nasray.models.supernets.elastic import (
    ElasticConv2d,
    ElasticSequential,
    ElasticSupernet,
    Skippable,
    elastic,
    sort_between,
)
from nasray.spaces import OFAResNetSpace, Space
from nasray.spaces.ofa_layers import EXPANSIONS, WIDTHS, channels_of


class OFAResNetSupernet(ElasticSupernet):
    """The largest `OFAResNet` of a space, with elastic channels and depths.

    Args:
        space: Space whose architectures are the paths.
        out_levels: Which of C2 to C5 `forward` returns.
        momentum: Momentum of the batch norms.
    """

    space: OFAResNetSpace

    def __init__(
        self, space: OFAResNetSpace, out_levels: Sequence[int] = (2, 3, 4, 5), *, momentum: float = 0.1
    ) -> None:
        super().__init__(space)
        self.out_levels, self.momentum = tuple(out_levels), momentum
        network = self.standalone(self.largest)
        network.stem[1] = Skippable(network.stem[1])
        for index, stage in enumerate(network.stages):
            assert isinstance(stage, nn.Sequential)
            network.stages[index] = ElasticSequential(*stage)
        self.network = elastic(network)
        self.feature_info = [info | {"module": f"network.{info['module']}"} for info in network.feature_info]
        self.out_channels = network.out_channels

    def select(self, row: NDArray[np.int64]) -> None:
        """Let as many channels and blocks run as the path has."""
        network, channels = self.network, channels_of(self.space.size)
        assert isinstance(network, OFAResNet)
        first, middle, last, _ = network.stem
        assert isinstance(middle, Skippable)
        middle.runs = bool(row[0])
        mid = channels.stem_mid[WIDTHS.index(row[1])]
        for part, num in ((first, mid), (middle.main, mid), (last, channels.stem[WIDTHS.index(row[2])])):
            _set_channels(part, num)
        for blocks, columns, outs, mids in zip(
            network.stages, self.space.stages, channels.stages, channels.mids, strict=True
        ):
            assert isinstance(blocks, ElasticSequential)
            width, expand = WIDTHS.index(row[columns.start + 1]), row[columns.start + 2 : columns.stop]
            blocks.depth = int(np.count_nonzero(expand))
            for block, percent in zip(blocks, expand[: blocks.depth].tolist(), strict=False):
                assert isinstance(block, Bottleneck)
                inner = mids[width][EXPANSIONS.index(percent)]
                for part, num in zip(block.main, (inner, inner, outs[width]), strict=True):
                    _set_channels(part, num)
                _set_channels(block.shortcut, outs[width])

    def sort_channels(self, kept: Space | None = None) -> None:
        """See `ElasticSupernet.sort_channels`; what is sorted are the channels inside of every bottleneck.

        As in once-for-all's released code, but that what is kept are the paths of a space, of any width.
        """
        network = self.network
        assert isinstance(network, OFAResNet)
        mids = channels_of(self.space.size).mids
        for blocks, columns, inner in zip(network.stages, self.space.stages, mids, strict=True):
            assert isinstance(blocks, ElasticSequential)
            for block, column in zip(blocks, range(columns.start + 2, columns.stop), strict=True):
                assert isinstance(block, Bottleneck)
                ends: set[int] = set()
                if kept is not None:
                    widths, expands = (kept.genes[place].values for place in (columns.start + 1, column))
                    ends = {
                        inner[WIDTHS.index(width)][EXPANSIONS.index(expand)]
                        for width in widths
                        for expand in expands
                        if expand
                    }
                first, second, third = (part for part in block.main)
                for part, following in ((second, third), (first, second)):
                    conv, norm = part[0], part[1]  # type: ignore[index]
                    sort_between(conv, norm, following[0], ends)  # type: ignore[index]

    def standalone(self, row: NDArray[np.int64]) -> OFAResNet:
        """Return the `OFAResNet` of a path, with any weights."""
        spec = self.space.to_architecture(row).spec
        return OFAResNet(**spec, out_levels=self.out_levels, momentum=self.momentum)


def _set_channels(module: nn.Module, num: int) -> None:
    for part in module.modules():
        if isinstance(part, ElasticConv2d):
            part.num_out = num
