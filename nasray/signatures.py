"""The keyword parameters of a class, with their types, defaults and texts: what its constructor and docstring say."""

from __future__ import annotations

import functools
import inspect
import re
import types
from dataclasses import dataclass
from typing import Any, get_type_hints

from nasray.spaces import NasrayError
from nasray.spaces.references import From

REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Keyword:
    """One option of a part.

    Attributes:
        kind: Declared type.
        default: Default, or `REQUIRED`.
        text: Line of the docstring.
    """

    kind: Any
    default: Any
    text: str

    @property
    def reference(self) -> From | None:
        """Mark of an option whose value names a stage or a file; None of others."""
        return _mark(self.kind)


@functools.cache
def keywords(part: type, given: frozenset[str] = frozenset()) -> dict[str, Keyword]:
    """Return the options of a part: its constructor's parameters, and its bases' as far as `**options` hands them on.

    Args:
        part: Class.
        given: Parameters that are no options.

    Raises:
        NasrayError: for a parameter without a type, or of a type that is not known where the part is defined.
    """
    texts = _texts(part)
    return {
        name: Keyword(_declared_type(part, construct, parameter), parameter.default, texts.get(name, ""))
        for name, (construct, parameter) in parameters(part).items()
        if name not in given
    }


@functools.cache
def parameters(part: type) -> dict[str, tuple[Any, inspect.Parameter]]:
    """Return the parameters that a constructor takes by name, each with the constructor that declares it."""
    found: dict[str, tuple[Any, inspect.Parameter]] = {}
    for owner in part.__mro__:
        construct = vars(owner).get("__init__")
        if construct is None or owner is object:
            continue
        _, *parameters = inspect.signature(construct).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, (construct, parameter))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _mark(kind: Any) -> From | None:
    """Return the mark of a declared type, at whatever depth."""
    for item in (*getattr(kind, "__metadata__", ()), *getattr(kind, "__args__", ())):
        found = item if isinstance(item, From) else _mark(item)
        if found is not None:
            return found
    return None


def _texts(part: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say about its arguments; the class itself comes first."""
    texts: dict[str, str] = {}
    for owner in reversed(part.__mro__):
        texts |= attribute_texts(owner)
    return texts


def _declared_type(part: type, construct: Any, parameter: inspect.Parameter) -> Any:
    if parameter.annotation is parameter.empty:
        raise NasrayError(f"parameter {parameter.name!r} of {part.__qualname__} has no type. Annotate it")
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        return get_type_hints(holder, globalns=construct.__globals__, include_extras=True)[parameter.name]
    except NameError as error:
        raise NasrayError(
            f"the type of parameter {parameter.name!r} of {part.__qualname__} is not known at run time: {error}. "
            "Import it outside of TYPE_CHECKING"
        ) from None


def attribute_texts(owner: type) -> dict[str, str]:
    """Return what the docstring of a class says about each of its arguments and attributes."""
    found: dict[str, str] = {}
    is_inside, name = False, ""
    for line in inspect.cleandoc(vars(owner).get("__doc__") or "").splitlines():
        if line and not line.startswith(" "):
            is_inside, name = line in ("Args:", "Attributes:"), ""
        elif is_inside and (item := re.match(r" {4}(\w+): (.*)", line)):
            name = item[1] if item[1] not in found else ""
            found.setdefault(item[1], item[2].strip())
        elif name and line.startswith(" " * 5):
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
