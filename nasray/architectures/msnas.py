"""Encoders of MSNAS and what their heads read: the networks of its Tables 7 to 9.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021. What the
paper leaves open about them is listed in `nasray.spaces.msnas_layers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys
from nasray.spaces import Architecture, LayerTable, MSNASSpace, NasrayError
from nasray.spaces.msnas import SPEC_STRIDES
from nasray.spaces.msnas_layers import MAX_BLOCKS, Size, check_size, msnas_layers
from nasray.spaces.msnas_paths import NUM_GROUPS, SCALES, START, places_of
from nasray.spaces.ranges import shortened


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the checked spec of an encoder: kind and channels of its blocks, their `strides`, and `heads`.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    check_keys(spec, "spec", needed=("block", "stem_width", "width", "strides", "heads"), optional=("mid",))
    moves = _places("spec.strides", spec["strides"], SPEC_STRIDES)
    heads = _places("spec.heads", spec["heads"], SCALES)
    if not 1 <= len(moves) <= MAX_BLOCKS or len(heads) != NUM_GROUPS:
        raise NasrayError(
            f"spec.strides are of 1 to {MAX_BLOCKS} blocks and spec.heads of {NUM_GROUPS} groups; got {len(moves)} and "
            f"{len(heads)}"
        )
    try:
        check_size(_size(spec))
    except (TypeError, ValueError) as error:
        raise NasrayError(f"no network can be built of this spec: {error}") from error
    strides = [SPEC_STRIDES[move] for move in moves]
    scales = (START * np.cumprod(strides)).tolist()
    for index, scale in enumerate(scales):
        if scale not in SCALES:
            raise NasrayError(
                f"spec.strides[{index}] leads to a map of stride {scale:g}; maps have {SCALES[0]} to {SCALES[-1]}"
            )
    for index, place in enumerate(heads):
        if SCALES[place] not in scales:
            there = ", ".join(f"{scale:g}" for scale in sorted(set(scales)))
            raise NasrayError(f"spec.heads[{index}] reads stride {SCALES[place]}; the strides of this path are {there}")
    return {**spec, "strides": strides, "heads": [SCALES[place] for place in heads]}


def _places(name: str, values: Any, allowed: tuple[float, ...]) -> list[int]:
    """Return the place of each value of a list among those that are allowed."""
    if not isinstance(values, list):
        raise NasrayError(f"{name} is a list of numbers; got {shortened(values)}")
    for index, value in enumerate(values):
        if isinstance(value, bool) or value not in allowed:
            raise NasrayError(f"{name}[{index}] is one of {', '.join(map(str, allowed))}; got {shortened(value)}")
    return [allowed.index(value) for value in values]


def layers(spec: dict[str, Any], image_hw: tuple[int, int]) -> LayerTable:
    """Return the layers of a checked spec for an input of `image_hw` pixels, dead blocks among them."""
    moves = np.array([[SPEC_STRIDES.index(stride) for stride in spec["strides"]]])
    heads, alive = places_of([spec["heads"]]), np.ones(moves.shape, dtype=bool)
    return msnas_layers(_size(spec), moves, np.cumsum(moves - 1, axis=1), heads, alive, image_hw)


def _size(spec: dict[str, Any]) -> Size:
    return Size(spec["block"], len(spec["strides"]), spec["stem_width"], spec["width"], spec.get("mid"))


ROWS = {
    "r18": (
        ("122121/11/11/", (8, 8, 16, 16, 32)),
        ("1222/2/1/1/22", (8, 8, 16, 16, 32)),
        ("122211/1//212", (8, 8, 16, 16, 16)),
        ("1222/2/11/1/2", (8, 8, 16, 16, 32)),
        ("12/212121/1/2", (8, 8, 16, 16, 32)),
    ),
    "r34": (
        ("12121121//1121/1/2221", (4, 8, 16, 32, 32)),
        ("12121211//1121/1/2222", (4, 8, 16, 32, 64)),
        ("12121211//1121/1/2222", (4, 8, 16, 16, 64)),
        ("1212112121//112///122", (4, 8, 16, 32, 32)),
        ("12121211//1121/1/222/", (4, 8, 16, 32, 32)),
    ),
    "r50": (
        ("121211211112//1//2212", (8, 8, 16, 32, 32)),
        ("121211211112//1//2122", (8, 16, 32, 32, 32)),
        ("121211211112//1//2122", (8, 8, 32, 32, 64)),
        ("121211211112//1//2212", (8, 8, 16, 32, 64)),
        ("1212111211//1/2222/11", (8, 8, 32, 32, 32)),
    ),
}
"""Strides of the blocks, with / for 0.5, and what the heads read, as printed."""


def _named(variant: Any, strides: str, heads: tuple[int, ...]) -> Architecture:
    return MSNASSpace(variant).to_architecture(np.array([*("/12".index(stride) for stride in strides), *heads]))


NAMED = {
    f"msnas-{variant}-{number}": _named(variant, *row)
    for variant, rows in ROWS.items()
    for number, row in enumerate(rows, start=1)
}
FAMILIES = {
    MSNASSpace.family: Family(
        slot="pyramid", network="nasray.models.msnas:StridePyramid", check=check_spec, layers=layers, named=NAMED
    )
}
