"""The ranges of numbers from outside, each stated once: for YAML, the command line and Python alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any

from nasray.spaces.errors import NasrayError

MAX_SEED = 2**63 - 1
MAX_COUNT = 10**9
"""Of whatever is counted and is not listed here."""
MIN_SIDE, MAX_SIDE = 32, 16_384
"""Height and width of an image in pixels: five levels of stride 2 leave one pixel of the least."""
MAX_WIDTH = 16_384
"""Channels of a layer; latency tables end there too."""
MAX_KERNEL = 63
MAX_EXPANSION = 64
MAX_BATCH, MAX_IN_FLIGHT = 100_000, 10_000
"""Architectures in one trial of a search, and trials at a time."""
MAX_CORES, MAX_RETRIES = 100_000, 1_000
MAX_SECONDS = 1e7
"""Limit of time of a trial, at most: four months."""
MAX_BLOCKS = 1_024
"""Blocks of a whole network."""
MAX_PARAMS_M = 1_000
"""Parameters / 1e6 of a network that is built: 4 GB."""


@dataclass(frozen=True)
class Range:
    """The bounds of an option, as part of its type: `Annotated[int, Range(2, 64)]`, or of each item of a list.

    Attributes:
        minimum: Least value.
        maximum: Greatest value.
        above: Value that is too small itself.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None


Share = Annotated[float, Range(0, 1)]
Width = Annotated[int, Range(1, MAX_WIDTH)]
Depth = Annotated[int, Range(1, MAX_BLOCKS)]
Count = Annotated[int, Range(1, MAX_COUNT)]


def check_whole(name: str, value: Any, minimum: int, maximum: int = MAX_COUNT) -> int:
    """Return a whole number within its bounds, both inclusive.

    Raises:
        NasrayError: naming it, its value and the bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not minimum <= int(value) <= maximum:
        raise NasrayError(f"{name} is a whole number from {minimum:,} to {maximum:,}; got {shortened(value)}")
    return int(value)


def check_number(name: str, value: Any, minimum: float, maximum: float) -> float:
    """Return a number within its bounds, both inclusive; NaN is within none.

    Raises:
        NasrayError: naming it, its value and the bounds.
    """
    if not minimum <= _real(value) <= maximum:
        raise NasrayError(f"{name} is a number from {minimum:g} to {maximum:g}; got {shortened(value)}")
    return float(value)


def check_finite(name: str, value: Any, minimum: float = -math.inf) -> float:
    """Return a finite number that is not less than `minimum`.

    Raises:
        NasrayError: naming it and its value.
    """
    number = _real(value)
    if not math.isfinite(number) or number < minimum:
        least = f" of at least {minimum:g}" if minimum > -math.inf else ""
        raise NasrayError(f"{name} is a finite number{least}; got {shortened(value)}")
    return number


def _real(value: Any) -> float:
    """Return a number as a float; NaN for what is none."""
    try:
        return float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def check_image_hw(image_hw: Sequence[Any]) -> tuple[int, int]:
    """Return height and width in pixels of an image.

    Raises:
        NasrayError: if they are not two whole numbers from `MIN_SIDE` to `MAX_SIDE`.
    """
    try:
        height, width = image_hw
        return (
            check_whole("height", height, MIN_SIDE, MAX_SIDE),
            check_whole("width", width, MIN_SIDE, MAX_SIDE),
        )
    except (TypeError, ValueError):
        raise NasrayError(
            f"image size is height and width in pixels, whole numbers from {MIN_SIDE} to {MAX_SIDE:,}; got "
            f"{shortened(image_hw)}"
        ) from None


def check_four_stages(widths: Sequence[Any], depths: Sequence[Any]) -> None:
    """Refuse widths and depths that are not those of the stages C2 to C5.

    Raises:
        NasrayError: naming both.
    """
    if len(widths) != 4 or len(depths) != 4:
        raise NasrayError(
            f"widths and depths are of the four stages C2 to C5, got {shortened(widths)} and {shortened(depths)}"
        )


def check_kernels(kernels: Sequence[Any]) -> tuple[int, ...]:
    """Return kernel sizes, ascending.

    Raises:
        NasrayError: if there is none, or one is even, out of range or there twice.
    """
    found = tuple(check_whole("kernel", kernel, 1, MAX_KERNEL) for kernel in kernels)
    if not found or len(set(found)) < len(found) or any(kernel % 2 == 0 for kernel in found):
        raise NasrayError(f"kernels are distinct odd numbers from 1 to {MAX_KERNEL}; got {shortened(kernels)}")
    return tuple(sorted(found))


def shortened(value: Any, length: int = 80) -> str:
    """Return the `repr` of a value as messages show it: one line, and not long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return "a whole number of more than 30 digits"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested without end; an integer of thousands of digits within it
        text = type(value).__name__
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= length else f"{text[: length - 10]}...{text[-7:]}"
