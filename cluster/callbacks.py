"""Callbacks: functions of the user's that hear what a run tells, in the process that started it.

Three places tell: a search every batch that its searcher was told, `nasray.cluster.board.watch` every line that a
training logs, and whoever runs stages their begin and end. Each calls `tell` with an event, which reaches the
callbacks that the session has named with `heard_by`; nobody else's signature speaks of them. Trials and workers hear
nothing: a callback can be any function, and a slow one holds up no training.

An event is told at most once, over all sessions of a run. How far a search or a training is told is written to
`told.json` of its folder before it is told, so that the event at which a process was killed may be the one that is
missed; what an earlier session did not come to tell is told by the next one.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nasray.cluster.files import to_json, write_atomic
from nasray.cluster.progress import say
from nasray.cluster.records import Told, read_record
from nasray.spaces import NasrayError

TOLD = "told.json"
"""How far a search or a training is told, in its folder; only there once there were callbacks."""


@dataclass(frozen=True)
class BatchEvent:
    """A batch was told to the searcher of a search.

    Attributes:
        run: Folder of the run, absolute.
        source: Name of the search within the run, `search` or the stage's.
        step: Evaluations told so far, this batch's included.
        total: Evaluations of the whole search.
        batch: Number of the batch, from 0.
        ids: Ids of its N architectures.
        metrics: N values of each metric.
        costs: N values of each cost.
        scalars: What TensorBoard shows of it, under the same names.
    """

    run: str
    source: str
    step: int
    total: int
    batch: int
    ids: list[str]
    metrics: dict[str, list[float]]
    costs: dict[str, list[float]]
    scalars: dict[str, float]


@dataclass(frozen=True)
class LogEvent:
    """A training wrote a line to its log, of a step or of a validation.

    Attributes:
        run: Folder of the run, or of the training where it is alone; absolute.
        source: Folder of the training within the run, such as `train` or `train/1-ab`; `training` where it is alone.
        step: Iterations done.
        line: The line as log.jsonl has it.
        scalars: What TensorBoard shows of it, under the same names; only finite numbers.
    """

    run: str
    source: str
    step: int
    line: dict[str, Any]
    scalars: dict[str, float]


@dataclass(frozen=True)
class StageEvent:
    """A stage of a run has begun or ended; a training alone is the stage `training`.

    Attributes:
        run: Folder of the run, absolute.
        source: Name of the stage.
        state: `begin`; `resume` where an earlier session began it; `end`; or `stop` where it failed or was interrupted.
        figures: Of an end, the stage's figures, those of stages.json.
        error: Of a stop, its reason; else empty.
    """

    run: str
    source: str
    state: Literal["begin", "resume", "end", "stop"]
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""


Event = BatchEvent | LogEvent | StageEvent
Callback = Callable[[Event], object]
"""A function of one event. Its attribute `close`, if it has one, is called without arguments at a session's end."""


class Audience:
    """The callbacks of a session; one that raises is named once and hears nothing more.

    Args:
        callbacks: Callbacks by name.
        run: Folder of the run.
    """

    def __init__(self, callbacks: Mapping[str, Callback], run: Path) -> None:
        self.callbacks, self.run = dict(callbacks), Path(os.path.abspath(run))

    def tell(self, event: Event) -> None:
        """Call every callback with an event."""
        for name, callback in list(self.callbacks.items()):
            self._call(name, functools.partial(callback, event))

    def close(self) -> None:
        """Let every callback end what it has open."""
        for name, callback in list(self.callbacks.items()):
            if close := getattr(callback, "close", None):
                self._call(name, close)

    def _call(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # whatever it is: the run matters more than who hears of it
            self.callbacks.pop(name, None)
            reason = " ".join(str(error).split())[:200]
            say(
                f"callback {name} failed and is switched off until the next `resume`; the run goes on: "
                f"{type(error).__name__}: {reason}"
            )


_audience: Audience | None = None


@contextlib.contextmanager
def heard_by(callbacks: Mapping[str, Callback], run: Path) -> Iterator[None]:
    """Let callbacks hear what is told within; without any, those of whoever called hear it.

    Args:
        callbacks: Callbacks by name.
        run: Folder of the run.
    """
    global _audience
    if not callbacks:
        yield
        return
    before, _audience = _audience, Audience(callbacks, run)
    try:
        yield
    finally:
        try:
            _audience.close()
        finally:
            _audience = before


def is_heard() -> bool:
    """Return whether there are callbacks that still hear."""
    return _audience is not None and bool(_audience.callbacks)


def is_heard_alone(folder: Path) -> bool:
    """Return whether there are callbacks, and a folder is the whole run that they hear."""
    return _audience is not None and _audience.run == Path(os.path.abspath(folder))


def tell(event: Event) -> None:
    """Tell the callbacks of the session, if there are any."""
    if _audience is not None:
        _audience.tell(event)


def place(folder: Path, alone: str) -> tuple[str, str]:
    """Return run and source of what happens in a folder.

    Args:
        folder: Folder of a search or a training.
        alone: Source where the folder is that of the run.
    """
    run = _audience.run if _audience is not None else Path(os.path.abspath(folder))
    source = Path(os.path.relpath(os.path.abspath(folder), run)).as_posix()
    return str(run), alone if source == "." else source


@contextlib.contextmanager
def told_stage(run: Path, source: str, *, is_begun: bool, is_done: bool = False) -> Iterator[dict[str, Any]]:
    """Tell the begin and the end of a stage, and yield a dictionary for its figures.

    Args:
        run: Folder of the run.
        source: Name of the stage.
        is_begun: Whether an earlier session began it.
        is_done: Whether an earlier session ended it: nothing is told.
    """
    figures: dict[str, Any] = {}
    if is_done:
        yield figures
        return
    where = os.path.abspath(run)
    tell(StageEvent(where, source, "resume" if is_begun else "begin"))
    try:
        yield figures
    except BaseException as error:
        tell(StageEvent(where, source, "stop", error=str(error) or type(error).__name__))
        raise
    tell(StageEvent(where, source, "end", figures))


# ---- how far a search or a training is told ----------------------------------------------------------------------


def read_told(folder: Path) -> int:
    """Return the number of batches of a search that are told, or the position in its log that a training is told to.

    Raises:
        NasrayError: if the file is damaged.
    """
    path = folder / TOLD
    remedy = "Remove it: callbacks are then told everything once more"
    return int(read_record(path, Told, remedy)["told"]) if path.is_file() else 0


def write_told(folder: Path, told: int) -> None:
    """Note how far a search or a training is told, as `read_told` returns it."""
    with contextlib.suppress(NasrayError):  # a full disk is for what must be kept to tell
        write_atomic(folder / TOLD, to_json({"told": told}).encode())


def as_lists(columns: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return arrays of N values each as lists of plain numbers."""
    return {name: [float(value) for value in values] for name, values in columns.items()}
