"""The layer table of staged networks: bottlenecks, basic blocks, inverted residuals, with their shortcuts and gates.

Shapes: N architectures, S parts, P genes of a part (kernel, width, [mid,] depth).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.layers import Floats, LayerRows, LayerTable

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
    """The layer table of staged networks.

    Args:
        block: "bottleneck", "basic", "inverted" or "inverted-se".
        stem: (N,) widths of the stem, whose stride is 2.
        parts: (S, P, N) kernel, width, [mid,] depth of every part; depth 0 where a part is absent.
        strides: (S,) 1 or 2, of the first block of each part.
        image_hw: height and width of the input in pixels.
        stem_kernel: the stem's kernel size.
        stem_pool: whether a 3x3 max-pool of stride 2 follows the stem (ResNet).
        shortcut: "pool" (average pool, then 1x1 projection) or "stride" (strided 1x1 projection).
    """
    rows = LayerRows()
    num = len(stem)
    hw = _halved(image_hw)
    pooled = stem * (hw[0] * hw[1]) if stem_pool else 0.0
    image = np.full(num, 3.0)
    rows.add(
        block=0, level=1, kernel=stem_kernel, in_channels=image, out_channels=stem, repeats=1.0, out_hw=hw,
        stride=2, relu_in=False, pooled_elements=pooled,
    )  # fmt: skip
    level, width = 1, stem
    if stem_pool:
        level, hw = 2, _halved(hw)
    add = {"bottleneck": _bottleneck, "basic": _basic}.get(block, _inverted)
    gated = block == "inverted-se"
    for index, (part, stride) in enumerate(zip(parts, strides, strict=True)):
        kernel, out, depth = part[0], part[1], part[-1]
        mid = part[2] if len(part) == 4 else out
        in_hw = hw
        if stride == 2:
            hw = _halved(hw)
        level += stride == 2
        if not depth.any():  # rows that no architecture has are left out
            continue
        present = (depth > 0).astype(np.float64)
        common: dict[str, Any] = {
            "level": level,
            "kernel": kernel,
            "mid": mid,
            "out": out,
            "out_hw": hw,
            "gated": gated,
        }
        add(rows, block=2 * index + 1, width=width, in_hw=in_hw, stride=stride, repeats=present,
            pool=shortcut == "pool", **common)  # fmt: skip
        if (depth > 1).any():
            add(rows, block=2 * index + 2, width=out, in_hw=hw, stride=1, repeats=np.maximum(depth - 1, 0.0),
                pool=False, **common)  # fmt: skip
        width = np.where(depth > 0, out, width)
    return rows.table(num)


def _halved(hw: tuple[int, int]) -> tuple[int, int]:
    return (hw[0] + 1) // 2, (hw[1] + 1) // 2


def _shortcut(rows: LayerRows, *, block: int, level: int, width: Floats, out: Floats, in_hw: tuple[int, int],
              out_hw: tuple[int, int], stride: int, repeats: Floats, pool: bool) -> Floats:  # fmt: skip
    """Add the projection where there is one; (N,) 1 where the shortcut is the identity instead.

    The first block of a part always has a projection in the paper's networks (Table 10's 60.1 M parameters need it);
    ResNets have one only where the shape changes.
    """
    if block % 2 == 0:
        return np.ones_like(width)
    identity = np.zeros_like(width) if pool or stride == 2 else (width == out).astype(np.float64)
    if not identity.all():
        rows.add(
            block=block, level=level, kernel=1.0, in_channels=width, out_channels=out, repeats=repeats * (1 - identity),
            out_hw=out_hw, role="shortcut", stride=stride,
            pooled_elements=width * (in_hw[0] * in_hw[1]) if pool and stride == 2 else 0.0,
        )  # fmt: skip
    return identity


def _bottleneck(rows: LayerRows, *, block: int, level: int, width: Floats, kernel: Floats, mid: Floats, out: Floats,
                in_hw: tuple[int, int], out_hw: tuple[int, int], stride: int, repeats: Floats, pool: bool,
                gated: bool) -> None:  # fmt: skip
    """1x1, kxk (with the stride), 1x1; a projection where the shape changes."""
    del gated
    common: dict[str, Any] = {"block": block, "level": level, "repeats": repeats}
    skip = _shortcut(rows, block=block, level=level, width=width, out=out, in_hw=in_hw, out_hw=out_hw, stride=stride,
                     repeats=repeats, pool=pool)  # fmt: skip
    rows.add(**common, kernel=1.0, in_channels=width, out_channels=mid, out_hw=in_hw)
    rows.add(**common, kernel=kernel, in_channels=mid, out_channels=mid, out_hw=out_hw, stride=stride)
    rows.add(**common, kernel=1.0, in_channels=mid, out_channels=out, out_hw=out_hw, skip=skip)


def _basic(rows: LayerRows, *, block: int, level: int, width: Floats, kernel: Floats, mid: Floats, out: Floats,
           in_hw: tuple[int, int], out_hw: tuple[int, int], stride: int, repeats: Floats, pool: bool,
           gated: bool) -> None:  # fmt: skip
    """Two kxk, the first with the stride; a projection where the shape changes."""
    del mid, gated
    common: dict[str, Any] = {"block": block, "level": level, "repeats": repeats, "kernel": kernel, "out_hw": out_hw}
    skip = _shortcut(rows, block=block, level=level, width=width, out=out, in_hw=in_hw, out_hw=out_hw, stride=stride,
                     repeats=repeats, pool=pool)  # fmt: skip
    rows.add(**common, in_channels=width, out_channels=out, stride=stride)
    rows.add(**common, in_channels=out, out_channels=out, skip=skip)


def _inverted(rows: LayerRows, *, block: int, level: int, width: Floats, kernel: Floats, mid: Floats, out: Floats,
              in_hw: tuple[int, int], out_hw: tuple[int, int], stride: int, repeats: Floats, pool: bool,
              gated: bool) -> None:  # fmt: skip
    """1x1 expansion (none at ratio 1), depthwise kxk (with the stride), [gate,] linear 1x1 projection."""
    del pool
    common: dict[str, Any] = {"block": block, "level": level}
    hidden = width * mid
    from_stem = block == 1
    expanded = repeats * (mid > 1)
    rows.add(**common, kernel=1.0, in_channels=width, out_channels=hidden, out_hw=in_hw, repeats=expanded,
             relu_in=from_stem)  # fmt: skip
    # Without an expansion a depthwise layer reads the linear stream; relu_in then holds for those with one, and the
    # scores correct for the others.
    rows.add(**common, kernel=kernel, in_channels=hidden, out_channels=hidden, out_hw=out_hw, stride=stride,
             depthwise=True, repeats=repeats)  # fmt: skip
    if gated:
        squeezed = gate_width(hidden)
        rows.add(**common, kernel=1.0, in_channels=hidden, out_channels=squeezed, out_hw=(1, 1), repeats=repeats,
                 role="gate")  # fmt: skip
        rows.add(**common, kernel=1.0, in_channels=squeezed, out_channels=hidden, out_hw=(1, 1), repeats=repeats,
                 role="gate")  # fmt: skip
    skip = (width == out) * 1.0 if stride == 1 else 0.0
    rows.add(**common, kernel=1.0, in_channels=hidden, out_channels=out, out_hw=out_hw, repeats=repeats,
             relu_out=False, skip=skip)  # fmt: skip


def gate_width(hidden: Floats) -> Floats:
    """Channels of the squeezed vector: a quarter of the hidden width, a multiple of 8, at least 8 (MobileNetV3)."""
    multiples: Floats = np.floor(hidden / 4 / 8 + 0.5) * 8
    return np.maximum(8.0, multiples)
