"""The layer table of staged networks: bottlenecks, basic blocks, inverted residuals, with their shortcuts and gates.

Shapes: N architectures, S parts, P genes of a part (kernel, width, [mid,] depth).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.layers import Floats, LayerRows, LayerTable, halved

Ints = NDArray[np.int64]


def staged_layers(
    block: str,
    stem: Floats,
    parts: Floats,
    strides: Sequence[int] | Ints,
    image_hw: tuple[int, int],
    *,
    stem_kernel: int = 3,
    stem_pool: bool = False,
    shortcut: str = "pool",
) -> LayerTable:
    """Return the layer table of staged networks.

    Args:
        block: "bottleneck", "basic", "inverted" or "inverted-se".
        stem: (N,) widths of the stem, whose stride is 2.
        parts: (S, P, N) kernel, width, [mid,] depth of every part; depth 0 where a part is absent.
        strides: (S,) 1 or 2, of the first block of each part.
        image_hw: Height and width of the input in pixels.
        stem_kernel: The stem's kernel size.
        stem_pool: Whether a 3x3 max-pool of stride 2 follows the stem (ResNet).
        shortcut: "pool" (average pool, then 1x1 projection) or "stride" (strided 1x1 projection).
    """
    rows = LayerRows()
    num = len(stem)
    hw = halved(image_hw)
    pooled = stem * (hw[0] * hw[1]) if stem_pool else 0.0
    image = np.full(num, 3.0)
    rows.add(
        block=0,
        level=1,
        kernel=stem_kernel,
        in_channels=image,
        out_channels=stem,
        repeats=1.0,
        out_hw=hw,
        stride=2,
        relu_in=False,
        pooled_elements=pooled,
    )
    level, width = 1, stem
    if stem_pool:
        level, hw = 2, halved(hw)
    add = BLOCKS[block]
    for index, (part, stride) in enumerate(zip(parts, strides, strict=True)):
        kernel, out, depth = part[0], part[1], part[-1]
        in_hw = hw
        if stride == 2:
            level, hw = level + 1, halved(hw)
        if not depth.any():  # rows that no architecture has are left out
            continue
        first = _Position(
            block=2 * index + 1,
            level=level,
            kernel=kernel,
            in_channels=width,
            mid=part[2] if len(part) == 4 else out,
            out_channels=out,
            in_hw=in_hw,
            out_hw=hw,
            stride=int(stride),
            repeats=(depth > 0).astype(np.float64),
            pool=shortcut == "pool",
        )
        add(rows, first)
        if (depth > 1).any():
            repeats = np.maximum(depth - 1, 0.0)
            add(rows, replace(first, block=2 * index + 2, in_channels=out, in_hw=hw, stride=1, repeats=repeats))
        width = np.where(depth > 0, out, width)
    return rows.table(num)


@dataclass(frozen=True)
class _Position:
    """A block position of N architectures.

    Attributes:
        block: Index of the position; odd for the first block of a part, even for its further blocks.
        level: 1 for C1 (stride 2) to 5 for C5 (stride 32).
        kernel: (N,) kernel size.
        in_channels: (N,) input channels.
        mid: (N,) middle width of a bottleneck, expansion ratio of an inverted residual.
        out_channels: (N,) output channels.
        in_hw: Height and width of the input map in pixels.
        out_hw: Height and width of the output map in pixels.
        stride: 1 or 2.
        repeats: (N,) number of blocks.
        pool: Whether an average pool comes before a strided projection.
    """

    block: int
    level: int
    kernel: Floats
    in_channels: Floats
    mid: Floats
    out_channels: Floats
    in_hw: tuple[int, int]
    out_hw: tuple[int, int]
    stride: int
    repeats: Floats
    pool: bool

    @property
    def place(self) -> dict[str, Any]:
        """Return what all rows of the position have in common."""
        return {"block": self.block, "level": self.level}


def _shortcut(rows: LayerRows, at: _Position) -> Floats:
    """Add the projection where there is one; return (N,) 1 where the shortcut is the identity instead.

    The first block of a part always has a projection in the paper's networks (Table 10's 60.1 M parameters need it);
    ResNets have one only where the shape changes.
    """
    width, out = at.in_channels, at.out_channels
    if at.block % 2 == 0:
        return np.ones_like(width)
    identity = np.zeros_like(width) if at.pool or at.stride == 2 else (width == out).astype(np.float64)
    if not identity.all():
        rows.add(
            **at.place,
            kernel=1.0,
            in_channels=width,
            out_channels=out,
            repeats=at.repeats * (1 - identity),
            out_hw=at.out_hw,
            role="shortcut",
            stride=at.stride,
            pooled_elements=width * (at.in_hw[0] * at.in_hw[1]) if at.pool and at.stride == 2 else 0.0,
        )
    return identity


def _bottleneck(rows: LayerRows, at: _Position) -> None:
    """Add 1x1, kxk (with the stride), 1x1, and a projection where the shape changes."""
    width, mid, out = at.in_channels, at.mid, at.out_channels
    skip = _shortcut(rows, at)
    main: dict[str, Any] = {**at.place, "repeats": at.repeats}
    rows.add(**main, kernel=1.0, in_channels=width, out_channels=mid, out_hw=at.in_hw)
    rows.add(**main, kernel=at.kernel, in_channels=mid, out_channels=mid, out_hw=at.out_hw, stride=at.stride)
    rows.add(**main, kernel=1.0, in_channels=mid, out_channels=out, out_hw=at.out_hw, skip=skip)


def _basic(rows: LayerRows, at: _Position) -> None:
    """Add two kxk, the first with the stride, and a projection where the shape changes."""
    width, out = at.in_channels, at.out_channels
    skip = _shortcut(rows, at)
    main: dict[str, Any] = {**at.place, "repeats": at.repeats, "kernel": at.kernel, "out_hw": at.out_hw}
    rows.add(**main, in_channels=width, out_channels=out, stride=at.stride)
    rows.add(**main, in_channels=out, out_channels=out, skip=skip)


def _inverted(rows: LayerRows, at: _Position, *, gated: bool = False) -> None:
    """Add 1x1 expansion (none at ratio 1), depthwise kxk (with the stride), [gate,] linear 1x1 projection."""
    width, out, hidden = at.in_channels, at.out_channels, at.in_channels * at.mid
    expanded, from_stem = at.repeats * (at.mid > 1), at.block == 1
    expansion: dict[str, Any] = {**at.place, "kernel": 1.0, "repeats": expanded, "out_hw": at.in_hw}
    rows.add(**expansion, in_channels=width, out_channels=hidden, relu_in=from_stem)
    # Without an expansion a depthwise layer reads the linear stream; relu_in then holds for those with one, and the
    # scores correct for the others.
    depthwise: dict[str, Any] = {"kernel": at.kernel, "stride": at.stride, "depthwise": True, "out_hw": at.out_hw}
    rows.add(**at.place, **depthwise, in_channels=hidden, out_channels=hidden, repeats=at.repeats)
    linear: dict[str, Any] = {**at.place, "kernel": 1.0, "repeats": at.repeats}
    if gated:
        squeezed = gate_width(hidden)
        rows.add(**linear, in_channels=hidden, out_channels=squeezed, out_hw=(1, 1), role="gate")
        rows.add(**linear, in_channels=squeezed, out_channels=hidden, out_hw=(1, 1), role="gate")
    skip = (width == out) * 1.0 if at.stride == 1 else 0.0
    rows.add(**linear, in_channels=hidden, out_channels=out, out_hw=at.out_hw, relu_out=False, skip=skip)


BLOCKS: dict[str, Callable[[LayerRows, _Position], None]] = {
    "bottleneck": _bottleneck,
    "basic": _basic,
    "inverted": _inverted,
    "inverted-se": partial(_inverted, gated=True),
}
"""What adds the layers of a block position, by the kind of block."""


def gate_width(hidden: Floats) -> Floats:
    """Return the squeezed channels: a quarter of the hidden width, a multiple of 8, at least 8 (MobileNetV3)."""
    multiples: Floats = np.floor(hidden / 4 / 8 + 0.5) * 8
    return np.maximum(8.0, multiples)


def stage_widths(parts: Ints, levels: Sequence[int]) -> dict[int, Ints]:
    """Return the (N,) widths of the stages, those of the last part that is there, by reduction.

    Args:
        parts: (N, S, P) kernel, width, [mid,] depth of every part; depth 0 where a part is absent.
        levels: (S,) stage of each part, 2 for C2; the first part of a stage is there.
    """
    widths: dict[int, Ints] = {}
    for part, level in enumerate(levels):
        own = parts[:, part, 1]
        widths[2**level] = np.where(parts[:, part, -1] > 0, own, widths.get(2**level, own))
    return widths
