"""Steps of MAE-DET's mutation: widths times a scale, and what becomes of depths out of range.

Reference: Sun et al., "MAE-DET", ICML 2022, Algorithm 2 and Appendix A.

Shapes: N architectures, S parts in all, P genes of a part: kernel, width, [mid,] depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Gene
from nasray.spaces.errors import NasrayError
from nasray.spaces.ranges import MAX_WIDTH, check_whole

Ints = NDArray[np.int64]

WIDTH_SCALES = np.array([1 / 1.5, 1 / 1.25, 1.0, 1.25, 1.5, 2.0])
DEPTH_STEPS = np.array([-2, -1, 1, 2])
WIDTH_STEP = 8


def scaled(widths: Ints, rng: np.random.Generator, gene: Gene) -> Ints:
    """Return (N,) widths, each times a random scale, to the nearest multiple of 8 within the gene's bounds."""
    scale = WIDTH_SCALES[rng.integers(len(WIDTH_SCALES), size=len(widths))]
    steps = np.floor(widths * scale / WIDTH_STEP + 0.5).astype(np.int64)
    bounded: Ints = (steps * WIDTH_STEP).clip(gene.values[0], gene.values[-1])
    return bounded


def settle_depths(parts: Ints, stages: Sequence[Ints], max_depth: int) -> None:
    """Bring mutated depths into range in place: divide what is too deep, drop or correct what is too shallow.

    Args:
        parts: (N, S, P) genes of parts, of which at most one in each row has a depth out of range.
        stages: Indices of the parts of each stage.
        max_depth: Largest depth of a part.
    """
    depth = parts[:, :, -1]
    for where in stages:
        num_present = (parts[:, where, 0] > 0).sum(axis=1)
        shallow = (depth[:, where] < 1) & (parts[:, where, 0] > 0)
        # A part that mutated away vanishes if its stage has another; the space's repair moves the others up.
        gone = shallow & (num_present > 1)[:, None]
        depth[:, where] = np.where(gone, 0, np.where(shallow, 1, depth[:, where]))
        free = num_present < len(where)
        for index, part in enumerate(where):
            deep = depth[:, part] > max_depth
            divide = np.flatnonzero(deep & free)
            if len(divide):  # at most one part of a stage mutates, so one is free at the end
                behind, ahead = where[index + 2 :], where[index + 1 : -1]
                parts[np.ix_(divide, behind)] = parts[np.ix_(divide, ahead)]
                parts[divide, where[index + 1]] = parts[divide, part]
                total = depth[divide, part].copy()
                depth[divide, part] = np.minimum((total + 1) // 2, max_depth)  # 3 blocks where 1 is allowed
                depth[divide, where[index + 1]] = total // 2
            depth[deep & ~free, part] = max_depth


def width_values(largest: int) -> tuple[int, ...]:
    """Return the widths up to a largest one: multiples of `WIDTH_STEP`.

    Raises:
        NasrayError: for a largest one that is none of them.
    """
    check_whole("the largest width", largest, 2 * WIDTH_STEP, MAX_WIDTH)
    if largest % WIDTH_STEP:
        raise NasrayError(f"widths are multiples of {WIDTH_STEP}; got a largest one of {largest}")
    return tuple(range(WIDTH_STEP, largest + 1, WIDTH_STEP))
