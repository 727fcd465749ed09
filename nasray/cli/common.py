"""What the commands share: how they are declared, image sizes, tables."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasray.spaces import NasrayError

ARCHITECTURE = "a name from `nasray list architectures`, a JSON file, or a run's folder"
CHECKPOINT = "a checkpoint, or the folder of a training or of a run that was trained"
IMAGE_SIZE = "height x width in pixels"


def command(
    commands: Any, name: str, run: Callable[[Any], None], text: str, *, takes_overrides: bool = False
) -> argparse.ArgumentParser:
    """A command with `--json`; one that takes overrides gets all options that it does not know as `overrides`."""
    sub = commands.add_parser(name, help=text, description=text, allow_abbrev=not takes_overrides)
    sub.set_defaults(run=run, takes_overrides=takes_overrides)
    sub.add_argument("--json", action="store_true", help="print the figures as JSON")
    return sub


def run_folder(name: str) -> str:
    """Where a run of this name goes unless its user says otherwise."""
    return str(Path(os.environ.get("NASRAY_RUNS", "runs")) / name)


def parse_image_hw(text: str) -> tuple[int, int]:
    """Height and width from "800x1280", or "640" for a square."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(height, width) < 32:
        raise NasrayError(
            f"image size must be HEIGHTxWIDTH in pixels, each at least 32, such as 800x1280; got {text!r}"
        )
    return height, width


def print_json(content: Any, *, indent: int | None = 1) -> None:
    """Print the figures of a command as JSON: null for numbers that are not finite."""
    from nasray.cluster.files import to_json

    print(to_json(content, indent=indent))


def number_text(value: float | None, spec: str = ".3f") -> str:
    """Return a figure for a table; a dash for None and NaN, which mean that there is none."""
    return "-" if value is None or value != value else f"{value:{spec}}"


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns of text: the first to the left, the others to the right (both to the left where there are two)."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        left = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(left if len(head) == 2 else left[:1] + right[1:]).rstrip())


def print_values(values: dict[str, Any], indent: str = "") -> None:
    """Nested figures, a line each; long lists are left out."""
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            print_values(value, indent + "  ")
        elif not isinstance(value, list) or len(value) <= 5:
            print(f"{indent}{name:32} {value:.4f}" if isinstance(value, float) else f"{indent}{name:32} {value}")
