"""The options that parts own.

A part's options are the keyword parameters of its constructor (`nasray.signatures`), here as a frozen dataclass.
`Chosen(SEARCHERS)` annotates a field of an experiment or a recipe that holds the options of whatever searcher is named.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import operator
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from nasray.registry import REGISTRIES, Registry
from nasray.signatures import REQUIRED, keywords, parameters
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import MAX_SEED, Range, shortened
from nasray.spaces.references import From
from nasray.validation import CompleteError, checked
from nasray.values import Flag, ImageSize, Text, number

# ---- options of a part as a dataclass ----------------------------------------------------------------------------


class PartOptions:
    """The options of a named part, a frozen dataclass that is made of the part's signature.

    Attributes:
        registry: Registry of the part.
        references: Options whose values name stages or files, each with what is taken of them.
        called: What messages call the part.
    """

    registry: ClassVar[Registry]
    called: ClassVar[str]
    references: ClassVar[Mapping[str, From]]

    @property
    def part_name(self) -> str:
        """Name of the part."""
        name: str = getattr(self, self.registry.tag)
        return name

    def __reduce__(self) -> Any:
        return _unpickled, (self.registry.what, dict(vars(self)))


def _unpickled(what: str, values: dict[str, Any]) -> Any:
    registry = REGISTRIES[what]
    return options_of(registry, values.pop(registry.tag), **values)


def options_of(registry: Registry, name: str, **values: Any) -> Any:
    """Return the options of a named part, checked.

    Raises:
        NasrayError: for a name that there is not, or an option that the part does not have.
    """
    chosen = Chosen(registry)
    return options_type(registry, name)(**chosen.known_values({registry.tag: name, **values}))


def options_type(registry: Registry, name: str) -> Any:
    """Return the dataclass of a part's options.

    Raises:
        NasrayError: for a name that there is not, or a part whose options have no type that a file could hold.
    """
    return _options_type(registry, name, registry.signed(name))


@functools.cache
def _options_type(registry: Registry, name: str, part: type) -> Any:
    fields: list[Any] = [(registry.tag, Literal[name], dataclasses.field(default=name))]
    lines = [f"    {registry.tag}: {registry.tag.capitalize()} of the {registry.what}."]
    references: dict[str, From] = {}
    for option, keyword in keywords(part, registry.given).items():
        if hasattr(PartOptions, option) or option in PartOptions.__annotations__:
            raise NasrayError(f"{registry.what} {name!r} has an option {option!r}, a word of nasray's own. Rename it")
        kind = _value_type(keyword.kind, option)
        default = {} if keyword.default is REQUIRED else {"default": _frozen(keyword.default)}
        fields.append((option, kind, dataclasses.field(**default)))
        lines.append(f"    {option}: {keyword.text}")
        if (mark := keyword.reference) is not None:
            references[option] = mark
    made = dataclasses.make_dataclass(
        f"{part.__name__}Options",
        fields,
        bases=(PartOptions,),
        frozen=True,
        kw_only=True,
        namespace={
            "registry": registry,
            "references": references,
            "called": f"{registry.what} {name!r}",
            "__module__": part.__module__,
        },
    )
    try:
        options: Any = checked(made)
    except PydanticSchemaGenerationError as error:
        reason = str(error).partition("\n")[0]
        raise NasrayError(f"{registry.what} {name!r} has an option that no YAML can hold: {reason}") from None
    options.__doc__ = "\n".join([registry.text(name) + ".", "", "Attributes:", *lines])
    return options


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _value_type(kind: Any, name: str) -> Any:
    """Return the type by which a value is checked: numbers are read as what they are, lists become tuples."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [item for item in inner[1:] if isinstance(item, Range)]
        others = [item for item in inner[1:] if not isinstance(item, Range)]
        limits = [Field(ge=item.minimum, le=item.maximum, gt=item.above) for item in bounds]
        made = _value_type(inner[0], name)
        for item in (*limits, *others):
            made = Annotated[made, item]
        return made
    if origin in (Union, types.UnionType):
        read = [item for item in inner if get_origin(item) is not np.ndarray]  # a file holds lists
        return functools.reduce(operator.or_, (_value_type(item, name) for item in read))
    if origin is tuple and name == "image_hw":
        return ImageSize
    if origin is tuple:
        items = [item if item is Ellipsis else _value_type(item, name) for item in inner]
        return types.GenericAlias(tuple, tuple(items))
    if origin in (list, collections.abc.Sequence):
        return types.GenericAlias(tuple, (_value_type(inner[0], name), ...))
    if origin in (dict, collections.abc.Mapping):
        return types.GenericAlias(dict, (_value_type(inner[0], name), _value_type(inner[1], name)))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return Annotated[Any, Section(kind)]
    plain: dict[Any, Any] = {
        int: Annotated[int, Field(strict=True, ge=-MAX_SEED, le=MAX_SEED)],
        float: Annotated[float, number()],
        bool: Flag,
        str: Text,
    }
    return plain.get(kind, kind) if isinstance(kind, type) else kind


class _Mapped:
    """Reads a mapping as a dataclass; the base of what annotates a field that is a section."""

    def schema(self, content: Any) -> Any:
        """Return the dataclass that the mapping of a section describes.

        Raises:
            NasrayError: if it names a part that there is not.
        """
        raise NotImplementedError

    def is_chosen(self, content: Any) -> bool:
        """Return whether the mapping of a section says what it is read as."""
        del content
        return True

    def read(self, value: Any, info: Any) -> Any:
        """Return the options that a mapping holds."""
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        dump = core_schema.plain_serializer_function_ser_schema(dataclasses.asdict)
        return core_schema.with_info_plain_validator_function(self.read, serialization=dump)


class Section(_Mapped):
    """Annotation of an option that is a mapping: a frozen dataclass in a part's signature."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def schema(self, content: Any) -> Any:
        """See `_Mapped`."""
        del content
        return _section_type(self.kind)

    def read(self, value: Any, info: Any) -> Any:
        """See `_Mapped`."""
        content = dict(vars(value)) if isinstance(value, self.kind) else value
        if not isinstance(content, Mapping):
            raise NasrayError(f"it is a mapping of keys to values; got {shortened(value)}")
        known = [field.name for field in dataclasses.fields(self.schema(content))]
        if foreign := [key for key in content if key not in known]:
            raise NasrayError(f"it {_no_option(foreign[0], known)}")
        checked_values = vars(_adapter(self.schema(content)).validate_python(dict(content), context=info.context))
        try:
            return self.kind(**checked_values)
        except ValueError as error:
            raise NasrayError(str(error)) from None


@functools.cache
def _section_type(kind: type) -> Any:
    hints, fields = get_type_hints(kind, include_extras=True), []
    for field in dataclasses.fields(kind):
        if field.init:
            copy = dataclasses.field(default=field.default, default_factory=field.default_factory)
            fields.append((field.name, _value_type(hints[field.name], field.name), copy))
    made: Any = checked(dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True))
    made.__doc__ = kind.__doc__
    return made


class Chosen(_Mapped):
    """Annotation of a field that holds the options of a named part, which is looked up when it is read.

    Args:
        registry: Registry of the parts.
        default: Part where none is named; None if one must be.
    """

    def __init__(self, registry: Registry, default: str | None = None) -> None:
        self.registry, self.default = registry, default

    def make_default(self) -> Any:
        """Return the options of the default part."""
        assert self.default is not None
        return options_of(self.registry, self.default)

    def is_chosen(self, content: Any) -> bool:
        """See `_Mapped`."""
        return self.default is not None or (isinstance(content, Mapping) and self.registry.tag in content)

    def name_in(self, content: Any) -> Any:
        """Return the name of the part that the mapping of a section chooses."""
        tag = self.registry.tag
        name = content.get(tag) if isinstance(content, Mapping) else None
        if name is None and self.default is None:
            raise CompleteError(f"{self.registry.what} needs the key {tag}. There are: {', '.join(self.registry)}")
        return self.default if name is None else name

    def schema(self, content: Any) -> Any:
        """See `_Mapped`."""
        try:
            return options_type(self.registry, self.name_in(content))
        except NasrayError as error:
            raise CompleteError(str(error)) from None

    def known_values(self, content: Mapping[Any, Any], *, is_record: bool = False) -> dict[str, Any]:
        """Return what a mapping sets; an option that cannot be null and is null is left out.

        Args:
            content: Mapping of a section.
            is_record: Whether nasray wrote it, perhaps an earlier version, which wrote all options of all parts.

        Raises:
            NasrayError: for an option that the part does not have.
        """
        schema = self.schema(content)
        hints = get_type_hints(schema, include_extras=True)
        fields = [field.name for field in dataclasses.fields(schema)]
        values = {}
        for key, value in content.items():
            if key not in fields and not (is_record and value is None):
                name = getattr(schema, self.registry.tag)
                raise CompleteError(f"{self.registry.what} {name!r} {_no_option(key, fields)}")
            if value is not None or allows_none(hints.get(key)):
                values[key] = value
        return values

    def read(self, value: Any, info: Any) -> Any:
        """See `_Mapped`."""
        if isinstance(value, PartOptions) and value.registry is self.registry:
            return value
        if not isinstance(value, Mapping):
            raise NasrayError(f"it is a mapping of keys to values, such as {{name: NAME}}; got {shortened(value)}")
        is_record = bool(info.context and info.context.get("is_record"))
        values = self.known_values(value, is_record=is_record)
        return _adapter(self.schema(value)).validate_python(values, context=info.context)


class ChosenEach(_Mapped):
    """Annotation of a field that maps names of the user's to the options of a named part each.

    Args:
        registry: Registry of the parts.
        reserved: Names that mean something else.
    """

    def __init__(self, registry: Registry, reserved: frozenset[str] = frozenset()) -> None:
        self.chosen, self.reserved = Chosen(registry), reserved

    def schema(self, content: Any) -> Any:
        """Return a dataclass with a field for every name, dashes as underscores."""
        names = [name for name in content if isinstance(name, str)] if isinstance(content, Mapping) else []
        fields = [(name.replace("-", "_"), Annotated[Any, self.chosen]) for name in names]
        return dataclasses.make_dataclass("Each", fields)

    def read(self, value: Any, info: Any) -> Any:
        """See `_Mapped`."""
        what = self.chosen.registry.what
        if not isinstance(value, Mapping):
            raise NasrayError(f"it is a mapping of names to {what}s; got {shortened(value)}")
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,63}", name) or name in self.reserved:
                raise CompleteError(
                    f"a {what} is named by letters a to z, digits and '-', at most 64, the first a letter, and not "
                    f"{', '.join(sorted(self.reserved))}; got {shortened(name)}"
                )
        typed: Any = TypedDict  # a mapping whose every key has a type: errors name the key
        each = typed("each", dict.fromkeys(value, Annotated[Any, self.chosen]))
        found: dict[str, Any] = TypeAdapter(each).validate_python(dict(value), context=info.context)
        return found

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        dump = core_schema.plain_serializer_function_ser_schema(
            lambda each: {name: dataclasses.asdict(options) for name, options in each.items()}
        )
        return core_schema.with_info_plain_validator_function(self.read, serialization=dump)


@functools.cache
def _adapter(owner: Any) -> TypeAdapter[Any]:
    return TypeAdapter(owner)


def _no_option(key: Any, known: list[str]) -> str:
    hint = did_you_mean(key, known) if isinstance(key, str) else "."
    return f"has no option {shortened(key)}{hint} It has: {', '.join(known)}"


def mapped_by(kind: Any) -> _Mapped | None:
    """Return what reads a declared type as a section; None where it is none, or a dataclass itself."""
    for item in get_args(kind):
        if isinstance(item, _Mapped):
            return item
        if get_origin(item) is Annotated and (inner := mapped_by(item)) is not None:
            return inner
    return None


def allows_none(kind: Any) -> bool:
    """Return whether a declared type includes None."""
    return type(None) in get_args(get_args(kind)[0] if get_origin(kind) is Annotated else kind)


def make_part(options: Any, **given: Any) -> Any:
    """Construct a part.

    Args:
        options: Options of the part.
        given: Arguments of the run; a part gets those that its constructor has.

    Raises:
        NasrayError: naming the part, for values that do not go together.
    """
    registry: Registry = options.registry
    part = registry.part(options.part_name)
    names = parameters(part)
    handed = {name: value for name, value in given.items() if name in names}
    values = {name: value for name, value in vars(options).items() if name in names and name not in given}
    try:
        return part(**handed, **values)
    except ValueError as error:
        raise NasrayError(f"{registry.what} {options.part_name!r}: {error}") from error
