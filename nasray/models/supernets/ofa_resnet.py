"""The supernet of once-for-all ResNets: the largest network, of whose channels and blocks the leading ones run.

Reference: Cai et al., "Once-for-All", ICLR 2020; its released ResNet-50.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nasray.models.ofa_resnet import Bottleneck, ConvNorm, OFAResNet
from nasray.models.supernets.base import Genes
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
        network = self.network
        assert isinstance(network, OFAResNet)
        middle = network.stem[1]
        assert isinstance(middle, Skippable)
        middle.runs = bool(row[0])
        for blocks, columns in zip(network.stages, self.space.stages, strict=True):
            assert isinstance(blocks, ElasticSequential)
            blocks.depth = int(np.count_nonzero(row[columns.start + 2 : columns.stop]))
        for conv, _, _, num_out in self._layers(row):
            conv.num_out = num_out

    def path_parameters(self, genes: Genes) -> Iterator[tuple[nn.Parameter, tuple[slice, ...]]]:
        """See `Supernet.path_parameters`; no network of the path is built for it, since workers ask in every step."""
        for conv, norm, num_in, num_out in self._layers(self._checked(genes)):
            assert isinstance(conv.weight, nn.Parameter)
            yield conv.weight, (slice(0, num_out), slice(0, num_in), *(slice(0, size) for size in conv.kernel_size))
            for parameter in norm.parameters(recurse=False):
                yield parameter, (slice(0, num_out),)

    def _layers(self, row: NDArray[np.int64]) -> Iterator[tuple[ElasticConv2d, nn.Module, int, int]]:
        """Yield each convolution of a path, its norm, and the channels in and out."""
        for part, num_in, num_out in self._parts(row):
            assert isinstance(part, ConvNorm)
            conv, norm, *_ = part
            assert isinstance(conv, ElasticConv2d)
            yield conv, norm, num_in, num_out

    def _parts(self, row: NDArray[np.int64]) -> Iterator[tuple[nn.Module, int, int]]:
        """Yield each convolution of a path together with its norm, and the channels in and out."""
        network, channels = self.network, channels_of(self.space.size)
        assert isinstance(network, OFAResNet)
        first, middle, last, _ = network.stem
        mid, width = channels.stem_mid[WIDTHS.index(row[1])], channels.stem[WIDTHS.index(row[2])]
        yield first, 3, mid
        assert isinstance(middle, Skippable)
        if row[0]:
            yield middle.main, mid, mid
        yield last, mid, width
        for blocks, columns, outs, mids in zip(
            network.stages, self.space.stages, channels.stages, channels.mids, strict=True
        ):
            assert isinstance(blocks, ElasticSequential)
            stage, expand = WIDTHS.index(row[columns.start + 1]), row[columns.start + 2 : columns.stop]
            for block, percent in zip(blocks, expand[expand > 0].tolist(), strict=False):
                assert isinstance(block, Bottleneck)
                assert isinstance(block.main, nn.Sequential)
                inner, out = mids[stage][EXPANSIONS.index(percent)], outs[stage]
                yield from zip(block.main, (width, inner, inner), (inner, inner, out), strict=True)
                yield from ((part, width, out) for part in block.shortcut.children() if isinstance(part, ConvNorm))
                width = out

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
