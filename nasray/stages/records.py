"""What every stage of a run took and gave: stages.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nasray.cluster import RunFolder, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.progress import repeating
from nasray.cluster.records import StageRecord, read_record

RECORDS = "stages.json"
INTERVAL = 30.0
"""Seconds between two writings of a stage's time, so that a killed session's is known too."""


def read_records(run: RunFolder) -> dict[str, Any]:
    """Return the `content` of a run's `Records`; empty where there are none."""
    path = run.path / RECORDS
    remedy = "Remove it: `nasray resume` begins it anew, and only the times of earlier sessions are lost"
    return read_record(path, dict[str, StageRecord], remedy) if path.is_file() else {}


class Records:
    """Record what every stage took and gave.

    Args:
        run: Folder of the run.

    Attributes:
        content: By stage: `seconds` of wall time, of all sessions (of one that was killed, the last `INTERVAL` may be
            missing); `sessions`, how often it was begun or continued; `inputs`, SHA-256 of what it works on; and when
            it is done, its `result`.
        count: Function that brings `seconds` of the stage under way up to now.
    """

    def __init__(self, run: RunFolder) -> None:
        self.path, self.content = run.path / RECORDS, read_records(run)
        self.count: Callable[[], None] = lambda: None

    def is_done(self, stage: str) -> bool:
        """Return whether a stage has a result."""
        return "result" in self.content.get(stage, {})

    def inputs(self, stage: str) -> dict[str, str]:
        """Return the digests of what a stage was begun with; empty if it was not begun."""
        found: dict[str, str] = self.content.get(stage, {}).get("inputs", {})
        return found

    @contextmanager
    def timed(self, stage: str, inputs: Mapping[str, str]) -> Iterator[None]:
        """Count the time within it, unless the stage is done, and note what it works on."""
        if self.is_done(stage):
            yield
            return
        entry = self._entry(stage)
        entry["sessions"] += 1
        entry["inputs"] = dict(inputs)
        before, begin = entry["seconds"], time.monotonic()

        def count() -> None:
            entry["seconds"] = round(before + time.monotonic() - begin, 2)

        def note() -> None:
            count()
            self._write()

        self.count = count
        note()
        try:
            with repeating(note, INTERVAL):
                yield
        finally:
            self.count = lambda: None
            note()

    def result(self, stage: str, result: Mapping[str, Any]) -> None:
        """Note that a stage is done, unless that is known."""
        if self.content.get(stage, {}).get("result") != dict(result):
            self._entry(stage)["result"] = dict(result)
            self._write()

    def _entry(self, stage: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.content.setdefault(stage, {"seconds": 0.0, "sessions": 0})
        return entry

    def _write(self) -> None:
        write_atomic(self.path, to_json(self.content, indent=1).encode())


def stage_rows(content: Mapping[str, Any], show: Callable[[float], str]) -> list[list[str]]:
    """Return what `Records` holds as rows of a table: stage, seconds, result."""
    rows = []
    for stage, record in content.items():
        result = record.get("result", {})
        text = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in result.items()
        )
        rows.append([stage, show(record["seconds"]), text or "not done"])
    return rows
