"""Layer blocks: which ones a population's networks consist of, and the latency of one, measured alone.

Shapes: N architectures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.latency.measuring import timed_ms
from nasray.latency.setting import Setting, convolution, random_images
from nasray.spaces import LayerTable

if TYPE_CHECKING:
    import torch

ENTRY_SECONDS = 0.03  # spent on the passes of one block, unless three take longer


class Block(NamedTuple):
    """One kind of layer block, but for its channels.

    Attributes:
        kind: "conv" (with norm), "conv-relu", "conv-relu-pool" (a ResNet's stem), "depthwise-relu", "pool-conv" (a
            projection behind an average pool), "squeeze" and "excite" (the halves of a gate), "add" (of a shortcut).
        kernel: Height = width.
        stride: 1 or 2.
        height: Height of the output map (of the map that a gate scales) in pixels.
        width: Width of the same map.
    """

    kind: str
    kernel: int
    stride: int
    height: int
    width: int

    def macs(self, in_channels: int, out_channels: int) -> int:
        """Return the multiply-adds for one image."""
        pixels = 1 if self.kind in ("squeeze", "excite") else self.height * self.width
        return pixels * self.kernel**2 * in_channels * out_channels

    def key(self, in_channels: int, out_channels: int) -> str:
        """Return the entry's name in a table's file."""
        return (
            f"{self.kind} {self.kernel}x{self.kernel} stride {self.stride} {self.height}x{self.width} "
            f"{in_channels}-{out_channels}"
        )


class Term(NamedTuple):
    """One summand of the latencies of a population; (N,) arrays."""

    kind: str
    stride: int
    out_hw: tuple[int, int]
    kernel: NDArray[np.int64]
    in_channels: NDArray[np.int64]
    out_channels: NDArray[np.int64]
    times: NDArray[np.float64]

    def blocks(self) -> Iterator[tuple[Block, NDArray[np.int64]]]:
        """Yield the kinds of block that occur, and the indices (M,) of the architectures that have them."""
        present = np.flatnonzero(self.times > 0)
        kernels = self.kernel[present]
        for kernel in np.flatnonzero(np.bincount(kernels)).tolist():
            yield Block(self.kind, kernel, self.stride, *self.out_hw), present[kernels == kernel]


def terms(layers: LayerTable) -> Iterator[Term]:
    """Yield the summands in the order in which data walks. What treats every channel alone has 1 input channel."""
    ones = np.ones(layers.kernel.shape[1], dtype=np.int64)
    map_hw, previous = (1, 1), ""
    for row, role in enumerate(layers.role.tolist()):
        kernel, in_channels, out_channels = (
            array[row].astype(np.int64) for array in (layers.kernel, layers.in_channels, layers.out_channels)
        )
        stride, pooled = int(layers.stride[row]), bool(layers.pooled_elements[row].any())
        if role != "gate":
            map_hw = (int(layers.out_hw[row, 0]), int(layers.out_hw[row, 1]))
        if role == "gate":
            kind = "excite" if previous == "squeeze" else "squeeze"
        elif layers.depthwise[row]:
            kind, in_channels = "depthwise-relu", ones
        elif role == "shortcut":
            kind = "pool-conv" if pooled else "conv"
        elif pooled:
            kind = "conv-relu-pool"
        else:
            kind = "conv-relu" if layers.relu_out[row] else "conv"
        previous = kind
        repeats = layers.repeats[row]
        yield Term(kind, stride, map_hw, kernel, in_channels, out_channels, repeats)
        # A block adds its shortcut where that is the identity, or where it has a projection.
        additions = repeats if role == "shortcut" else repeats * layers.skip[row]
        yield Term("add", 1, map_hw, ones, ones, out_channels, additions)


def block_latency(
    setting: Setting, block: Block, in_channels: int, out_channels: int, estimate_ms: float = 0.0
) -> float:
    """Return the least latency of one layer block in ms over about `ENTRY_SECONDS` of passes, at least two.

    The least, since a table is measured once: what other processes did at that moment must not stay in it.

    Args:
        setting: Where and how to measure.
        block: Which kind.
        in_channels: 1 for what treats every channel alone.
        out_channels: Number of output channels.
        estimate_ms: A guess, from which fewer warming passes follow if it is large.
    """
    inputs = _block_inputs(setting, block, in_channels, out_channels)
    module = _block_module(setting, block, in_channels, out_channels)
    warmup = 1 if estimate_ms > 50 else 3
    first_ms = timed_ms(module, inputs, setting, warmup=warmup, repeats=1)[0]
    repeats = int(np.clip(1e3 * ENTRY_SECONDS / max(first_ms, 1e-3), 2, 100))
    return min(first_ms, *timed_ms(module, inputs, setting, warmup=0, repeats=repeats, back_to_back=True))


def _block_inputs(setting: Setting, block: Block, in_channels: int, out_channels: int) -> tuple[torch.Tensor, ...]:
    hw = (block.height * block.stride, block.width * block.stride)
    batch = setting.batch_size
    if block.kind == "add":
        return random_images(setting, (batch, out_channels, *hw)), random_images(setting, (batch, out_channels, *hw))
    if block.kind == "excite":
        return random_images(setting, (batch, in_channels, 1, 1)), random_images(setting, (batch, out_channels, *hw))
    channels = out_channels if block.kind == "depthwise-relu" else in_channels
    return (random_images(setting, (batch, channels, *hw)),)


def _block_module(setting: Setting, block: Block, in_channels: int, out_channels: int) -> Any:
    """Return the block as it stands in `nasray.models.backbone`, in eval mode."""
    from torch import nn

    kind, stride = block.kind, block.stride
    if kind == "add":
        return lambda x, y: x + y
    if kind in ("squeeze", "excite"):
        linear = convolution(setting, in_channels, out_channels, norm=False)
        if kind == "squeeze":
            activation = nn.ReLU(inplace=True)
            return lambda x: activation(linear(x.mean(dim=(2, 3), keepdim=True)))
        return lambda means, x: x * linear(means).sigmoid()
    if kind == "depthwise-relu":
        conv = convolution(setting, out_channels, out_channels, kernel=block.kernel, stride=stride, depthwise=True)
        return conv.append(nn.ReLU6(inplace=True))
    if kind == "pool-conv":
        pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, *convolution(setting, in_channels, out_channels))
    conv = convolution(setting, in_channels, out_channels, kernel=block.kernel, stride=stride)
    if kind == "conv":
        return conv
    conv.append(nn.ReLU(inplace=True))
    return conv.append(nn.MaxPool2d(3, 2, padding=1)) if kind == "conv-relu-pool" else conv
