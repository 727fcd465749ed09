"""Arrays in one file that all processes of a machine map: parsed once, in memory once.

A file is named by the digest of what it was made from, so that a changed source never finds it, and holds a checksum of
every array. It is written aside and renamed; whoever comes while it is being made waits for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import cache_folder, to_json, write_atomic
from nasray.cluster.progress import say
from nasray.cluster.reading import parse_json
from nasray.spaces import NasrayError

Arrays = dict[str, NDArray[Any]]

MAGIC = b"nasray arrays 1\n"
ALIGNMENT = 64
KEPT = 16  # files; those used longest ago go
PATIENCE = 3.0  # seconds of waiting before a word is said
Header = dict[str, tuple[str, list[int], int, int]]  # dtype, shape, offset after the header, checksum


def source_digest(path: Path, version: str) -> str:
    """Return the digest of a file's content, read piece by piece, for this version of whoever reads it."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{digest[:32]}-{version}"


def shared_arrays(kind: str, name: str, make: Callable[[], Arrays | None]) -> Arrays | None:
    """Return arrays from the cache's file; make and write them if there is none.

    Args:
        kind: Folder in the cache.
        name: File name, which names the source's content and the reader's version.
        make: Called by one process at a time; the others wait and map what it wrote. None is not kept.

    Returns:
        Read-only arrays that are in memory once for all processes; arrays of this process alone where the cache cannot
        be written, which is said.
    """
    try:
        path = cache_folder(kind) / f"{name}.arrays"
    except NasrayError as error:
        say(f"every process reads {kind} by itself, which takes time and memory: {error}")
        return make()
    if (found := _mapped(path)) is not None:
        return found
    failure: Exception | None = None
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(path.parent / "lock", f"another process that reads {kind}"))
        except OSError as error:
            failure = error
        if (found := _mapped(path)) is not None:
            return found
        made = make()
        if failure is None and made is not None:
            try:
                write_atomic(path, lambda file: _write(file, made))
                _forget_old(path.parent)
            except (NasrayError, OSError) as error:
                failure = error
    if failure is not None:
        say(
            f"every process reads {kind} by itself, which takes time and memory: cannot write the cache {path.parent} "
            f"({failure}). Set NASRAY_CACHE to a folder that can be written"
        )
        return made
    return found if (found := _mapped(path)) is not None else made


def _mapped(path: Path) -> Arrays | None:
    """Return the arrays of a file; None if it is not there, or damaged."""
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with contextlib.suppress(OSError):
            os.utime(path)
        return _read(content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(content: mmap.mmap) -> Arrays:
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError("not a file of arrays")
    begin = len(MAGIC) + 8
    end = begin + int.from_bytes(content[len(MAGIC) : begin], "little")
    header: Header = parse_json(content[begin:end], "the header")
    first = end + -end % ALIGNMENT
    arrays = {}
    for name, (dtype, shape, offset, checksum) in header.items():
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(content, dtype=np.dtype(dtype), count=count, offset=first + offset) if count else None
        array = np.zeros(shape, dtype=np.dtype(dtype)) if array is None else array.reshape(shape)
        if zlib.crc32(array.data) != checksum:
            raise ValueError(f"array {name} is damaged")
        arrays[name] = array
    return arrays


def _write(file: BinaryIO, arrays: Arrays) -> None:
    header: Header = {}
    offset = 0
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in whole.items():
        header[name] = (array.dtype.str, list(array.shape), offset, zlib.crc32(array.data))
        offset += array.nbytes + -array.nbytes % ALIGNMENT
    text = to_json(header).encode()
    start = MAGIC + len(text).to_bytes(8, "little") + text
    file.write(start + bytes(-len(start) % ALIGNMENT))
    for array in whole.values():
        if array.nbytes:
            file.write(array.reshape(-1).view(np.uint8).data)
        file.write(bytes(-array.nbytes % ALIGNMENT))


def _forget_old(folder: Path) -> None:
    """Remove the files that were not used for longest. Whoever maps one keeps it."""
    files = sorted(folder.glob("*.arrays"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[KEPT:]:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that the system releases with the process."""
    import fcntl

    with open(path, "a") as file:
        begin, said = time.monotonic(), False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said and time.monotonic() - begin > PATIENCE:
                    say(f"waiting for {what}")
                    said = True
                time.sleep(0.1)
            except OSError:  # a disk without locks: everyone for itself
                break
        yield


# ---- text --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Texts(Sequence[str]):
    """Many texts in one array instead of an object each.

    Attributes:
        content: UTF-8, one after the other.
        offsets: (N + 1,) where each begins and the last ends.
    """

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Store texts."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), np.cumsum([0, *map(len, parts)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        content = self.content[self.offsets[position] : self.offsets[position + 1]]
        return content.tobytes().decode("utf-8", "surrogateescape")
