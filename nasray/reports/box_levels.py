"""Which level of a detector a box is for, by the edge of the square of its area.

Levels of a pyramid double their stride, and so does what they are for. FCOS: extents of 4 to 8 strides from a box's
middle, so edges of 8 to 16 strides. Detectors with anchors: half an octave around the edge of a level's anchor, which
is 8 strides in GFL, `base_size` at the first level in RetinaNet (three in an octave), Faster and Mask R-CNN, and
a share of the image in SSDLite. CenterNet and YOLOF have one map for all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nasray.recipe import Recipe

PYRAMID = (8, 16, 32, 64, 128)
"""Strides of P3 to P7."""
HALF_OCTAVE = math.sqrt(2)
SSD_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Edges of SSDLite's default boxes, as a share of the image's short side; strides are 16 to 512."""


class Level(NamedTuple):
    """A level of a detector.

    Attributes:
        stride: Pixels between two of its locations.
        low: Least edge in pixels of what it is for.
        high: Greatest edge, exclusive.
    """

    stride: int
    low: float
    high: float


def levels_of(recipe: Recipe | None) -> tuple[Level, ...]:
    """Return the levels of a recipe's detector, finest first; those of a pyramid with anchors of 8 strides without one.

    The first one takes all that is smaller too, and the last one all that is larger.
    """
    name = recipe.detector.name if recipe is not None else ""
    options: Any = recipe.detector if recipe is not None else None
    if name == "centernet":
        return _levels([4], [1.0])
    if name == "yolof":
        return _levels([32], [1.0])
    if name == "ssdlite":
        assert recipe is not None
        edges = [share * _short_side(recipe) for share in SSD_SCALES]
        return _levels([16 * 2**place for place in range(len(edges))], edges)
    if name in ("faster-rcnn", "mask-rcnn"):
        strides = [2**level for level in range(options.first_level or 2, 7)]
        return _levels(strides, [options.base_size * 2**place for place in range(len(strides))])
    if name == "retinanet":
        middle = options.base_size * 2 ** (1 / 3)
        return _levels(PYRAMID, [middle * 2**place for place in range(len(PYRAMID))])
    factor = 8 * HALF_OCTAVE if name == "fcos" else 8
    return _levels(PYRAMID, [factor * stride for stride in PYRAMID])


def _short_side(recipe: Recipe) -> int:
    from nasray.recipe import own_sides

    return own_sides(recipe)[0]


def _levels(strides: Sequence[int], edges: Sequence[float]) -> tuple[Level, ...]:
    """Return levels that meet in the geometric mean of the edges that they are for."""
    inner = [math.sqrt(one * other) for one, other in itertools.pairwise(edges)]
    ranges = itertools.pairwise([0.0, *inner, math.inf])
    return tuple(Level(stride, low, high) for stride, (low, high) in zip(strides, ranges, strict=True))


def count_levels(edges: NDArray[np.float64], levels: Sequence[Level]) -> list[int]:
    """Return how many of (N,) boxes, by their edges in pixels, are for each level."""
    return [int(((edges >= level.low) & (edges < level.high)).sum()) for level in levels]


def count_tiny(edges: NDArray[np.float64], levels: Sequence[Level]) -> int:
    """Return how many of (N,) boxes have less area than one location of the finest level."""
    return int((edges < levels[0].stride).sum())
