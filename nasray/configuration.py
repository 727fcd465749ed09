"""Configurations from YAML: frozen dataclasses, unknown keys refused with a suggestion, one message a mistake."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import resources as package_files
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from nasray._version import __version__
from nasray.cluster.reading import decode_text, parse_yaml, read_text, shown
from nasray.options import check_text, override
from nasray.spaces import NasrayError
from nasray.spaces.ranges import shortened

T = TypeVar("T")
FORMER_KEYS = {"optimiser": "optimizer", "colour": "color", "minimise": "minimize"}
"""Keys of runs, trainings and checkpoints of earlier versions, and what they are called now."""
MOST_ERRORS = 5
"""Mistakes that one message names."""


def shipped_names(package: str) -> list[str]:
    """Names of the YAML files that come in a package, such as "nasray.experiments"."""
    files = (item.name for item in package_files.files(package).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def shipped_texts(package: str) -> dict[str, str]:
    """Name and first comment line of each."""
    return {name: _shipped(package, name).splitlines()[0].removeprefix("# ") for name in shipped_names(package)}


def _shipped(package: str, name: str) -> str:
    return decode_text((package_files.files(package) / f"{name}.yaml").read_bytes(), name)


def is_path(name: str) -> bool:
    """Whether a name means a YAML file rather than one that comes with nasray."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def load_content(name_or_path: str, package: str, what: str) -> dict[str, Any]:
    """The mapping in a YAML file, or in one that comes in `package`; its `name` defaults to the file's.

    Raises:
        NasrayError: if there is none, or it holds no mapping; `what` names the kind of thing, such as "experiment".
    """
    shipped = (
        f"{what.capitalize()}s that come with nasray: {', '.join(shipped_names(package))}. "
        "A path to a YAML file also does"
    )
    check_text(name_or_path)
    if is_path(name_or_path):
        path = Path(name_or_path)
        if not path.exists():
            raise NasrayError(f"no {what} file {shown(path)}. {shipped}")
        text, default_name = read_text(path), path.stem
    elif name_or_path in shipped_names(package):
        text, default_name = _shipped(package, name_or_path), name_or_path
    else:
        raise NasrayError(
            f"unknown {what} {name_or_path!r}{did_you_mean(name_or_path, shipped_names(package))} {shipped}"
        )
    content = read_mapping(text, shown(name_or_path))
    content.setdefault("name", default_name)
    return content


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Raises:
        NasrayError: if it is no YAML, or no mapping of words.
    """
    content = parse_yaml(text, source)
    if not isinstance(content, dict):
        got = "nothing" if content is None else shortened(content)
        raise NasrayError(f"{source} must hold a mapping of keys to values, got {got}")
    return content


def validate(adapter: TypeAdapter[Any], owner: type, content: Any, source: str) -> Any:
    """The configuration that nested mappings describe.

    Args:
        adapter: of `owner`.
        owner: the dataclass.
        content: from YAML.
        source: names the content in errors.

    Raises:
        NasrayError: naming the keys that are wrong and what is allowed.
    """
    if not isinstance(content, dict):
        raise NasrayError(f"{source} must hold a mapping of keys to values, got {shortened(content)}")
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise NasrayError(f"{source}: {_reasons(error, owner)}") from None


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def checked(owner: type[T]) -> type[T]:
    """Return a class as a frozen dataclass whose values are validated, with one message wherever they are from.

    Made from Python or by `dataclasses.replace`, it raises `NasrayError` as `validate` does.
    """
    made: Any = pydantic_dataclass(frozen=True, config={"extra": "forbid"})(owner)
    construct = made.__init__

    @functools.wraps(construct)
    def construct_in_our_words(self: Any, *args: Any, **values: Any) -> None:
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            raise NasrayError(f"{owner.__name__}: {_reasons(error, made)}") from None

    made.__init__ = construct_in_our_words
    return made


def _reasons(error: ValidationError, owner: Any) -> str:
    found = [_explain(item, owner) for item in error.errors()]
    more = f"; and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    return "; ".join(found[:MOST_ERRORS]) + more


def _explain(item: Any, owner: Any) -> str:
    """One mistake in our words, without what pydantic says for programmers."""
    path = [str(part) for part in item["loc"] if part != getattr(owner, "__name__", None)]
    where, given, kind = ".".join(path), shortened(item.get("input")), item["type"]
    if isinstance(inner := item.get("ctx", {}).get("error"), NasrayError):
        return f"{where}: {inner}".replace(": it is ", " is ", 1) if where else str(inner)
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


def overridden(
    adapter: TypeAdapter[Any], owner: type, content: dict[str, Any], arguments: Sequence[str], source: str,
    **known: Any,
) -> Any:  # fmt: skip
    """Return the configuration that nested mappings describe, with what the command line changes.

    What is left out since another part is named is said on stderr; see `nasray.options.override`, which takes `known`.

    Raises:
        NasrayError: as `validate`, and for an option that there is not.
    """
    content, notes = override(content, arguments, owner, **known)
    found = validate(adapter, owner, content, source)
    for note in notes:
        print(f"nasray: {note}", file=sys.stderr)
    return found


def with_current_keys(content: Any) -> Any:
    """Return what a run, a training or a checkpoint of an earlier version holds, with the keys of this version."""
    if isinstance(content, dict):
        return {FORMER_KEYS.get(key, key): with_current_keys(value) for key, value in content.items()}
    return content


def install_command(extra: str) -> str:
    """Return the command that installs an extra of nasray's: of a checkout where this is one, else of the package."""
    checkout = Path(__file__).resolve().parents[1]
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "cluster").is_dir()
    return f'uv pip install -e ".[{extra}]" (in {checkout})' if is_checkout else f'pip install "nasray[{extra}]"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to "unknown ...", ending in a full stop."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def given_options(options: Any) -> dict[str, Any]:
    """The options of a named part that are set, without its name."""
    return {name: value for name, value in vars(options).items() if name != "name" and value is not None}


def refuse_foreign(options: Iterable[str], known: Iterable[str], whose: str) -> None:
    """Raise `NasrayError` for the first option that is not among those known, naming these."""
    for name in options:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise NasrayError(f"{whose} has no option {name!r}; it has: {allowed}. Remove it, or choose another")


def describe_versions() -> dict[str, str]:
    """Versions of nasray, Python and what they compute with."""
    others = {name: version(name) for name in ("ray", "torch", "torchvision", "numpy", "optuna")}
    return {"nasray": __version__, "python": platform.python_version(), **others}


def git_revision() -> str | None:
    """The revision of the checkout that this code is in; None if it is in none."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
