"""Files that are whole or absent: written aside, flushed to the disk, then renamed.

What a killed process left aside is removed by the next one that writes to the same folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from nasray.cluster.processes import is_running, machine, started
from nasray.cluster.reading import shown
from nasray.spaces import NasrayError

OLD = 86_400.0
"""Seconds after which what another machine, or an earlier version, left aside is taken for dead."""

_ASIDE = re.compile(r"\..*\.(?:(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\w+)-\d+|\d+)\.tmp")
_numbers = itertools.count()
_swept: set[Path] = set()


def aside_path(path: Path) -> Path:
    """Return the name under which to write a file before it is renamed; it tells whose it is.

    The first time that a process asks, what dead ones left in the folder is removed.
    """
    if path.parent not in _swept:
        _swept.add(path.parent)
        remove_leftovers(path.parent)
    process = os.getpid()
    return path.with_name(f".{path.name[:40]}.{_machine()}-{process}-{started(process)}-{next(_numbers)}.tmp")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that are dead were writing aside in a folder; what living ones write stays."""
    with contextlib.suppress(OSError):
        for path in folder.glob(".*.tmp"):
            if (match := _ASIDE.fullmatch(path.name)) and _is_dead(path, match):
                with contextlib.suppress(OSError):
                    path.unlink()


def _is_dead(path: Path, match: re.Match[str]) -> bool:
    if match["machine"] == _machine():
        return not is_running(int(match["process"]), match["start"])
    try:
        return time.time() - path.stat().st_mtime > OLD
    except OSError:
        return False


def _machine() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Args:
        path: The file.
        content: Bytes, or a function that writes them to the open file that it is passed (large content).

    Raises:
        NasrayError: if the disk is full, the quota is spent, or the folder cannot be written.
    """
    aside = aside_path(path)
    with explained_disk_errors(path):
        try:
            with open(aside, "wb") as file:
                if callable(content):
                    _fill(file, content)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise


def check_output(path: str | Path, suffixes: Sequence[str] = ()) -> Path:
    """Return the path of a file that is to be written, before what it will hold is computed.

    Args:
        path: The file.
        suffixes: Allowed endings; any if there are none.

    Raises:
        NasrayError: if it is a folder, has another ending, or its folder is not there or cannot be written.
    """
    found = Path(path)
    if suffixes and found.suffix not in suffixes:
        raise NasrayError(f"{shown(path)} does not end in {' or '.join(suffixes)}. Choose another name with --to")
    if found.is_dir():
        raise NasrayError(f"{shown(path)} is a folder, not a file. Name a file in it with --to")
    folder = found.absolute().parent
    if not folder.is_dir():
        raise NasrayError(f"{shown(path)} cannot be written: there is no folder {shown(folder)}. Make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NasrayError(f"{shown(path)} cannot be written: you may not write to {shown(folder)}. Choose another")
    return found


def cache_folder(kind: str) -> Path:
    """Return the folder of what is kept from one run to the next: in `$NASRAY_CACHE`, or else in `~/.cache/nasray`.

    Raises:
        NasrayError: if neither the variable nor a home folder is there.
    """
    try:
        return Path(os.environ.get("NASRAY_CACHE") or "~/.cache/nasray").expanduser() / kind
    except RuntimeError as error:
        raise NasrayError(
            f"no folder to keep {kind} in: {error}. Set NASRAY_CACHE to one that can be written"
        ) from error


def to_json(content: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """Return a value as JSON: null for numbers that are not finite, plain numbers and lists for numpy's.

    Args:
        content: Mappings, sequences, strings, numbers, booleans, None, paths, numpy scalars and arrays.
        indent: Spaces a level; None writes one line.
        compact: No spaces after commas and colons.

    Raises:
        TypeError: if a value has no JSON.
    """
    separators = (",", ":") if compact else None
    options: dict[str, Any] = {"indent": indent, "separators": separators, "allow_nan": False}
    try:
        return json.dumps(content, **options)
    except (TypeError, ValueError):  # most content is plain: the outlines of a data set are millions of numbers
        return json.dumps(_plain(content), **options)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | None) or (isinstance(key, float) and math.isfinite(key)) else str(key)


def _fill(file: BinaryIO, content: Callable[[BinaryIO], object]) -> None:
    """Let a function write to a file; if the file fails, raise its own error, whatever the function makes of it."""
    # PyTorch turns a full disk into a RuntimeError about its archive.
    failures: list[OSError] = []

    class Remembering:
        def write(self, data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                failures.append(error)
                raise

        def flush(self) -> None:
            """Leave flushing to whoever opened the file."""

    try:
        content(cast(BinaryIO, Remembering()))
    except BaseException:
        if failures:
            raise failures[0] from None
        raise


@contextlib.contextmanager
def explained_disk_errors(path: Path) -> Iterator[None]:
    """Turn the errors of writing `path` into `NasrayError`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> NasrayError:
    """Return what an error of writing `path` means, and what to do."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NasrayError(
            f"disk full while writing {path}: {reason}. Nothing that was written before is lost; make room, then "
            "`nasray resume` the run"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NasrayError(f"cannot write {path}: {reason}. Choose a folder that you may write")
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not path.parent.is_dir():
        return NasrayError(
            f"cannot write {path}: its folder was removed or moved. Put it back, then `nasray resume` the run"
        )
    return NasrayError(f"cannot write {path}: {reason}. Nothing that was written before is lost; check the disk")
