"""One line that tells how far a search is: rewritten in place on a terminal, a new line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class ProgressLine:
    """Prints progress with rate and estimated time left.

    Args:
        name: what is running.
        total: evaluations in all.
        done: evaluations that an earlier session did.
        stream: where to print; standard error by default.
        interval: least seconds between two lines, by default 0.2 on a terminal, 10 in a log.
    """

    def __init__(
        self, name: str, total: int, *, done: int = 0, stream: TextIO | None = None, interval: float | None = None
    ) -> None:
        self.name, self.total, self.first = name, total, done
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.interval = interval if interval is not None else (0.2 if self.on_terminal else 10.0)
        self.begin = time.monotonic()
        self.last = 0.0
        self.width = 0

    def update(self, done: int, best: str, *, final: bool = False) -> None:
        """Tell that `done` evaluations are done and what the best is."""
        now = time.monotonic()
        if not final and now - self.last < self.interval:
            return
        self.last = now
        elapsed = now - self.begin
        rate = (done - self.first) / elapsed if elapsed > 0 else 0.0
        left = (self.total - done) / rate if rate > 0 else float("inf")
        eta = f"in {_clock(elapsed)}" if final else f"ETA {_clock(left)}"
        line = f"{self.name}  {done:,}/{self.total:,} {done / self.total:4.0%}  {best}  {rate:,.3g}/s  {eta}"
        if self.on_terminal:
            self.stream.write("\r" + line.ljust(self.width) + ("\n" if final else ""))
            self.width = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "-:--"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
