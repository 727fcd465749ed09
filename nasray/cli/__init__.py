"""The command line. Ray and torch are imported by the commands that need them, not before."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from nasray._version import __version__
from nasray.cli import architectures, clusters, completion, detectors, listing, results, searching
from nasray.cli.parsing import Parser, parse_arguments
from nasray.cluster.interrupts import closing, exit_code, ignore_signals, interruptible
from nasray.cluster.reading import shown
from nasray.spaces import NasrayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    It is 0; 2 for a mistake that its message explains; 130, 143 or 129 when interrupted by Ctrl-C, SIGTERM or SIGHUP.
    """
    with interruptible():
        known = None
        try:
            known = parse_arguments(make_parser(), sys.argv[1:] if arguments is None else arguments)
            known.run(known)
        except NasrayError as error:
            print(f"nasray: {one_line(str(error))}", file=sys.stderr)
            return 2
        except KeyboardInterrupt as interrupt:
            with closing():
                advise = getattr(known, "when_interrupted", None)
                advice = advise(known) if advise else None
                print("\nnasray: interrupted" + (f". {advice}" if advice else ""), file=sys.stderr, flush=True)
                return exit_code(interrupt)
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:  # of a path that nothing asked about before: too long, no permission, a loop
            if error.filename is None:
                raise
            reason = error.strerror or type(error).__name__
            print(f"nasray: {shown(error.filename)}: {reason}. Check the path and its permissions", file=sys.stderr)
            return 2
        return 0


def command_line() -> NoReturn:
    """Run the command of this process and end with its exit status; signals that come later change nothing."""
    status = main()
    if status > 128:
        ignore_signals()
    sys.exit(status)


def one_line(text: str) -> str:
    """Return a message as one line of characters that can be printed."""
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(c if c.isprintable() else "\ufffd" for c in joined)


def make_parser() -> Parser:
    """Return the parser of all commands; each sets `run`, the function that carries it out."""
    parser = Parser(prog="nasray", description="Neural architecture search for object detectors.")
    parser.add_argument("--version", action="version", version=f"nasray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for part in (searching, results, detectors, architectures, clusters, listing):
        part.add_commands(commands)
    completion.add_commands(commands, parser)
    return parser
