"""Typed reading of the values in annotation files, the one place where it is decided what a field may hold.

Integers may be written as floats without a fraction (pandas does), flags as 0, 1, true or false; text is never a
number or a flag in JSON. In XML everything is text, see `nasray.data.formats.voc`.
"""

from __future__ import annotations

import re
from typing import Any

NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
"""Pattern of a number in text."""
MAX_INTEGER = 2**63 - 1
MAX_NUMBER = 1e15
"""Of coordinates and areas; sums and products of them stay finite."""
MAX_SIDE = 1_000_000
"""Pixels of an image's side."""
MAX_NAME = 200
"""Characters of a class name."""
MAX_PATH, MAX_PART = 4095, 255
"""Bytes of a file's path, and of each of its parts."""


class FieldError(ValueError):
    """A value that is not what its field holds; the message says what it must be and what it is."""


def shown_value(value: Any) -> str:
    """Return a value as messages show it: one line, and not a long one."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:45]}...{text[-10:]}"


def integer(value: Any, low: int = -MAX_INTEGER - 1, high: int = MAX_INTEGER) -> int:
    """Return a whole number.

    Raises:
        FieldError: if it is none, or outside `low` to `high`.
    """
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        value = int(value)
    if type(value) is not int:
        raise FieldError(f"must be a whole number, got {shown_value(value)}")
    if not low <= value <= high:
        raise FieldError(f"must lie between {low} and {high}, got {shown_value(value)}")
    return value


def number(value: Any, low: float = -MAX_NUMBER) -> float:
    """Return a finite number of at least `low`.

    Raises:
        FieldError: if it is none, or outside.
    """
    if type(value) is not float and type(value) is not int:
        raise FieldError(f"must be a number, got {shown_value(value)}")
    if not low <= value <= MAX_NUMBER:  # false for NaN
        bounds = "finite and" if low < 0 else f"at least {low:g} and"
        raise FieldError(f"must be {bounds} at most {MAX_NUMBER:g}, got {shown_value(value)}")
    return float(value)


def box(value: Any) -> list[float]:
    """Return four finite numbers.

    Raises:
        FieldError: if it is anything else.
    """
    if type(value) is list and len(value) == 4:
        try:
            return [number(edge) for edge in value]
        except FieldError:
            pass
    raise FieldError(f"must be four finite numbers [x, y, width, height], got {shown_value(value)}")


def flag(value: Any) -> bool:
    """Return a truth value written as 0, 1, true or false.

    Raises:
        FieldError: if it is anything else, such as the text "0".
    """
    if type(value) is bool or (type(value) in (int, float) and value in (0, 1)):
        return bool(value)
    raise FieldError(f"must be 0, 1, true or false, got {shown_value(value)}")


def class_name(value: Any) -> str:
    """Return the name of a class without surrounding whitespace, which is never a part of it.

    Raises:
        FieldError: if it is no text, empty, too long, or holds control characters.
    """
    name = _line(value).strip()
    if not 0 < len(name) <= MAX_NAME:
        raise FieldError(f"must be a name of 1 to {MAX_NAME} characters, got {shown_value(value)}")
    return name


def file_name(value: Any) -> str:
    """Return the name of a file, spaces and all.

    Raises:
        FieldError: if no file can have it.
    """
    name = _line(value)
    parts = [len(part.encode()) for part in name.split("/")]
    if not name.strip() or sum(parts) + len(parts) > MAX_PATH or max(parts) > MAX_PART:
        raise FieldError(
            f"must be a file's path of 1 to {MAX_PATH} bytes, {MAX_PART} in each part; got {shown_value(value)}"
        )
    return name


def _line(value: Any) -> str:
    if type(value) is not str:
        raise FieldError(f"must be text, got {shown_value(value)}")
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", value.strip()):
        raise FieldError(f"must be one line without control characters, got {shown_value(value)}")
    if re.search(r"[\ud800-\udfff]", value):
        raise FieldError(f"must be valid Unicode, got {shown_value(value)}")
    return value


# ---- text, of XML ------------------------------------------------------------------------------------------------


def number_of_text(text: str) -> float:
    """Return the finite number that a text holds.

    Raises:
        FieldError: if it holds none.
    """
    if not re.fullmatch(NUMBER, text.strip()):
        raise FieldError(f"must be a number, got {shown_value(text)}")
    return number(float(text))


def flag_of_text(text: str) -> bool:
    """Return the truth value that a text holds, in whichever case: 0, 1, true, false, yes, no.

    Raises:
        FieldError: if it holds none.
    """
    word = text.strip().lower()
    if word in ("1", "true", "yes"):
        return True
    if word in ("0", "false", "no"):
        return False
    raise FieldError(f"must be 0, 1, true, false, yes or no, got {shown_value(text)}")
