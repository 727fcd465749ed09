"""One line that tells how far long work is: rewritten in place on a terminal, a new line now and then in a log."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO


def counted(number: float, noun: str) -> str:
    """Return a number with its noun: "1 CPU", "2 CPUs", "0.5 CPUs"."""
    return f"{number:g} {noun}{'s' * (number != 1)}"


def say(line: str) -> None:
    """Print a line for the user to standard error."""
    print(line, file=sys.stderr, flush=True)


_whole: Callable[[float], str] | None = None


@contextlib.contextmanager
def part_of(whole: Callable[[float], str]) -> Iterator[None]:
    """End every line of progress within with what there is to say of the whole that the work is part of.

    Args:
        whole: Function from the estimated seconds left of the line's work, infinity where unknown, to a text.
    """
    global _whole
    before, _whole = _whole, whole
    try:
        yield
    finally:
        _whole = before


class ProgressLine:
    """Prints progress with rate and estimated time left.

    Args:
        name: Name of what is running.
        total: Number to do, of whatever is counted, at least 1.
        done: Those that an earlier session did.
        stream: Stream to print to; standard error by default.
        interval: Minimum seconds between two lines, by default 0.2 on a terminal, 10 in a log.
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

    def update(self, done: int, text: str = "", *, share: float | None = None, final: bool = False) -> None:
        """Tell how many are done.

        Args:
            done: Number done of `total`.
            text: Further text, such as the best so far.
            share: Share of this session's work, in (0, 1], where some take longer than others; the time left follows
                from it instead of from the rate.
            final: Whether to print whatever the interval, with the time it took, and to end the line.
        """
        now = time.monotonic()
        if not final and now - self.last < self.interval:
            return
        self.last = now
        elapsed = now - self.begin
        rate = (done - self.first) / elapsed if elapsed > 0 else 0.0
        if share is not None:
            left = elapsed * (1 - share) / share
        else:
            left = (self.total - done) / rate if rate > 0 else float("inf")
        eta = f"in {clock(elapsed)}" if final else f"ETA {clock(left)}" if left < float("inf") else ""
        counted = f"{done:,}/{self.total:,} {done / self.total:4.0%}"
        speed = f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s" if rate > 0 else ""
        whole = _whole(left) if _whole is not None and not final else ""
        line = "  ".join(part for part in (self.name, counted, text, speed, eta, whole) if part)
        if self.on_terminal:
            self.stream.write("\r" + line.ljust(self.width) + ("\n" if final else ""))
            self.width = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours before them where there are any: "1:02:03"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


@contextlib.contextmanager
def waiting(what: str | Callable[[], str | None], *, after: float = 8.0, every: float = 60.0) -> Iterator[None]:
    """Say what is waited for, with the time it has taken, once the context lasts long.

    Args:
        what: Text, or a function that returns it; None says nothing this time.
        after: Seconds before the first line.
        every: Seconds between further lines.
    """
    begin, ended = time.monotonic(), threading.Event()

    def keep_saying() -> float | None:
        text = what if isinstance(what, str) else what()
        if text is None or ended.is_set():
            return after
        say(f"{text} ({clock(time.monotonic() - begin)})")
        return None

    with repeating(keep_saying, every, first=after, join=False):  # what is asked may itself be waiting
        try:
            yield
        finally:
            ended.set()


@contextlib.contextmanager
def repeating(
    function: Callable[[], float | None], every: float, *, first: float | None = None, join: bool = True
) -> Iterator[None]:
    """Call a function again and again in a thread of its own, until the context ends.

    What the function raises is swallowed, as nobody is there to take it; it is called again after the same time.

    Args:
        function: Function to call; it returns the seconds until it is called again, infinity for never, or None for
            `every`.
        every: Seconds between two calls.
        first: Seconds before the first call; `every` by default.
        join: Whether the context's end waits for a call that is under way.
    """
    ended = threading.Event()

    def repeat() -> None:
        pause = every if first is None else first
        while not ended.wait(pause):
            with contextlib.suppress(Exception):
                asked = function()
                if asked == float("inf"):
                    return
                pause = every if asked is None else asked

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if join:
            thread.join()
