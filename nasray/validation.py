"""Validation of configurations: frozen dataclasses, and one message a mistake in our words."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened

T = TypeVar("T")
FORMER_KEYS = {"optimiser": "optimizer", "colour": "color", "minimise": "minimize", "image_size": "image_hw"}
"""Keys of runs, trainings and checkpoints of earlier versions, and what they are called now."""
MOST_ERRORS = 5
"""Mistakes that one message names."""


class CompleteError(NasrayError):
    """A mistake in a configuration whose message names the key itself."""


def validate(adapter: TypeAdapter[T], owner: type[T], content: Any, source: str, *, is_record: bool = False) -> T:
    """Return the configuration that nested mappings describe.

    Args:
        adapter: Adapter of `owner`.
        owner: Dataclass.
        content: Content of a YAML file.
        source: Name of the content in errors.
        is_record: Whether nasray wrote the content, perhaps an earlier version: former keys are read by their present
            names, and empty options that a part does not have are left out.

    Raises:
        NasrayError: naming the keys that are wrong and what is allowed.
    """
    if not isinstance(content, dict):
        raise NasrayError(f"{source} must hold a mapping of keys to values, got {shortened(content)}")
    try:
        return adapter.validate_python(
            with_current_keys(content) if is_record else content, context={"is_record": is_record}
        )
    except ValidationError as error:
        raise NasrayError(f"{source}: {reasons(error, owner)}") from None


def with_current_keys(content: Any) -> Any:
    """Return what a run, a training or a checkpoint of an earlier version holds, with the keys of this version."""
    if isinstance(content, dict):
        current = {FORMER_KEYS.get(key, key): with_current_keys(value) for key, value in content.items()}
        if isinstance(paths := current.get("paths"), dict) and "name" not in paths:  # of a recipe
            current["paths"] = {"name": "windows", **paths} if paths.get("windows") else {"name": "uniform"}
        return current
    return content


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def checked(owner: type[T]) -> type[T]:
    """Return a class as a frozen dataclass whose values are validated, with one message wherever they are from.

    Made from Python or by `dataclasses.replace`, it raises `NasrayError` as `validate` does; the message begins with
    the class's attribute `called`, or its name.
    """
    made: Any = pydantic_dataclass(frozen=True, config={"extra": "forbid"})(owner)
    construct = made.__init__
    called = getattr(owner, "called", owner.__name__)

    @functools.wraps(construct)
    def construct_in_our_words(self: Any, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            # What goes together is said in a line that names its keys; of a value by itself one must know of what.
            about = "" if all(not item["loc"] for item in error.errors()) else f"{called}: "
            raise NasrayError(f"{about}{reasons(error, made)}") from None

    made.__init__ = construct_in_our_words
    checked_type: type[T] = made
    return checked_type


def reasons(error: ValidationError, owner: Any) -> str:
    """Return the mistakes that pydantic found in a configuration as one text."""
    found = [_explain(item, owner) for item in error.errors()]
    more = f"; and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    return "; ".join(found[:MOST_ERRORS]) + more


def _explain(item: Any, owner: Any) -> str:
    """Return one mistake in our words, without what pydantic says for programmers."""
    path = [str(part) for part in item["loc"] if part != getattr(owner, "__name__", None)]
    where, given, kind = ".".join(path), shortened(item.get("input")), item["type"]
    if isinstance(inner := item.get("ctx", {}).get("error"), NasrayError):
        if isinstance(inner, CompleteError) or not where:
            return str(inner)
        return f"{where} {text[3:]}" if (text := str(inner)).startswith("it ") else f"{where}: {text}"
    if kind in ("unexpected_keyword_argument", "extra_forbidden") and owner is not None:
        for part in path[:-1]:
            hint = get_type_hints(owner).get(part) if dataclasses.is_dataclass(owner) else None
            owner = next((part for part in (hint, *get_args(hint)) if dataclasses.is_dataclass(part)), owner)
        known = list(owner.__dataclass_fields__)
        return f"unknown key {shortened(where)}{did_you_mean(path[-1], known)} Allowed here: {', '.join(known)}"
    if kind == "literal_error" and (known := re.findall(r"'([^']*)'", item["ctx"]["expected"])):
        hint = did_you_mean(item["input"], known) if isinstance(item.get("input"), str) else "."
        return f"{where}: {given} is not one of {', '.join(known)}{hint}".removesuffix(".")
    if kind.startswith("dataclass"):
        return f"{where}: Input should be a mapping of keys to values, got {given}"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "invalid_key":
        return f"key {shortened(item['loc'][-1])} is not a word: put it in quotes"
    return f"{where}: {item['msg'].replace('tuple', 'list').replace('Tuple', 'List')}, got {given}"
