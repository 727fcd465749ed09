"""Arrays in one file that all processes of a machine map: parsed once, in memory once.

A file is named by the digest of what it was made from, so that a changed source never finds it, and holds a checksum of
every array. It is written aside and renamed; whoever comes while it is being made waits for it, until whoever
makes it is done or dead. Files that a process maps stay; of the others those used longest ago go.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import cache_folder, remove_leftovers, to_json, write_atomic
from nasray.cluster.progress import say
from nasray.cluster.reading import parse_json
from nasray.spaces import NasrayError

Arrays = dict[str, NDArray[Any]]
Parts = Iterable[tuple[str, NDArray[Any]]]

MAGIC = b"nasray arrays 2\n"
ALIGNMENT = 64
KEPT = 16  # files; those used longest ago go
PATIENCE = 3.0  # seconds of waiting before a word is said
Header = dict[str, tuple[str, list[int], int, int]]  # dtype, shape, offset, checksum


class CacheError(NasrayError):
    """A file that cannot be kept in the cache."""


class _NothingToKeepError(Exception):
    """What was made is not to be kept."""


@dataclass(frozen=True)
class Room:
    """Bytes of disk for the files of a folder.

    Attributes:
        needed: Size of the file to come.
        most: Size of all files of the folder together.
    """

    needed: int
    most: int


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
    made: list[Arrays | None] = []

    def parts() -> Parts:
        made.append(make())
        if made[0] is None:
            raise _NothingToKeepError
        return made[0].items()

    try:
        return streamed_arrays(kind, name, parts)
    except _NothingToKeepError:
        return None
    except CacheError as error:
        say(f"every process reads {kind} by itself, which takes time and memory: {error}")
        return made[0] if made else make()


def streamed_arrays(kind: str, name: str, parts: Callable[[], Parts], room: Room | None = None) -> Arrays:
    """Return arrays from the cache's file; write them one after the other if there is none.

    Args:
        kind: Folder in the cache.
        name: File name, which names the source's content and the reader's version.
        parts: Function that makes names and arrays, of which one at a time is in memory. It is called by one process
            at a time; the others wait and map what it wrote.
        room: Disk for it; without, the last 16 files of the folder are kept.

    Returns:
        Read-only arrays that are in memory once for all processes.

    Raises:
        CacheError: if the file cannot be written. What `parts` raises is raised as it is.
    """
    try:
        path = cache_folder(kind) / f"{name}.arrays"
    except NasrayError as error:
        raise CacheError(str(error)) from error
    if (found := _mapped(path)) is not None:
        return found
    source = _Source(parts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock"), f"another process that reads {kind}"):
            if (found := _mapped(path)) is not None:
                return found
            _make_room(path.parent, room)
            write_atomic(path, lambda file: _write(file, source))
    except (NasrayError, OSError) as error:
        if source.error is not None:
            raise source.error from None
        if isinstance(error, CacheError):
            raise
        raise CacheError(
            f"cannot write the cache {path.parent} ({error}). Set NASRAY_CACHE to a folder that can be written"
        ) from error
    if (found := _mapped(path)) is None:
        raise CacheError(f"{path} is not what was just written to it. Check the disk, or set NASRAY_CACHE to another")
    return found


class _Source:
    """Parts that remember how they failed: a mistake in the data is not one of the cache."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self.parts = parts
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[str, NDArray[Any]]]:
        try:
            yield from self.parts()
        except Exception as error:
            self.error = error
            raise


def _mapped(path: Path) -> Arrays | None:
    """Return the arrays of a file; None if it is not there, or damaged. While they are mapped, nobody removes it."""
    import fcntl

    try:
        with open(path, "rb") as file:
            with contextlib.suppress(OSError):  # a disk without locks, or somebody is about to remove it
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held by the mapping, which copies the handle
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with contextlib.suppress(OSError):
            os.utime(path)
        return _read(content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(content: mmap.mmap) -> Arrays:
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError("not a file of arrays")
    end = len(content) - 8
    begin = end - int.from_bytes(content[end:], "little")
    if begin < len(MAGIC):
        raise ValueError("cut off")
    header: Header = parse_json(content[begin:end], "the header")
    arrays = {}
    for name, (dtype, shape, offset, checksum) in header.items():
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(content, dtype=np.dtype(dtype), count=count, offset=offset) if count else None
        array = np.zeros(shape, dtype=np.dtype(dtype)) if array is None else array.reshape(shape)
        if zlib.crc32(array.data) != checksum:
            raise ValueError(f"array {name} is damaged")
        arrays[name] = array
    return arrays


def _write(file: BinaryIO, parts: Parts) -> None:
    """Write the arrays, then where each is, then how long that is."""
    header: Header = {}
    file.write(MAGIC + bytes(-len(MAGIC) % ALIGNMENT))
    offset = ALIGNMENT
    for name, array in parts:
        whole = np.ascontiguousarray(array)
        header[name] = (array.dtype.str, list(array.shape), offset, zlib.crc32(whole.data))
        if whole.nbytes:
            file.write(whole.reshape(-1).view(np.uint8).data)
        file.write(bytes(-whole.nbytes % ALIGNMENT))
        offset += whole.nbytes + -whole.nbytes % ALIGNMENT
    text = to_json(header).encode()
    file.write(text + len(text).to_bytes(8, "little"))


def _make_room(folder: Path, room: Room | None) -> None:
    """Remove what was not used for longest and what dead processes left, so that one more file fits.

    Raises:
        CacheError: if there is no room for it even so.
    """
    remove_leftovers(folder)
    _remove_oldest(folder, room)
    if room is None:
        return
    taken = sum(size for _, size, _ in _files(folder))
    if taken + room.needed > room.most:
        raise CacheError(
            f"{room.needed / 2**30:.2f} GiB in {folder} would be more than {room.most / 2**30:g} GiB with the "
            f"{taken / 2**30:.2f} GiB that are in use"
        )
    free = shutil.disk_usage(folder).free
    if room.needed > free / 2:
        raise CacheError(
            f"{room.needed / 2**30:.2f} GiB in {folder} would be more than half of the {free / 2**30:.2f} GiB that are "
            "free. Set NASRAY_CACHE to a folder on a larger disk"
        )


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Return when each file was used last, its size, and the file; the one used last first."""
    found = []
    for path in folder.glob("*.arrays"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return sorted(found, reverse=True)


def _remove_oldest(folder: Path, room: Room | None) -> None:
    """Remove the files that were not used for longest, as many as has to be, but for those that a process maps."""
    files = _files(folder)
    excess = len(files) + 1 - KEPT if room is None else sum(size for _, size, _ in files) + room.needed - room.most
    if room is not None and room.needed > room.most:
        return
    for _, size, path in reversed(files):
        if excess <= 0:
            return
        if _remove_unused(path):
            excess -= 1 if room is None else size


def _remove_unused(path: Path) -> bool:
    """Remove a file and its lock unless a process maps it; return whether it is removed."""
    import fcntl

    try:
        with open(path, "r+b") as file:
            with contextlib.suppress(OSError):  # a disk without locks, where whoever maps a file keeps it
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
    except OSError:  # it is another user's, or another process has removed it
        return False
    return True


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
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # processes that were forked meanwhile hold the file open, too
                fcntl.flock(file, fcntl.LOCK_UN)


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
