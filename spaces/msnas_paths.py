"""What follows from the strides of an encoder's blocks: scales, stages, lateral connections, outputs, dead blocks.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021, sections
3.2 and 3.3.

Reads the paper as:
- Equation 6 lets a block be its own lateral (an empty product for k = i), its text says "at a different stage": here a
  lateral comes from an earlier block.
- What is passed on, sideways too, is the sum of a block's output and its lateral.
- The map of a stride is that of the last block with this stride. The stem's map is none of them.

A stride is absolute where it relates a map to the image (4 to 64), and else a block's own (0.5, 1 or 2).

Shapes: N paths, L blocks, G = 5 groups of objects, the smallest first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasray.spaces.base import Mask

Ints = NDArray[np.int64]

STRIDES = (0.5, 1.0, 2.0)
"""Strides of a block, in the order of their genes' values 0, 1, 2."""
START = 4
"""Absolute stride of the stem's map."""
SCALES = (4, 8, 16, 32, 64)
"""Absolute strides of valid paths, finest first."""
NUM_GROUPS = 5
NONE = -1
"""Index of a block that is not there."""


def absolute_strides(strides: ArrayLike) -> Ints:
    """Return the (N, L) absolute stride of each block's map; 0 of a map that would be larger than the image.

    Args:
        strides: (N, L) strides of the blocks, each 0.5, 1 or 2.
    """
    scales: Ints = (START * np.cumprod(np.asarray(strides, dtype=np.float64), axis=1)).astype(np.int64)
    return scales


def are_valid(strides: ArrayLike) -> Mask:
    """Return (N,) whether every block's map has an absolute stride of 4 to 64.

    Args:
        strides: (N, L) strides of the blocks.
    """
    valid: Mask = np.logical_and.reduce(np.isin(absolute_strides(strides), SCALES), axis=1)
    return valid


def places_of(scales: ArrayLike) -> Ints:
    """Return the place of each absolute stride in `SCALES`; strides that are not there are not asked for."""
    places: Ints = np.searchsorted(SCALES, np.asarray(scales))
    return places


def stage_ends(strides: ArrayLike) -> Mask:
    """Return the (N, L) mask of blocks that end a stage: the next one changes the scale, or there is none.

    Args:
        strides: (N, L) strides of the blocks.
    """
    strides = np.asarray(strides, dtype=np.float64)
    ends = np.ones(strides.shape, dtype=bool)
    ends[:, :-1] = strides[:, 1:] != 1
    return ends


def laterals(strides: ArrayLike) -> Ints:
    """Return the (N, L) index of the block whose map is added to each block's, through a 1x1 convolution; else -1.

    It is the nearest earlier end of a stage with the same absolute stride. Blocks that end no stage have none.

    Args:
        strides: (N, L) strides of the blocks of valid paths.
    """
    places, ends = places_of(absolute_strides(strides)), stage_ends(strides)
    found = np.full(places.shape, NONE, dtype=np.int64)
    latest = np.full((len(places), len(SCALES)), NONE, dtype=np.int64)
    for block in range(places.shape[1]):
        rows = np.flatnonzero(ends[:, block])
        scale = places[rows, block]
        found[rows, block] = latest[rows, scale]
        latest[rows, scale] = block
    return found


def outputs(strides: ArrayLike) -> Ints:
    """Return the (N, 5) index of the last block with each absolute stride of `SCALES`; -1 where no block has it.

    Args:
        strides: (N, L) strides of the blocks of valid paths.
    """
    scales = absolute_strides(strides)
    if not scales.shape[1]:
        return np.full((len(scales), len(SCALES)), NONE, dtype=np.int64)
    has = scales[:, ::-1, None] == np.asarray(SCALES)
    last: Ints = np.where(has.any(axis=1), scales.shape[1] - 1 - has.argmax(axis=1), NONE)
    return last


def sources(strides: ArrayLike, heads: ArrayLike) -> Ints:
    """Return the (N, G) index of the block whose map each group's head reads; -1 where the path lacks the stride.

    Args:
        strides: (N, L) strides of the blocks of valid paths.
        heads: (N, G) absolute strides, of `SCALES`, that the heads read.
    """
    read: Ints = np.take_along_axis(outputs(strides), places_of(heads), axis=1)
    return read


def dead(strides: ArrayLike, heads: ArrayLike) -> Mask:
    """Return the (N, L) mask of blocks that no head needs: those behind the last block that a head reads.

    Args:
        strides: (N, L) strides of the blocks of valid paths.
        heads: (N, G) absolute strides that the heads read.
    """
    last = sources(strides, heads).max(axis=1, keepdims=True)
    behind: Mask = np.arange(np.asarray(strides).shape[1]) > last
    return behind
