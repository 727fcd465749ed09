"""Samples of 16 bits from Pillow, which keeps one byte of each: the other one is had by unpacking them once more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def set_raw_mode(picture: Any, raw_mode: str) -> None:
    """Choose how Pillow unpacks stored samples of an image that is not loaded yet."""
    picture.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
        for tile in picture.tile
    ]


def both_bytes(picture: Any, again: Any, raw_mode: str, other_order: str) -> NDArray[Any]:
    """Return (H, W, C) samples of 16 bits.

    Args:
        picture: Opened by Pillow, not loaded.
        again: The same, opened once more.
        raw_mode: Pillow's, with the byte order at its end.
        other_order: Letter of the other byte order: told that, Pillow keeps the low byte.
    """
    set_raw_mode(picture, raw_mode)
    set_raw_mode(again, raw_mode[:-1] + other_order)
    high, low = (np.asarray(one).astype(np.uint16) for one in (picture, again))
    return high << 8 | low


def deep_png(picture: Any, again: Any) -> NDArray[Any]:
    """Return (H, W) or (H, W, C) samples of a PNG of 16 bits; of gray ones without transparency.

    Args:
        picture: Opened by Pillow, not loaded.
        again: The same, opened once more.
    """
    raw_mode = str(picture.tile[0].args)
    if raw_mode == "LA;16B":  # for whose low bytes Pillow has no name: four bytes are four samples of RGBA
        picture._mode = "RGBA"
        set_raw_mode(picture, "RGBA")
        samples = np.asarray(picture).astype(np.uint16)
        return samples[..., 0] << 8 | samples[..., 1]
    if len(raw_mode.removesuffix(";16B")) == 1:
        return np.asarray(picture).astype(np.uint16)
    return both_bytes(picture, again, raw_mode, "L")[..., :3]
