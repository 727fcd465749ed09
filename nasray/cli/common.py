"""What the commands share: how they are declared, image sizes, tables."""

from __future__ import annotations

import math
import os
import shlex
import textwrap
from collections.abc import Callable, Iterable
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.cli.parsing import Parser, whole
from nasray.cluster.files import to_json
from nasray.cluster.reading import shown
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.overrides import OptionRow

ARCHITECTURE = "a name from `nasray list architectures`, a JSON file, or the folder of a run or a training"
CHECKPOINT = "a checkpoint, or the folder of a training, or of a run with a trained winner or supernet"
WITHIN = "of a run, --budget.gmacs 20 takes the best within it (any cost, min_gmacs too)"
IMAGE_SIZE = "HEIGHTxWIDTH in pixels"


def command(
    commands: Any,
    name: str,
    run: Callable[[Any], None],
    text: str,
    *,
    takes_overrides: bool = False,
    when_interrupted: Callable[[Any], str | None] | None = None,
) -> Parser:
    """Declare a command with `--json`.

    Args:
        commands: Where it is declared.
        name: Its name.
        run: Function that carries it out.
        text: Its help.
        takes_overrides: Whether options that it does not know are keys, which it gets as `overrides`.
        when_interrupted: Advice after Ctrl-C, or None where the command is simply given again.
    """
    sub: Parser = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(run=run, takes_overrides=takes_overrides, parser=sub, when_interrupted=when_interrupted)
    sub.add_argument("--json", action="store_true", help="print the figures as JSON")
    return sub


def resume_hint(known: Any) -> str | None:
    """Return how an interrupted search or training is continued; None if it was interrupted before it began."""
    folder = Path(known.folder or "")
    if known.folder and any((folder / name).is_file() for name in ("experiment.yaml", "recipe.yaml")):
        return f"`nasray resume {shlex.quote(known.folder)}` continues"
    return None


def run_folder(name: str) -> str:
    """Return where a run of this name goes unless its user says otherwise."""
    return str(Path(os.environ.get("NASRAY_RUNS", "runs")).expanduser() / name)


def check_folder(path: str | Path, option: str = "--folder") -> None:
    """Refuse a folder that is a file, or that cannot be made or written.

    Args:
        path: The folder.
        option: What chooses another.

    Raises:
        NasrayError: naming it.
    """
    folder = Path(path).absolute()
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    if not existing.is_dir():
        raise NasrayError(f"{shown(existing)} is a file, not a folder. Choose another with {option}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise NasrayError(f"folder {shown(existing)} cannot be written. Choose another with {option}")


def check_device(name: str) -> None:
    """Refuse `cuda` where PyTorch finds no GPU, before anything is read or built.

    Raises:
        NasrayError: if there is none.
    """
    if name == "cuda":
        from nasray.devices import choose_device

        choose_device(name)


def add_setting(sub: Parser, before: str = "") -> None:
    """Declare what a latency depends on beside the network and its images; `given_setting` returns what is given."""
    sub.add_argument("--batch-size", type=whole(1, 65_536), help=f"{before}images in one pass (default 1)")
    sub.add_argument("--device", choices=["auto", "cpu", "cuda"], help=f"{before}device (default auto)")
    text = f"{before}data type (default float32; int8 where the runtime has it)"
    sub.add_argument("--dtype", choices=["float32", "float16", "bfloat16", "int8"], help=text)
    text = f"{before}what runs the network; a name from `nasray list runtimes` (default eager, which is PyTorch)"
    sub.add_argument("--runtime", help=text)
    text = f"{before}threads that compute on a CPU (default: as many as PyTorch takes)"
    sub.add_argument("--threads", type=whole(1, 1024), help=text)


def given_setting(known: Any) -> dict[str, Any]:
    """Return the options of `add_setting` that are given, as keywords of `Setting.here`."""
    given = {name: getattr(known, name) for name in ("batch_size", "device", "dtype", "runtime", "threads")}
    return {name: value for name, value in given.items() if value is not None}


def print_options(value: Any, as_json: bool) -> None:
    """Print the options of a configuration: the name, the value now, and what it is."""
    from nasray.overrides import option_texts

    options = option_texts(value)
    if as_json:
        print(to_json({name: {"value": now, "text": text} for name, (now, text) in options.items()}, indent=1))
        return
    for name, (now, text) in options.items():
        _print_option(name, "" if now is None else to_json(now), text)


def print_options_of(rows: Iterable[OptionRow]) -> None:
    """Print the options of a part: the key, the default, and what it is."""
    for row in rows:
        default = "" if row.default is None else to_json(row.default)
        _print_option(row.key, "(required)" if row.is_required else default, row.text)


def _print_option(name: str, value: str, text: str) -> None:
    print(f"{name} {value}".rstrip())
    print(textwrap.fill(text, 116, initial_indent="    ", subsequent_indent="    "))


def print_json(content: Any, *, indent: int | None = 1) -> None:
    """Print the figures of a command as JSON: null for numbers that are not finite."""
    from nasray.cluster.files import to_json

    print(to_json(content, indent=indent))


def number_text(value: float | None, spec: str = ".3f") -> str:
    """Return a figure for a table; a dash for None and NaN, which mean that there is none."""
    return "-" if value is None or value != value else f"{value:{spec}}"


def rounded_up(value: float | None, digits: int = 5) -> str:
    """Return a cost for a table, rounded up, so that as a bound it admits what has it; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{Context(prec=digits, rounding=ROUND_CEILING).create_decimal(repr(float(value))):.{digits}g}"


def print_table(head: list[str], rows: list[list[str]], *, is_text: bool = False) -> None:
    """Print columns: the first to the left, the others to the right (all to the left where it is text, or two)."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        left = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(left if is_text or len(head) == 2 else left[:1] + right[1:]).rstrip())


def print_values(values: dict[str, Any], indent: str = "") -> None:
    """Print nested figures, a line each; leave long lists out."""
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            print_values(value, indent + "  ")
        elif not isinstance(value, list) or len(value) <= 5:
            text = number_text(value, ".4f") if value is None or isinstance(value, float) else str(value)
            print(f"{indent}{name:32} {text}")
