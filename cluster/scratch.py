"""Ray's temporary folder of a local session: hidden from others, and removed by the next session if this one is killed.

    /tmp/nasray-1000/          of this user alone (mode 0700)
        k3v9x0ab.lock          locked by the session as long as it lives
        k3v9x0ab/              Ray's

Ray makes what it is given readable and writable for everyone, so the folder above it keeps others out. Paths of sockets
hold 107 bytes at most, of which Ray needs 63: hence /tmp, whatever TMPDIR says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nasray.spaces import NasrayError

LONGEST = 44
"""Bytes that the path of a session's folder may have."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder for Ray, remove it afterwards, and those of sessions that were killed before.

    Raises:
        NasrayError: if no temporary folder can be written, or the path of the only one is too long for sockets.
    """
    try:
        parent = _private_parent()
        remove_dead(parent)
        folder = Path(tempfile.mkdtemp(prefix="", dir=parent))
        lock = _locked(folder.with_suffix(".lock"))
    except OSError as error:
        raise NasrayError(
            f"cannot make a temporary folder for Ray: {error}. Make room in, or write access to, {_root()}"
        ) from error
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def remove_dead(parent: Path) -> None:
    """Remove the folders of sessions whose processes are gone; those of living ones hold their locks."""
    for path in parent.glob("*.lock"):
        with contextlib.suppress(OSError):  # in use, or removed by another
            lock = _locked(path, create=False)
            _remove(path.with_suffix(""))
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a session's folder and, once it is gone, its lock, which the caller holds."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # else dying processes still write to it, and the next session removes it
        folder.with_suffix(".lock").unlink(missing_ok=True)


def _locked(path: Path, *, create: bool = True) -> int:
    """Open and lock a file; raise `BlockingIOError` if another process holds it."""
    file = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(file)
        raise
    return file


def _root() -> Path:
    """Return the folder for temporary files with a short path."""
    root = Path("/tmp")
    return root if root.is_dir() and os.access(root, os.W_OK) else Path(tempfile.gettempdir())


def _private_parent() -> Path:
    """Return the folder of this user's sessions; another one where somebody else made a folder of this name."""
    parent = _root() / f"nasray-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        parent.mkdir(mode=0o700)
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        parent = Path(tempfile.mkdtemp(prefix=f"nasray-{os.getuid()}-", dir=_root()))
    elif stat.S_IMODE(found.st_mode) != 0o700:
        parent.chmod(0o700)
    if len(os.fsencode(parent)) + 9 > LONGEST:
        raise NasrayError(
            f"the temporary folder {parent} has a path too long for Ray's sockets. Make /tmp writable, or set TMPDIR "
            "to a folder with a short path"
        )
    return parent
