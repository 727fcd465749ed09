"""What passes between a training and whoever started it, by small files in a folder that all machines share."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from nasray.cluster.files import to_json
from nasray.cluster.interrupts import interruptible
from nasray.cluster.log_tail import LogTail
from nasray.cluster.progress import ProgressLine, say, waiting
from nasray.cluster.resources import count_actors, describe_free

PROGRESS, MESSAGES, STOP = "progress.json", "messages.txt", "stop"
INTERVAL = 0.2
"""Seconds between two looks at the files, and between two lines of progress that a worker writes."""


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        done: Steps done.
        total: Steps in all.
        text: What else there is to show.
    """

    done: int
    total: int
    text: str


class Board:
    """A folder in which a training leaves what the user should see, and the user's wish to stop.

    Args:
        folder: Folder that all machines see.

    Attributes:
        needs: Description of the workers that are waited for; None before they are known.
        needs_gpus: Whether they need GPUs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = 0.0
        self.num_said = 0
        self.line: ProgressLine | None = None
        self.needs: str | None = None
        self.needs_gpus = False

    # in the worker

    def progress(self, done: int, total: int, text: str) -> None:
        """Leave how far the training is, now and then."""
        now = time.monotonic()
        if done < total and now - self.last < INTERVAL:
            return
        self.last = now
        aside = self.folder / f"{PROGRESS}.tmp"
        with contextlib.suppress(OSError):  # a full disk is for what must be kept to tell
            aside.write_text(to_json([done, total, text]))
            aside.replace(self.folder / PROGRESS)

    def say(self, line: str) -> None:
        """Leave a line for the user."""
        with contextlib.suppress(OSError), open(self.folder / MESSAGES, "a") as file:
            file.write(line + "\n")

    def should_stop(self) -> bool:
        """Return whether the user wants the training to stop."""
        return (self.folder / STOP).exists()

    # where the user is

    def clear(self) -> None:
        """Remove what an earlier session left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def stop(self) -> None:
        """Ask the training to save and to stop."""
        with contextlib.suppress(OSError):
            (self.folder / STOP).touch()

    def new_lines(self) -> list[str]:
        """Return the lines for the user that were not returned before."""
        try:
            lines = (self.folder / MESSAGES).read_text().splitlines()
        except OSError:
            return []
        fresh, self.num_said = lines[self.num_said :], len(lines)
        return fresh

    def latest(self) -> Progress | None:
        """Return how far the training is; None if it has not begun."""
        try:
            return Progress(*json.loads((self.folder / PROGRESS).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def missing(self) -> str | None:
        """Return what is waited for as long as no worker has shown progress; None afterwards."""
        if self.needs is None or (self.folder / PROGRESS).exists():
            return None
        if count_actors("TrainWorker"):  # what is not free any more, they hold
            return f"waiting for the first iteration ({self.needs})"
        free = describe_free(self.needs_gpus)
        return f"waiting for the workers to start ({self.needs}; free in the cluster: {free})"

    def show(self, *, final: bool = False) -> None:
        """Print what is new."""
        for line in self.new_lines():
            say(line)
        progress = self.latest()
        if progress is not None:
            if self.line is None:
                self.line = ProgressLine("training", progress.total, done=progress.done)
            self.line.update(progress.done, progress.text, final=final)


class Watched(Protocol):
    """What `watch` needs of one board, or of several."""

    def missing(self) -> str | None:
        """Return what is waited for."""
        ...

    def show(self, *, final: bool = False) -> None:
        """Print what is new."""
        ...

    def stop(self) -> None:
        """Ask the training to save and to stop."""
        ...


def watch(
    run: Callable[[], object], board: Watched, reason: Callable[[BaseException], str], logs: Sequence[LogTail] = ()
) -> BaseException | None:
    """Run a function beside the main thread, which the user's signals reach, and meanwhile show and tell progress.

    Args:
        run: Function that trains.
        board: Where it shows how far it is, and is asked to stop.
        reason: Function from what it raises to a line about it.
        logs: Logs of what it trains, for callbacks.

    Returns:
        What the function raised, or None.

    Raises:
        KeyboardInterrupt: If the user interrupted it before its end, once it has saved its state.
    """
    raised: list[BaseException] = []
    done = threading.Event()  # a thread whose `join` is interrupted counts as ended (Python 3.11)

    def run_to_the_end() -> None:
        try:
            run()
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    with interruptible():
        threading.Thread(target=run_to_the_end, daemon=True).start()
        try:
            with waiting(board.missing, after=15):
                while not done.wait(INTERVAL):
                    board.show()
                    _tell_new(logs)
        except KeyboardInterrupt:
            board.stop()
            say("\nsaving the state of the training; interrupt again to leave at once")
            done.wait()
            if raised:
                _tell_new(logs)
                say(reason(raised[0]))
                raise
    board.show(final=not raised)
    _tell_new(logs)
    return raised[0] if raised else None


def _tell_new(logs: Sequence[LogTail]) -> None:
    for log in logs:
        log.tell_new()
