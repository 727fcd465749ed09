"""Checks of specs that all families share: keys and numbers, each refused by its place in the spec."""

from __future__ import annotations

from typing import Any

from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import MAX_BLOCKS, MAX_EXPANSION, MAX_KERNEL, MAX_WIDTH, check_whole, shortened

_MAXIMA = {
    "kernel": MAX_KERNEL,
    "width": MAX_WIDTH,
    "bottleneck": MAX_WIDTH,
    "expansion": MAX_EXPANSION,
    "depth": MAX_BLOCKS,
    "stride": 2,
}
"""The largest number for each key of a spec."""


def check_keys(value: Any, place: str, *, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Refuse a value that is not an object with these keys.

    Args:
        value: Value from a JSON file.
        place: Place of the value, such as `spec.stem`.
        needed: Keys that it must have.
        optional: Keys that it may have.

    Raises:
        NasrayError: naming the first key that is unknown, or those that are missing.
    """
    if not isinstance(value, dict):
        raise NasrayError(f"{place} is an object with the keys {', '.join(needed)}; got {shortened(value)}")
    known = (*needed, *optional)
    for key in value:
        if key not in known:
            raise NasrayError(
                f"{place} has an unknown key {shortened(key)}{did_you_mean(str(key), known)} Its keys are "
                f"{', '.join(known)}"
            )
    if missing := [key for key in needed if key not in value]:
        raise NasrayError(f"{place} lacks {', '.join(missing)}")


def check_numbers(value: dict[str, Any], place: str, keys: tuple[str, ...]) -> None:
    """Refuse numbers that are not whole, or outside the range of their key.

    Args:
        value: Object of a spec.
        place: Place of the object.
        keys: Keys of the numbers.

    Raises:
        NasrayError: naming the first number, or an even kernel.
    """
    for key in keys:
        check_whole(f"{place}.{key}", value[key], 1, _MAXIMA[key])
    if value.get("kernel", 1) % 2 == 0:
        raise NasrayError(f"{place}.kernel is odd, got {value['kernel']}")
