"""One owner of a run's or a training's folder at a time, across processes and across machines of a shared file system.

Whoever works in a folder keeps `.owner.json` in it: host, process, since when, by which command. It is made by a hard
link, which exactly one process succeeds in, touched every `HEARTBEAT` seconds, and removed at the end. Readers need no
ownership.

An owner is dead if it is of the same machine (of the same boot, and the same process namespace) and its process is gone
or is another one now; or if it is of another machine, has not touched the file for `STALE` seconds by the clock of the
file system, and holds no `flock` on it that reaches this machine. Whoever takes over from a dead owner claims it first,
by a file named after that owner: exactly one process succeeds. An owner that was taken for dead notices at its next
heartbeat that the file is another's, and stops.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import math
import os
import platform
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nasray.cluster.files import explained_disk_errors, to_json
from nasray.cluster.interrupts import closing
from nasray.cluster.processes import is_running, machine, started
from nasray.cluster.progress import repeating, say
from nasray.cluster.reading import read_json, shown
from nasray.spaces import NasrayError

OWNER = ".owner.json"
HEARTBEAT = 10.0
"""Seconds between two signs of life of an owner."""
STALE = 90.0
"""Seconds without a sign of life after which an owner on another machine is dead."""


@dataclass(frozen=True)
class Owner:
    """The process that works in a folder.

    Attributes:
        key: Random name of this ownership.
        host: Name of the machine.
        machine: Boot and process namespace; process numbers mean the same where these are equal.
        process: Number of the process.
        started: When the process was started, in the system's units; None where the system does not tell.
        user: Name of the user.
        since: Local time.
        command: Command line.
    """

    key: str
    host: str
    machine: str
    process: int
    started: str | None
    user: str
    since: str
    command: str

    def __str__(self) -> str:
        return f"process {self.process} of {self.user} on {self.host} since {self.since} ({self.command})"


@contextlib.contextmanager
def owned(folder: Path | str, *, patience: float = 0.0) -> Iterator[None]:
    """Own a folder within the context; it is made if it is not there, and removed again if nothing was put into it.

    Args:
        folder: Folder of a run or a training.
        patience: Seconds to wait for another owner to leave.

    Raises:
        NasrayError: if another process owns it, it cannot be written, or it was taken over in the meantime.
    """
    path = Path(folder).absolute()
    made = _make(path)
    try:
        owner, file = _take(path, time.monotonic() + patience)
        lost, beating = threading.Event(), contextlib.ExitStack()
        beating.enter_context(repeating(functools.partial(_beat, path / OWNER, owner, lost), HEARTBEAT))
        try:
            yield
        except KeyboardInterrupt:
            if lost.is_set():
                raise _lost(path) from None
            raise
        finally:
            with closing():
                beating.close()
                if file is not None:
                    os.close(file)
                if not lost.is_set():
                    _release(path / OWNER, owner)
    finally:
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def refuse_owned(folder: Path | str) -> None:
    """Raise `NasrayError` if a living process owns a folder; changes nothing."""
    path = Path(folder).absolute()
    judged = _judge(path / OWNER)
    if judged is not None and judged.is_alive:
        raise _refusal(path, judged)


def is_owned(folder: Path | str) -> bool:
    """Return whether a living process owns a folder; changes nothing."""
    judged = _judge(Path(folder).absolute() / OWNER)
    return judged is not None and judged.is_alive


def is_empty(folder: Path) -> bool:
    """Return whether a folder holds nothing but what belongs to its ownership."""
    return all(path.name.startswith(OWNER) for path in folder.iterdir())


# ---- taking ------------------------------------------------------------------------------------------------------


def _make(path: Path) -> list[Path]:
    """Make a folder with those above it; return what was made, the innermost first."""
    try:
        missing = [path, *path.parents]
        missing = missing[: next((index for index, one in enumerate(missing) if one.exists()), len(missing))]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NasrayError(
            f"cannot make folder {shown(path)}: {error.strerror}. Choose one that you may write, with --folder"
        ) from error
    return missing


def _take(path: Path, deadline: float) -> tuple[Owner, int | None]:
    """Become the owner; return the open file that holds the `flock`, where there are any."""
    owner = _myself()
    lock, aside = path / OWNER, path / f"{OWNER}.{owner.key}"
    try:
        with explained_disk_errors(lock):
            aside.write_text(to_json(vars(owner)))
        file = _flock(aside)
        while True:
            if _link(aside, lock):
                return owner, file
            judged = _judge(lock)
            if judged is None:
                continue  # it left just now
            if not judged.is_alive:
                if _replace(aside, lock, judged):
                    say(f"{shown(path)}: taken over from {judged.owner or 'an unknown owner'}, which is gone")
                    return owner, file
            elif time.monotonic() >= deadline:
                raise _refusal(path, judged)
            time.sleep(0.05)
    finally:
        with contextlib.suppress(OSError):  # it was never made where the disk is read-only
            aside.unlink(missing_ok=True)


def _link(aside: Path, lock: Path) -> bool:
    """Put a file in its place if nothing is there; whether that was so."""
    try:
        os.link(aside, lock)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        try:
            with open(lock, "xb") as file:
                file.write(aside.read_bytes())
        except FileExistsError:
            return False
    return True


def _replace(aside: Path, lock: Path, judged: Judgment) -> bool:
    """Take the place of a dead owner; whether it was this process that did."""
    claim = lock.with_name(f"{OWNER}.after-{judged.key}")
    if not _link(aside, claim):
        if _age(claim) > STALE:  # whoever claimed it died within these few lines
            claim.unlink(missing_ok=True)
        return False
    try:
        again = _judge(lock)
        if again is None or again.key != judged.key:  # another was faster, and is done already
            return False
        os.replace(claim, lock)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _flock(path: Path) -> int | None:
    """Lock a file as long as it is open, where the system can."""
    try:
        import fcntl
    except ImportError:
        return None
    file = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def _myself() -> Owner:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    program = Path(sys.argv[0] or "python").name
    command = shlex.join(["nasray" if program == "__main__.py" else program, *sys.argv[1:]])
    return Owner(
        key=secrets.token_hex(8),
        host=platform.node(),
        machine=machine(),
        process=os.getpid(),
        started=started(os.getpid()),
        user=user,
        since=datetime.now().astimezone().isoformat(" ", "seconds"),
        command=command if len(command) <= 200 else command[:199] + "…",
    )


# ---- judging -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgment:
    """What is known of a folder's owner.

    Attributes:
        key: Name of this ownership.
        owner: The owner; None if the file cannot be understood.
        is_alive: Whether it has to be taken for alive.
        age: Seconds since its last sign of life, where that decides.
    """

    key: str
    owner: Owner | None
    is_alive: bool
    age: float | None = None


def _judge(lock: Path) -> Judgment | None:
    """Find out about the owner of a folder; None if there is none."""
    while True:
        try:
            before = lock.stat()
            judged = _judge_file(lock, before)
            after = lock.stat()
        except OSError:
            return None
        if (before.st_ino, before.st_size) == (after.st_ino, after.st_size):  # else it changed hands meanwhile
            return judged


def _judge_file(lock: Path, found: os.stat_result) -> Judgment:
    try:
        content: Any = read_json(lock)
        owner = Owner(**content)
    except (NasrayError, TypeError):
        age = _age(lock)
        return Judgment(f"file-{found.st_ino}-{found.st_mtime_ns}", None, age < STALE, age)
    if owner.machine == machine():
        return Judgment(owner.key, owner, is_running(owner.process, owner.started))
    age = _age(lock)
    return Judgment(owner.key, owner, age < STALE or _is_flocked(lock), age)


def _age(path: Path) -> float:
    """Return the seconds since a file was touched, by the clock of the file system that it lies on."""
    probe = path.with_name(f"{OWNER}.clock-{secrets.token_hex(4)}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except OSError:  # a folder that may only be read, or the file has gone
        try:
            return time.time() - path.stat().st_mtime
        except OSError:
            return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _is_flocked(path: Path) -> bool:
    """Return whether somebody holds the file's `flock`, as far as this machine can see."""
    try:
        import fcntl

        file = os.open(path, os.O_RDWR)
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _refusal(path: Path, judged: Judgment) -> NasrayError:
    heard = ""
    if judged.age is not None:
        left = max(STALE - judged.age, 1)
        heard = f"; its last sign of life is {max(judged.age, 0):.0f} s old, and it counts as dead in {left:.0f} s more"
    who = judged.owner or f"an owner that {OWNER} does not tell"
    return NasrayError(
        f"{shown(path)} is in use by {who}{heard}. Wait until it has ended, stop it, or choose another folder"
    )


# ---- keeping -----------------------------------------------------------------------------------------------------


def _beat(lock: Path, owner: Owner, lost: threading.Event) -> float | None:  # pragma: no cover - in a thread
    """Give a sign of life; stop the process if the folder was taken over."""
    if _is_mine(lock, owner) is False:
        lost.set()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return math.inf
    with contextlib.suppress(OSError):
        os.utime(lock)
    return None


def _is_mine(lock: Path, owner: Owner) -> bool | None:
    """Return whether the file is still this owner's; None if that cannot be found out."""
    try:
        content: Any = read_json(lock)
        return bool(content["key"] == owner.key)
    except (NasrayError, KeyError, TypeError):
        return None


def _release(lock: Path, owner: Owner) -> None:
    if _is_mine(lock, owner):
        with contextlib.suppress(OSError):
            lock.unlink()


def _lost(path: Path) -> NasrayError:
    judged = _judge(path / OWNER)
    return NasrayError(
        f"{shown(path)} was taken over by {judged.owner if judged else 'another process'}: this process had given no "
        f"sign of life for {STALE:.0f} s. What was saved before is kept; go on there"
    )
