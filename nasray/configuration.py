"""Configurations from YAML files and the command line; what comes with nasray; versions."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import resources as package_files
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from nasray._version import __version__
from nasray.cluster.reading import decode_text, parse_yaml, read_text, shown
from nasray.overrides import override
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened
from nasray.validation import validate
from nasray.values import check_text

T = TypeVar("T")


def shipped_names(package: str) -> list[str]:
    """Return the names of the YAML files that come in a package, such as "nasray.experiments"."""
    files = (item.name for item in package_files.files(package).iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def shipped_texts(package: str) -> dict[str, str]:
    """Name and first comment line of each."""
    return {name: _shipped(package, name).splitlines()[0].removeprefix("# ") for name in shipped_names(package)}


def _shipped(package: str, name: str) -> str:
    return decode_text((package_files.files(package) / f"{name}.yaml").read_bytes(), name)


def is_path(name: str) -> bool:
    """Return whether a name means a YAML file rather than one that comes with nasray."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def load_content(name_or_path: str, package: str, what: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, or in one that comes in `package`; its `name` defaults to the file's.

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
    """Return the mapping that a YAML text holds.

    Raises:
        NasrayError: if it is no YAML, or no mapping of words.
    """
    content = parse_yaml(text, source)
    if not isinstance(content, dict):
        got = "nothing" if content is None else shortened(content)
        raise NasrayError(f"{source} must hold a mapping of keys to values, got {got}")
    return content


def overridden(
    adapter: TypeAdapter[T],
    owner: type[T],
    content: dict[str, Any],
    arguments: Sequence[str],
    source: str,
    declared: Iterable[str] = (),
) -> T:
    """Return the configuration that nested mappings describe, with what the command line changes.

    What is left out since another part is named is said on stderr; see `nasray.overrides.override`.

    Raises:
        NasrayError: as `validate`, and for an option that there is not.
    """
    content, notes = override(content, arguments, owner, declared=declared)
    found = validate(adapter, owner, content, source)
    print_notes(notes)
    return found


def print_notes(notes: Iterable[str]) -> None:
    """Say on stderr what `override` left out."""
    for note in notes:
        print(f"nasray: {note}", file=sys.stderr)


def install_command(extra: str) -> str:
    """Return the command that installs an extra of nasray's: of a checkout where this is one, else of the package."""
    checkout = Path(__file__).resolve().parents[1]
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "cluster").is_dir()
    return f'uv pip install -e ".[{extra}]" (in {checkout})' if is_checkout else f'pip install "nasray[{extra}]"'


def describe_versions() -> dict[str, str]:
    """Return the versions of nasray, Python and what they compute with."""
    others = {name: version(name) for name in ("ray", "torch", "torchvision", "numpy", "optuna")}
    return {"nasray": __version__, "python": platform.python_version(), **others}


def git_revision() -> str | None:
    """Return the revision of the checkout that this code is in; None if it is in none."""
    try:
        here = Path(__file__).parent
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
