"""What the command line changes in a configuration, and how the options of one are listed.

An option of the command line is a key of a YAML file, written with dots and dashes: `--budget.min-gmacs 20` is
`budget: {min_gmacs: 20}`. It changes the mapping before anything is validated, so that a file and a command line have
the same rules and the same messages. Values are read as YAML; where a text is meant they are taken as they stand.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from nasray.cluster.reading import parse_yaml
from nasray.options import Chosen, ChosenEach, allows_none, mapped_by, options_type
from nasray.registry import Registry
from nasray.signatures import attribute_texts
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened

TAGS = ("name", "kind")
"""Keys by which a mapping names a part."""

# ---- what the command line changes -------------------------------------------------------------------------------


def override(
    content: Mapping[str, Any], arguments: Sequence[str], owner: type, *, declared: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return a configuration's mapping with what the command line changes, not yet validated.

    Where another part is named, as by `--searcher.name`, the keys that the new part lacks are left out.

    Args:
        content: The mapping, as from a file.
        arguments: Options with their values, such as `["--budget.gmacs", "60", "--space.kernels", "3", "5"]`.
        owner: The dataclass that the mapping describes.
        declared: Further options of the command, for suggestions alone.

    Returns:
        The mapping, and a line about every section from which something was left out.

    Raises:
        NasrayError: for an option that there is not, one without a value, or one given twice.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(content))
    options = list(_options(arguments))
    notes: list[str] = []
    for option, values in options:  # first, since what other options there are depends on the part
        section, _, last = option.replace("-", "_").rpartition(".")
        if last in TAGS and len(values) == 1:
            notes += _choose(changed, owner, section, last, values[0])
    given: dict[str, Any] = {}
    for option, values in options:
        key, value = _read_option(owner, option, values, changed, declared)
        if key in given:
            raise NasrayError(f"option --{option} is given twice. Leave one of the two out")
        given[key] = value
        _set(changed, key, value)
    return changed, notes


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield options without their dashes, and the values that follow each."""
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


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        section = key_in(content, section)
        if content.get(section) is None:
            content[section] = {}
        if not isinstance(content[section], dict):
            return  # the file is wrong there, which validation says
        content = content[section]
    content[last] = value


def _choose(content: dict[str, Any], owner: type, section: str, tag: str, name: str) -> list[str]:
    """Name another part in a section, without what it does not have; a line if there was any."""
    *outer, last = section.split(".")
    holder, inside = _declared(owner, outer, content)
    chosen = mapped_by(_kind(holder, last))
    if not isinstance(chosen, Chosen) or chosen.registry.tag != tag:
        return []
    inner = inside.get(key_in(inside, last)) if isinstance(inside, Mapping) else None
    fields = {field.name for field in dataclasses.fields(chosen.schema({tag: name}))}
    dropped = []
    if isinstance(inner, dict) and chosen.name_in(inner) != name:
        dropped = [key for key in list(inner) if key not in fields and inner.pop(key) is not None]
    _set(content, f"{section}.{tag}", name)
    return [f"{chosen.registry.what} {name!r} has no {', '.join(dropped)}: left out"] if dropped else []


def _read_option(
    owner: type, option: str, values: list[str], content: dict[str, Any], declared: Iterable[str]
) -> tuple[str, Any]:
    """Return the dotted key and the value of one option."""
    key = option.replace("-", "_")
    *sections, last = key.split(".")
    holder, inside = _declared(owner, sections, content)
    kind = _kind(holder, last)
    if kind is None and len(sections) == 1 and get_origin(plain_type(_kind(owner, sections[0]))) is dict:
        return key, _read_free(option, values)
    if kind is None:
        if not values and last.startswith("no_") and plain_type(_kind(holder, last[3:])) is bool:
            return ".".join([*sections, last[3:]]), False
        raise _unknown(owner, option, content, declared)
    plain = plain_type(kind)
    if section := section_type(kind, inside.get(last) if isinstance(inside, Mapping) else None):
        names = ", ".join(f"--{option}.{field.name.replace('_', '-')}" for field in dataclasses.fields(section))
        raise NasrayError(f"--{option} is a section. Its options are {names}")
    if not values:
        if plain is bool:
            return key, True
        raise NasrayError(f"option --{option} needs a value, such as --{option} VALUE")
    is_null = len(values) == 1 and values[0] in ("None", "null", "~")
    if is_null and (allows_none(kind) or (hasattr(holder, "registry") and last != holder.registry.tag)):
        return key, None
    if get_origin(plain) is tuple:
        return key, _read_tuple(option, plain, values)
    if len(values) > 1:
        raise NasrayError(f"option --{option} takes one value, got {len(values)}: {shortened(' '.join(values))}")
    return key, _read_value(option, kind, values[0])


def _unknown(owner: type, option: str, content: Mapping[str, Any], declared: Iterable[str]) -> NasrayError:
    """Return what to say of an option that there is not."""
    *sections, last = option.replace("-", "_").split(".")
    if sections:
        holder, inside = _declared(owner, sections[:-1], content)
        chosen = mapped_by(_kind(holder, sections[-1]))
        if isinstance(chosen, Chosen):
            try:
                chosen.known_values({**(inside.get(sections[-1]) or {}), last: ""})
            except NasrayError as error:
                return error
    for depth in range(1, len(sections)):
        holder, inside = _declared(owner, sections[: depth - 1], content)
        each = mapped_by(_kind(holder, sections[depth - 1]))
        names = list(inside.get(sections[depth - 1]) or {})
        if isinstance(each, ChosenEach) and key_in(dict.fromkeys(names), sections[depth]) not in names:
            name = sections[depth].replace("_", "-")
            return NasrayError(
                f"unknown {each.chosen.registry.what} {shortened(name)}{did_you_mean(name, names)} There are: "
                f"{', '.join(names) or 'none'}"
            )
    known = [*(f"--{name.replace('_', '-')}" for name in dotted_keys(owner, content)), *declared]
    hint = did_you_mean(f"--{option}", known)
    return NasrayError(f"unrecognized option {shortened('--' + option)}{hint} `--options` prints all")


def _read_tuple(option: str, kind: Any, values: list[str]) -> Any:
    item, *others = get_args(kind)
    if len(values) == 1 and values[0].startswith("["):
        return parse_yaml(values[0], f"--{option}")
    read = [_read_value(option, item, value) for value in values]
    if len(read) == 1 and Ellipsis not in others:
        return read[0]  # an image size, 800x1280 or 640
    inner = plain_type(item)
    if get_origin(inner) is tuple and not any(isinstance(value, list) for value in read):
        size = len(get_args(inner))
        return [read[first : first + size] for first in range(0, len(read), size)]
    return read


def _read_value(option: str, kind: Any, text: str) -> Any:
    plain = plain_type(kind)
    if plain is str or (get_origin(plain) is Literal and all(isinstance(choice, str) for choice in get_args(plain))):
        return text
    return parse_yaml(text, f"--{option}")


def _read_free(option: str, values: Sequence[str]) -> Any:
    """Return the value of a key that no type is declared for, such as an option of the space's supernet."""
    read = [parse_yaml(value, f"--{option}") for value in values]
    return True if not read else read[0] if len(read) == 1 else read


def _declared(owner: Any, sections: Sequence[str], content: Any) -> tuple[Any, Any]:
    """Return the dataclass of a section and what a mapping holds there; None for a section that there is not."""
    for section in sections:
        if owner is None:
            return None, {}
        inside = content.get(key_in(content, section)) if isinstance(content, Mapping) else None
        owner, content = section_type(_kind(owner, section), inside), inside
    return owner, content if isinstance(content, Mapping) else {}


def key_in(content: Any, name: str) -> str:
    """Return the key of a mapping that an option means, whose dashes are underscores."""
    keys = content if isinstance(content, Mapping) else ()
    return next((key for key in keys if isinstance(key, str) and key.replace("-", "_") == name), name)


def _kind(owner: Any, name: str) -> Any:
    """Return the declared type of a field of a dataclass; None where there is none."""
    return get_type_hints(owner, include_extras=True).get(name) if dataclasses.is_dataclass(owner) else None


def section_type(kind: Any, content: Any) -> Any:
    """Return the dataclass that a section is read as; None for a declared type that is no section, or names no part.

    Args:
        kind: Declared type.
        content: Mapping of the section, which may name a part.

    Raises:
        NasrayError: if it names a part that there is not.
    """
    mapped = mapped_by(kind)
    if mapped is not None:
        return mapped.schema(content) if mapped.is_chosen(content) else None
    plain = plain_type(kind)
    return plain if dataclasses.is_dataclass(plain) else None


def plain_type(kind: Any) -> Any:
    """Return a type without its annotations and the None that it also allows."""
    while True:
        inner = [part for part in get_args(kind) if part is not type(None)]
        if get_origin(kind) is Annotated or (type(None) in get_args(kind) and len(inner) == 1):
            kind = inner[0]
        else:
            return kind


# ---- listing -----------------------------------------------------------------------------------------------------


def dotted_keys(owner: Any, content: Any = None) -> list[str]:
    """Return all keys of a dataclass and of the sections in it, as `budget.gmacs`.

    Args:
        owner: Dataclass.
        content: Mapping that may name parts; sections without a name have those of their default.
    """
    keys = []
    for field in dataclasses.fields(owner):
        inside = content.get(key_in(content, field.name)) if isinstance(content, Mapping) else None
        inner = section_type(_kind(owner, field.name), inside)
        keys += [f"{field.name}.{key}" for key in dotted_keys(inner, inside)] if inner is not None else [field.name]
    return keys


def option_texts(value: Any, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Return the options of a configuration: name on the command line to value and text.

    Args:
        value: The configuration, a dataclass of dataclasses, whose docstrings describe their attributes.
        prefix: Section, with its dot.
    """
    texts = attribute_texts(type(value))
    options: dict[str, tuple[Any, str]] = {}
    for field in dataclasses.fields(value):
        inner, kind = getattr(value, field.name), _kind(type(value), field.name)
        if dataclasses.is_dataclass(inner):
            options |= option_texts(inner, f"{prefix}{field.name}.")
        elif inner is None and (section := section_type(kind, None)) is not None:
            for row in _rows(section, ""):
                options[f"--{prefix}{field.name}.{row.key}".replace("_", "-")] = None, row.text
        elif isinstance(mapped_by(kind), ChosenEach):
            for name, each in inner.items():
                options |= option_texts(each, f"{prefix}{field.name}.{name}.")
        else:
            text = f"{texts[field.name]} {allowed(kind)}".strip()
            options[f"--{prefix}{field.name}".replace("_", "-")] = inner, text
    return options


def allowed(kind: Any) -> str:
    """Return a sentence about the values of a declared type: its choices; nothing where any will do."""
    plain = plain_type(kind)
    choices = get_args(plain)
    is_choice = get_origin(plain) is Literal and len(choices) > 1
    return f"One of {', '.join(map(str, choices))}." if is_choice else ""


@dataclasses.dataclass(frozen=True)
class OptionRow:
    """One option of a part, as lists and tables show it.

    Attributes:
        key: Key in the part's section.
        default: Default; None where there is none, and where it follows from others.
        is_required: Whether it has to be given.
        text: What it is, and what is allowed.
    """

    key: str
    default: Any
    is_required: bool
    text: str


def part_rows(registry: Registry, name: str) -> list[OptionRow]:
    """Return the options of a named part in the order of its signature.

    Raises:
        NasrayError: for a name that there is not.
    """
    return _rows(options_type(registry, name), "")[1:]  # without the name itself


def _rows(owner: Any, prefix: str) -> list[OptionRow]:
    texts, rows = attribute_texts(owner), []
    for field in dataclasses.fields(owner):
        kind = _kind(owner, field.name)
        is_elsewhere = field.default is None and isinstance(
            mapped_by(kind), Chosen
        )  # left out, it is another section's
        section = None if is_elsewhere else section_type(kind, None)
        if section is not None:
            rows += _rows(section, f"{prefix}{field.name}.")
            continue
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        text = f"{texts.get(field.name, '')} {allowed(kind)}".strip()
        rows.append(OptionRow(prefix + field.name, None if is_required else field.default, is_required, text))
    return rows
