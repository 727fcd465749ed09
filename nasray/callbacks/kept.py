"""What callbacks keep in a run's folder, so that a further session goes on where an earlier one was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.reading import read_yaml
from nasray.cluster.records import Kept, read_record

FOLDER = "callbacks"
"""Folder within that of a run."""


def kept_folder(run: str) -> Path:
    """Return the folder of what callbacks keep, which is there then."""
    path = Path(run, FOLDER)
    path.mkdir(parents=True, exist_ok=True)
    return path


def read_id(run: str, name: str) -> str | None:
    """Return the id that a callback of a name kept; None before it kept one.

    Raises:
        NasrayError: if the file is damaged.
    """
    path = Path(run, FOLDER, f"{name}.json")
    remedy = "Remove it: what the callback sends from now on is a run of its own there"
    return str(read_record(path, Kept, remedy)["id"]) if path.is_file() else None


def keep_id(run: str, name: str, value: str) -> None:
    """Keep an id for a callback of a name.

    Raises:
        NasrayError: if the disk is full.
    """
    write_atomic(kept_folder(run) / f"{name}.json", to_json({"id": value}).encode())


def settings(run: str) -> dict[str, Any]:
    """Return what a run or a training was begun with: the content of its experiment.yaml or recipe.yaml."""
    for name in ("experiment.yaml", "recipe.yaml"):
        if (path := Path(run, name)).is_file():
            return dict(read_yaml(path))
    return {}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as texts by dotted names; what is not set is left out."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = str(value)
    return found
