"""Configurations from YAML: frozen dataclasses, unknown keys refused with a suggestion, one message a mistake."""

from __future__ import annotations

import dataclasses
import difflib
import platform
import subprocess
from collections.abc import Iterable
from importlib import resources as package_files
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from nasray._version import __version__
from nasray.spaces import NasrayError


def shipped_names(package: str) -> list[str]:
    """Names of the YAML files that come in a package, such as "nasray.experiments"."""
    files = (item.name for item in package_files.files(package).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def shipped_texts(package: str) -> dict[str, str]:
    """Name and first comment line of each."""
    folder = package_files.files(package)
    return {
        name: (folder / f"{name}.yaml").read_text().splitlines()[0].removeprefix("# ")
        for name in shipped_names(package)
    }


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
    if is_path(name_or_path):
        path = Path(name_or_path)
        if not path.is_file():
            raise NasrayError(f"no {what} file {name_or_path}. {shipped}")
        text, default_name = path.read_text(), path.stem
    elif name_or_path in shipped_names(package):
        text, default_name = (package_files.files(package) / f"{name_or_path}.yaml").read_text(), name_or_path
    else:
        raise NasrayError(
            f"unknown {what} {name_or_path!r}{did_you_mean(name_or_path, shipped_names(package))} {shipped}"
        )
    content = read_mapping(text, name_or_path)
    content.setdefault("name", default_name)
    return content


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML text holds.

    Raises:
        NasrayError: if it is no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise NasrayError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise NasrayError(f"{source} must hold a mapping of keys to values, got {type(content).__name__}")
    return content


def validate(adapter: TypeAdapter[Any], owner: type, content: Any, source: str) -> Any:
    """The configuration that nested mappings describe.

    Args:
        adapter: of `owner`.
        owner: the dataclass.
        content: from YAML.
        source: names the content in errors.

    Raises:
        NasrayError: naming every key that is wrong and what is allowed.
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        raise NasrayError(f"{source}: " + "; ".join(_explain(item, owner) for item in error.errors())) from error


def _explain(item: Any, owner: Any) -> str:
    if isinstance(inner := item.get("ctx", {}).get("error"), NasrayError):
        return str(inner)
    path = [str(part) for part in item["loc"] if part != owner.__name__]
    where = ".".join(path)
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        for part in path[:-1]:
            kind = get_type_hints(owner).get(part) if dataclasses.is_dataclass(owner) else None
            owner = next((part for part in (kind, *get_args(kind)) if dataclasses.is_dataclass(part)), owner)
        known = list(owner.__dataclass_fields__)
        return f"unknown key {where!r}{did_you_mean(path[-1], known)} Allowed here: {', '.join(known)}"
    return f"{where}: {item['msg']}, got {item.get('input')!r}"


def override(default: Any, arguments: list[str], program: str) -> Any:
    """The same configuration with what the command line changes."""
    import tyro

    if not arguments:
        return default
    try:
        return tyro.cli(type(default), default=default, args=arguments, prog=program)
    except ValidationError as error:
        raise NasrayError("; ".join(_explain(item, type(default)) for item in error.errors())) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to "unknown ...", ending in a full stop."""
    close = difflib.get_close_matches(word, list(known), n=1)
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
