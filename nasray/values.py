"""The types of values in experiments and recipes, with their ranges."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_COUNT, MAX_SEED, MAX_SIDE, MIN_SIDE, check_image_hw, shortened

MAX_PATH_BYTES, MAX_NAME_BYTES = 4096, 255
MAX_RUN_NAME = 128


def whole(minimum: int, maximum: int = MAX_COUNT) -> Any:
    """Return the constraint of an option that is a whole number, bounds included: not 3.0, not "3", not true."""
    return Field(strict=True, ge=minimum, le=maximum)


def number(
    minimum: float | None = None, maximum: float | None = None, *, gt: float | None = None, lt: float | None = None
) -> Any:
    """Return the constraint of an option that is a finite number, bounds included; `gt` and `lt` shut them out."""
    return Field(strict=True, allow_inf_nan=False, ge=minimum, le=maximum, gt=gt, lt=lt)


def check_text(text: str) -> str:
    """Return a text that can be a name, a path or an address.

    Raises:
        NasrayError: if it is empty, not UTF-8, too long, or holds what cannot be printed.
    """
    if not text:
        raise NasrayError("it is empty. Give it a value, or leave it out")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise NasrayError(f"{shortened(text)} is not UTF-8 text. Rename what it names")
    if not text.isprintable():
        raise NasrayError(f"{shortened(text)} holds a character that cannot be printed. Remove it")
    if len(text.encode()) > MAX_PATH_BYTES or max(len(part.encode()) for part in text.split("/")) > MAX_NAME_BYTES:
        raise NasrayError(
            f"{shortened(text)} is too long for a name, a path or a number: at most {MAX_NAME_BYTES} bytes between two "
            f"slashes, {MAX_PATH_BYTES:,} in all"
        )
    return text


def _check_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) or len(text) > MAX_RUN_NAME:
        raise NasrayError(
            f"it is the name of a folder: letters, digits, '.', '_' and '-', the first a letter or digit, at most "
            f"{MAX_RUN_NAME}; got {shortened(text)}. Set `name`"
        )
    return text


def read_image_hw(value: Any) -> tuple[int, int]:
    """Return height and width in pixels from "800x1280", from 640 or "640" for a square, or from a pair.

    Raises:
        NasrayError: if it is none of these, or out of range.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", value)
        sides = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not MIN_SIDE <= min(sides) <= max(sides) <= MAX_SIDE:
            raise NasrayError(
                f"image size is HEIGHTxWIDTH in pixels, each from {MIN_SIDE} to {MAX_SIDE:,}, such as 800x1280; got "
                f"{shortened(value)}"
            )
        return sides
    return check_image_hw(value)


Text = Annotated[str, AfterValidator(check_text)]
Name = Annotated[str, AfterValidator(_check_name)]
Flag = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, whole(0, MAX_SEED)]
Positive = Annotated[int, whole(1)]
Natural = Annotated[int, whole(0)]
Share = Annotated[float, number(0, 1)]
AtLeastZero = Annotated[float, number(0)]
AboveZero = Annotated[float, number(gt=0)]
ImageSize = Annotated[tuple[int, int], BeforeValidator(read_image_hw)]
