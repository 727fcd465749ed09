"""Which process is meant by a number: numbers are used again, and mean others on other machines and in containers."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path


def machine() -> str:
    """Return what distinguishes machines, boots, and containers: the same numbers mean other processes there."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_bytes().decode().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def started(process: int) -> str | None:
    """Return when a process was started, in the system's units; None where the system does not tell.

    It is "dead" of one that has ended and was not waited for.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return "dead" if fields[0] in "ZX" else fields[19]


def is_running(process: int, start: str | None) -> bool:
    """Return whether the process of this machine that was started then still runs.

    Args:
        process: Its number.
        start: What `started` said of it.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's
    now = started(process)
    return now is None or start is None or now == start
