"""Files that are whole or absent: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from nasray.cluster.reading import shown
from nasray.spaces import NasrayError


def write_atomic(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.

    Args:
        path: the file.
        content: its bytes, or a function that writes them to the open file it is given (large content).

    Raises:
        NasrayError: if the disk is full, the quota is spent, or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Return the folder of what is kept from one run to the next: in `$NASRAY_CACHE`, or else in `~/.cache/nasray`."""
    base = os.environ.get("NASRAY_CACHE")
    return (Path(base).expanduser() if base else Path.home() / ".cache" / "nasray") / kind


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
    """Turn what a user can mend of the errors of writing `path` into `NasrayError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NasrayError(
                f"disk full while writing {path}: {error.strerror}. Nothing that was written before is lost; "
                "make room, then `nasray resume` the run"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise NasrayError(f"cannot write {path}: {error.strerror}. Choose a folder that you may write") from error
        raise
