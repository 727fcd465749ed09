"""The layers of a population of networks as arrays: one description from which costs, scores and latency follow.

Shapes: N architectures; L layer rows, each one convolution (or fully connected layer) of one block position. A block
position that is repeated (`repeats` times) is described once. Rows stand in the order in which data walks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Costs

Floats = NDArray[np.float64]
Role = Literal["main", "shortcut", "gate", "head"]


@dataclass(frozen=True)
class LayerTable:
    """L rows of layers for N architectures. All numbers are float64 and exact.

    Attributes:
        block: (L,) index of the block position; rows of one position are repeated together.
        level: (L,) 1 for C1 (stride 2) to 5 for C5 (stride 32), 6 where maps of stride 64 are blocks' too.
        role: (L,) "main" for the block's main branch, "shortcut" for what is added to it (its projection, laterals),
            "gate" for squeeze-and-excitation, "head" for what reads the maps and counts for no depth.
        kernel: (L, N) kernel height = width.
        in_channels: (L, N).
        out_channels: (L, N).
        repeats: (L, N) how often the row occurs; 0 where an architecture lacks it.
        depthwise: (L,) whether every channel has a filter of its own.
        stride: (L,).
        relu_in: (L,) whether the input has passed a ReLU (else it is linear, or the image).
        relu_out: (L,) whether the output passes a ReLU before the next main row (at a block's end: after the addition).
        out_hw: (L, 2) height and width of the output map in pixels; (L, 2, N) where images differ in size.
        pooled_elements: (L, N) input elements of the average pool before a strided projection, or of the stem's pool.
        skip: (L, N) 1 in the last main row of a block position whose shortcut is the identity.
        bias: (L,) whether a layer has a bias, beside its norm if it has one.
        norm: (L,) whether a batch norm stands behind the layer.
        shared: (L,) whether its weights are those of an earlier row, which counts them.
    """

    block: NDArray[np.int64]
    level: NDArray[np.int64]
    role: NDArray[np.str_]
    kernel: Floats
    in_channels: Floats
    out_channels: Floats
    repeats: Floats
    depthwise: NDArray[np.bool_]
    stride: NDArray[np.int64]
    relu_in: NDArray[np.bool_]
    relu_out: NDArray[np.bool_]
    out_hw: NDArray[np.int64]
    pooled_elements: Floats
    skip: Floats
    bias: NDArray[np.bool_]
    norm: NDArray[np.bool_]
    shared: NDArray[np.bool_]

    @cached_property
    def fan_in(self) -> Floats:
        """(L, N) inputs of one output value."""
        inputs: Floats = self.in_channels
        if self.depthwise.any():
            inputs = np.where(self.depthwise[:, None], 1.0, inputs)
        found: Floats = self.kernel * self.kernel
        found *= inputs
        return found

    @property
    def _pixels(self) -> NDArray[np.int64]:
        """(L, 1) or (L, N) pixels of the output maps."""
        pixels: NDArray[np.int64] = self.out_hw.prod(axis=1).reshape(len(self.out_hw), -1)
        return pixels

    @property
    def macs(self) -> Floats:
        """(L, N) multiply-adds of convolutions and fully connected layers; biases and norms are not counted."""
        return self.fan_in * self.out_channels * self._pixels * self.repeats

    @property
    def params(self) -> Floats:
        """(L, N) weights, and per channel 2 of a batch norm and 1 of a bias; gates have a bias and no norm."""
        return (self.fan_in + self._per_channel) * self.out_channels * self.repeats * ~self.shared[:, None]

    @property
    def _per_channel(self) -> Floats:
        """(L, 1) parameters beside the weights of an output channel."""
        found: Floats = np.where(self.role == "gate", 1.0, 2.0 * self.norm) + self.bias
        return found[:, None]

    def cost(self) -> Costs:
        """Return `gmacs`, `params_m` and `layers` (main-branch layers, the stem included), each (N,)."""
        # As `macs` and `params`, with what they share computed once: all factors are whole numbers, whose products are
        # exact in any order.
        channels = self.out_channels * self.repeats
        macs = self.fan_in * channels
        channels *= self._per_channel
        weights = macs + channels
        params = (weights[~self.shared] if self.shared.any() else weights).sum(axis=0)
        macs *= self._pixels
        main = self.role == "main"
        return {
            "gmacs": macs.sum(axis=0) / 1e9,
            "params_m": params / 1e6,
            "layers": self.repeats[main].sum(axis=0),
        }

    def gmacs_bias(self) -> Floats:
        """Return (N,) gmacs that also count 1 for each output of a layer with bias."""
        biases = self.bias[:, None] * self.out_channels * self._pixels * self.repeats
        counted: Floats = (self.macs + biases).sum(axis=0)
        return counted / 1e9

    def gmacs_mmcv(self) -> Floats:
        """Return (N,) gmacs as mmcv counts them: also 2 per batch-norm output element, 1 per pooling input element."""
        normed = ((self.role != "gate") & self.norm)[:, None] * self.out_channels * self._pixels * self.repeats
        counted: Floats = (self.macs + 2.0 * normed + self.pooled_elements * self.repeats).sum(axis=0)
        return counted / 1e9


@dataclass
class LayerRows:
    """Collects rows for a `LayerTable`."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        *,
        block: int,
        level: int,
        kernel: Floats | float,
        in_channels: Floats | float,
        out_channels: Floats | float,
        repeats: Floats | float,
        out_hw: tuple[int, int],
        role: Role = "main",
        depthwise: bool = False,
        stride: int = 1,
        relu_in: bool = True,
        relu_out: bool = True,
        pooled_elements: Floats | float = 0.0,
        skip: Floats | float = 0.0,
        bias: bool = False,
        norm: bool = True,
        shared: bool = False,
    ) -> None:
        """Append one row; see `LayerTable` for the fields."""
        fields = locals()
        fields.pop("self")
        self.rows.append(fields)

    def table(self, num: int) -> LayerTable:
        """Return the rows as a table of `num` architectures."""

        def per_row(name: str) -> NDArray[Any]:
            return np.array([row[name] for row in self.rows])

        wide = ("kernel", "in_channels", "out_channels", "repeats", "pooled_elements", "skip")
        flags = ("depthwise", "relu_in", "relu_out", "bias", "norm", "shared")
        narrow = ("block", "level", "role", "stride", "out_hw", *flags)
        # One array for all: memory of its size the C library keeps, while it hands several smaller ones back to the
        # system and fetches them anew with every population.
        whole = np.empty((len(wide), len(self.rows), num))
        for name, lines in zip(wide, whole, strict=True):
            for line, row in zip(lines, self.rows, strict=True):
                line[:] = row[name]
        columns: dict[str, Any] = dict(zip(wide, whole, strict=True))
        columns.update({name: per_row(name) for name in narrow})
        return LayerTable(**columns)


def halved(hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a map behind a layer of stride 2."""
    return (hw[0] + 1) // 2, (hw[1] + 1) // 2
