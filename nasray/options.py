"""Options: the types of their values, with their ranges; how the command line changes them; how they are listed.

An option of the command line is a key of a YAML file, written with dots and dashes: `--budget.min-gmacs 20` is
`budget: {min_gmacs: 20}`. It changes the mapping before anything is validated, so that a file and a command line have
the same rules and the same messages. Values are read as YAML; where a text is meant they are taken as they stand.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field

from nasray.cluster.reading import parse_yaml
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_COUNT, MAX_SEED, MAX_SIDE, MIN_SIDE, check_image_hw, shortened

MAX_PATH_BYTES, MAX_NAME_BYTES = 4096, 255
MAX_RUN_NAME = 128
PartKeys = Callable[[str, str], set[str] | None]
"""From a section and the name of a part: the keys that the part has; None where all parts have all keys."""

# ---- types of values ---------------------------------------------------------------------------------------------


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

# ---- what the command line changes -------------------------------------------------------------------------------


def override(
    content: Mapping[str, Any], arguments: Sequence[str], owner: type, *, part_keys: PartKeys | None = None,
    declared: Iterable[str] = (),
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """Return a configuration's mapping with what the command line changes, not yet validated.

    Where the `name` of a section changes, the keys that the new part lacks are left out.

    Args:
        content: The mapping, as from a file.
        arguments: Options with their values, such as `["--budget.gmacs", "60", "--space.kernels", "3", "5"]`.
        owner: The dataclass that the mapping describes.
        part_keys: Keys of named parts.
        declared: Further options of the command, for suggestions alone.

    Returns:
        The mapping, and a line about every section from which something was left out.

    Raises:
        NasrayError: for an option that there is not, one without a value, or one given twice.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(content))
    given: dict[str, Any] = {}
    for option, values in _options(arguments):
        key, value = _read_option(owner, option, values, declared)
        if key in given:
            raise NasrayError(f"option --{option} is given twice. Leave one of the two out")
        given[key] = value
    notes = []
    for key, value in given.items():
        section, _, last = key.rpartition(".")
        if section and last == "name" and part_keys is not None:
            notes += _leave_out(changed, section, value, given, owner, part_keys)
    for key, value in given.items():
        *sections, last = key.split(".")
        inner = changed
        for section in sections:
            if not isinstance(inner.setdefault(section, {}), dict):
                break  # the file is wrong there, which validation says
            inner = inner[section]
        else:
            inner[last] = value
    return changed, notes


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Options without their dashes, and the values that follow each."""
    groups: list[tuple[str, list[str]]] = []
    for argument in arguments:
        is_option = argument.startswith("-") and not re.match(r"-\.?[0-9]|-\.?inf", argument)
        if is_option and argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            groups.append((name, [value] if equals else []))
        elif is_option or not groups:
            what = "unrecognized option" if is_option else "unexpected argument"
            raise NasrayError(f"{what} {shortened(argument)}. Options of keys begin with --, such as --seed 1")
        else:
            groups[-1][1].append(argument)
    yield from groups


def _read_option(owner: type, option: str, values: list[str], declared: Iterable[str]) -> tuple[str, Any]:
    """The dotted key and the value of one option."""
    key = option.replace("-", "_")
    kind = _kind_of(owner, key)
    if kind is None:
        section, _, last = key.rpartition(".")
        opposite = f"{section}.{last[3:]}".lstrip(".") if last.startswith("no_") else ""
        if opposite and _plain(_kind_of(owner, opposite)) is bool and not values:
            return opposite, False
        known = [*(f"--{name.replace('_', '-')}" for name in dotted_keys(owner)), *declared]
        near = get_close_matches(f"--{option[:100]}", known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise NasrayError(f"unrecognized option {shortened('--' + option)}{hint} `--options` prints all")
    plain = _plain(kind)
    if dataclasses.is_dataclass(plain):
        names = ", ".join(f"--{option}.{field.name.replace('_', '-')}" for field in dataclasses.fields(plain))
        raise NasrayError(f"--{option} is a section. Its options are {names}")
    if not values:
        if plain is bool:
            return key, True
        raise NasrayError(f"option --{option} needs a value, such as --{option} VALUE")
    if len(values) == 1 and values[0] in ("None", "null", "~") and type(None) in get_args(kind):
        return key, None
    if get_origin(plain) is tuple:
        return key, _read_tuple(option, plain, values)
    if len(values) > 1:
        raise NasrayError(f"option --{option} takes one value, got {len(values)}: {shortened(' '.join(values))}")
    return key, _read_value(option, kind, values[0])


def _read_tuple(option: str, kind: Any, values: list[str]) -> Any:
    item, *others = get_args(kind)
    if len(values) == 1 and values[0].startswith("["):
        return parse_yaml(values[0], f"--{option}")
    read = [_read_value(option, item, value) for value in values]
    if len(read) == 1 and Ellipsis not in others:
        return read[0]  # an image size, 800x1280 or 640
    if get_origin(item) is tuple and not any(isinstance(value, list) for value in read):
        size = len(get_args(item))
        return [read[first : first + size] for first in range(0, len(read), size)]
    return read


def _read_value(option: str, kind: Any, text: str) -> Any:
    plain = _plain(kind)
    if plain is str or (get_origin(plain) is Literal and all(isinstance(choice, str) for choice in get_args(plain))):
        return text
    return parse_yaml(text, f"--{option}")


def _leave_out(
    content: dict[str, Any], section: str, name: Any, given: Mapping[str, Any], owner: type, part_keys: PartKeys
) -> list[str]:
    """Remove from a section, in place, what the part that it shall name does not have; a line if there was any."""
    inner = content.get(section)
    kind = _plain(_kind_of(owner, section))
    if not isinstance(inner, dict) or not isinstance(name, str):
        return []
    before = inner.get("name", next(field.default for field in dataclasses.fields(kind) if field.name == "name"))
    known = part_keys(section, name) if name != before else None
    if known is None:
        return []
    foreign = [key for key in inner if key != "name" and key not in known and f"{section}.{key}" not in given]
    dropped = [key for key in foreign if inner.pop(key) is not None]
    return [f"{section} {name!r} has no {', '.join(dropped)}: left out"] if dropped else []


def _kind_of(owner: Any, key: str) -> Any:
    """The declared type of a dotted key; None where there is no such key."""
    for part in key.split("."):
        owner = _plain(owner)
        if not dataclasses.is_dataclass(owner) or part not in {field.name for field in dataclasses.fields(owner)}:
            return None
        owner = get_type_hints(owner)[part]
    return owner


def _plain(kind: Any) -> Any:
    """A type without the None that it also allows."""
    inner = [part for part in get_args(kind) if part is not type(None)]
    is_optional = type(None) in get_args(kind) and len(inner) == 1
    return inner[0] if is_optional else kind


# ---- listing -----------------------------------------------------------------------------------------------------


def dotted_keys(owner: Any) -> list[str]:
    """Return all keys of a dataclass and of the dataclasses in it, as `budget.gmacs`."""
    keys = []
    for field in dataclasses.fields(owner):
        inner = _plain(get_type_hints(owner)[field.name])
        keys += (
            [f"{field.name}.{key}" for key in dotted_keys(inner)] if dataclasses.is_dataclass(inner) else [field.name]
        )
    return keys


def option_texts(value: Any, part_keys: PartKeys | None = None, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Return the options of a configuration: name on the command line to value and text.

    Args:
        value: The configuration, a dataclass of dataclasses, whose docstrings describe their attributes.
        part_keys: Keys of named parts; those that the part of a section lacks are left out.
        prefix: Section, with its dot.
    """
    texts = attribute_texts(type(value))
    kinds = get_type_hints(type(value))
    name = getattr(value, "name", None)
    known = part_keys(prefix.rstrip("."), name) if part_keys and prefix and name else None
    options: dict[str, tuple[Any, str]] = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            options |= option_texts(inner, part_keys, f"{prefix}{field.name}.")
        elif known is None or field.name in known or field.name == "name":
            plain = _plain(kinds[field.name])
            choices = f" One of {', '.join(map(str, get_args(plain)))}." if get_origin(plain) is Literal else ""
            options[f"--{prefix}{field.name}".replace("_", "-")] = inner, texts[field.name] + choices
    return options


def attribute_texts(owner: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says about each of its attributes."""
    described = inspect.cleandoc(owner.__doc__ or "").partition("Attributes:")[2]
    found = re.findall(r"^\s+(\w+): (.*?)(?=^\s+\w+: |\Z)", described, re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
