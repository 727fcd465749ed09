"""The command line. Ray and torch are imported by the commands that need them, not before."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from nasray._version import __version__
from nasray.cli import architectures, clusters, detectors, listing, searching
from nasray.spaces import NasrayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 for a mistake that its message explains, 130 when interrupted."""
    parser = make_parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and not known.takes_overrides:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        if known.takes_overrides:
            known.overrides = rest
        known.run(known)
    except NasrayError as error:
        print(f"nasray: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        folder = getattr(known, "folder", None)
        print(f"\nnasray: interrupted. `nasray resume {folder or 'FOLDER'}` continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, the function that carries it out."""
    parser = argparse.ArgumentParser(prog="nasray", description="Neural architecture search for object detectors.")
    parser.add_argument("--version", action="version", version=f"nasray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in (searching, detectors, architectures, clusters, listing):
        part.add_commands(commands)
    return parser
