"""Supernets that share leading channels and leading blocks: a path is cut out of the largest network.

Reference: Cai et al., "Once-for-All", ICLR 2020.

Differs from the released code in: maps are padded with zeros to the channels of the widest network, so that whatever
takes them needs to know nothing of paths.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from nasray.models.norms import FrozenBatchNorm, SyncedBatchNorm, norm_options, with_state_of
from nasray.models.supernets.base import Supernet
from nasray.spaces import Space


class ElasticConv2d(nn.Conv2d):
    """A convolution of which the leading channels run: as many in as the input has, as many out as are chosen.

    Attributes:
        num_out: Channels of the output.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.num_out = self.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, num_out, H', W')."""
        weight = self.weight[: self.num_out, : x.shape[1]]
        bias = None if self.bias is None else self.bias[: self.num_out]
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation)


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """A batch norm of which as many leading channels run as the input has; the others keep their statistics."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        num = x.shape[1]
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        return functional.batch_norm(
            x,
            self.running_mean[:num],
            self.running_var[:num],
            self.weight[:num],
            self.bias[:num],
            self.training,
            self.momentum if self.training else 0.0,
            self.eps,
        )

    def synchronized(self, group: Any) -> nn.Module:
        """Return the norm synchronized over the workers of a group; weights and statistics are shared."""
        other = SyncedElasticBatchNorm2d(self.num_features, group=group, **norm_options(self))
        return with_state_of(self, other).train(self.training)

    def frozen(self) -> nn.Module:
        """Return the norm without gradients and for good in inference mode; weights and statistics are shared."""
        other = FrozenElasticBatchNorm2d(self.num_features, **norm_options(self)).requires_grad_(False).eval()
        return with_state_of(self, other)


class FrozenElasticBatchNorm2d(ElasticBatchNorm2d, FrozenBatchNorm):
    """An `ElasticBatchNorm2d` whose statistics, scale and shift stay as they are."""


class SyncedElasticBatchNorm2d(SyncedBatchNorm, ElasticBatchNorm2d):
    """An `ElasticBatchNorm2d` over the images of all workers, whose paths must be the same."""


class Skippable(nn.Module):
    """A residual branch that runs or is passed over; its input has the shape of its output.

    Args:
        residual: Module with a branch `main`.

    Attributes:
        runs: Whether the branch runs.
    """

    def __init__(self, residual: nn.Module) -> None:
        super().__init__()
        main = residual.main
        assert isinstance(main, nn.Module)
        self.main, self.runs = main, True

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.main(x) + x if self.runs else x


class ElasticSequential(nn.Sequential):
    """Blocks of which the leading ones run.

    Attributes:
        depth: Number of blocks that run.
    """

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.depth = len(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        for block in list(self)[: self.depth]:
            x = block(x)
        return x


class ElasticSupernet(Supernet):
    """A supernet that is the largest network of its space, with elastic convolutions and norms.

    The network of a path has the same modules under the same names, with fewer channels, or lacks trailing blocks.
    Subclasses implement `select`, `standalone` and `sort_channels`, and set `network`, made by `elastic`.

    Attributes:
        network: Maps images to an ordered dictionary of maps.
    """

    network: nn.Module

    @property
    def largest(self) -> NDArray[np.int64]:
        """The (G,) genes of the largest path: the greatest value of every gene."""
        rows = self.space.repair(np.array([[gene.values[-1] for gene in self.space.genes]]))
        genes: NDArray[np.int64] = rows[0]
        return genes

    @abstractmethod
    def sort_channels(self, kept: Space | None = None) -> None:
        """Put channels of which paths have the leading ones in the order of their importance, the greatest first.

        Weights, norms and their statistics move together.

        Args:
            kept: Space of paths that compute the same afterwards; the largest path alone by default.
        """

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the leading entries of the largest network's tensors, by the shapes of the path's own network."""
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in self.standalone(row).state_dict().items()}
        whole = self.network.state_dict(keep_vars=True)
        return {name: whole[name][tuple(slice(size) for size in shape)] for name, shape in shapes.items()}

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary of maps, padded with zeros to the widest path's channels."""
        if self.path is None:
            raise RuntimeError("no path is set: call set_path(genes) of the supernet first")
        maps: OrderedDict[str, Tensor] = self.network(images)
        for (name, x), channels in zip(list(maps.items()), self.out_channels, strict=True):
            if x.shape[1] < channels:
                maps[name] = functional.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))
        return maps


@torch.no_grad()
def sort_between(conv: nn.Conv2d, norm: nn.BatchNorm2d, following: nn.Conv2d, ends: Iterable[int]) -> None:
    """Sort the channels between two convolutions in place, by the sums of absolute weights that take them.

    Args:
        conv: Convolution whose C outputs are sorted.
        norm: Norm behind it.
        following: Convolution that takes them.
        ends: Numbers of leading channels that stay the same channels, in whatever order.
    """
    importance = following.weight.abs().sum(dim=(0, 2, 3))
    ends = sorted({*ends, len(importance)})
    order = torch.cat(
        [
            begin + importance[begin:end].argsort(descending=True, stable=True)
            for begin, end in zip((0, *ends), ends, strict=False)
        ]
    )
    following.weight.copy_(following.weight[:, order])
    for value in (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
        if value is not None:
            value.copy_(value[order])


def elastic(network: nn.Module) -> nn.Module:
    """Return a network with its convolutions and batch norms made elastic; weights are shared.

    Raises:
        ValueError: If a convolution has groups, whose leading channels are those of no smaller convolution.
    """
    if type(network) is nn.Conv2d:
        if network.groups > 1:
            raise ValueError("convolutions with groups are not elastic: a depthwise one needs a class of its own")
        conv = ElasticConv2d(
            network.in_channels,
            network.out_channels,
            network.kernel_size,
            network.stride,
            padding=network.padding,
            dilation=network.dilation,
            bias=network.bias is not None,
            device="meta",  # its weights are replaced at once
        )
        conv.weight, conv.bias = network.weight, network.bias
        return conv
    if type(network) is nn.BatchNorm2d:
        norm = ElasticBatchNorm2d(network.num_features, **norm_options(network))
        return with_state_of(network, norm).train(network.training)
    for name, child in network.named_children():
        setattr(network, name, elastic(child))
    return network
