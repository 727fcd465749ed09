"""How far a run is, and how long the rest of it takes as far as its own times tell.

A stage knows its amount of work, and its folder how much of it is done. The time that this took gives a rate, by which
the rest is estimated, and other stages of like work that have not begun. Where nothing has told a rate yet there is no
estimate: what is left of the run is then at least the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nasray.cluster.progress import clock


@dataclass(frozen=True)
class Effort:
    """Work of a stage.

    Attributes:
        total: Work in all.
        done: Work that is done, by all sessions.
        unit: What is counted, such as "epochs".
        like: Description of whatever a unit's time depends on. Stages that have it alike share their rate.
    """

    total: float
    done: float
    unit: str
    like: str


@dataclass(frozen=True)
class StageOutlook:
    """How far a stage is.

    Attributes:
        stage: Name of the stage.
        is_done: Whether it is done.
        effort: Its work; None where the stage cannot say.
        seconds: Wall time that it took so far, in all sessions.
        left: Estimated seconds that it takes from now on; None where nothing has told yet.
    """

    stage: str
    is_done: bool
    effort: Effort | None
    seconds: float
    left: float | None

    def work_text(self) -> str:
        """Return how much of its work is done, such as "40 of 100 evaluations"."""
        if self.effort is None:
            return "-"
        done, total = (f"{value:,.1f}".removesuffix(".0") for value in (self.effort.done, self.effort.total))
        return f"{done} of {total} {self.effort.unit}"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        effort = self.effort
        work = {} if effort is None else {"unit": effort.unit, "done": effort.done, "total": effort.total}
        return {"stage": self.stage, "is_done": self.is_done, **work, "seconds": self.seconds, "left_s": self.left}


def outlook(efforts: Mapping[str, Effort | None], records: Mapping[str, Any]) -> list[StageOutlook]:
    """Return how far each stage of a run is.

    Args:
        efforts: Work of each stage, in their order.
        records: Content of `nasray.stages.records.Records`.
    """
    times: dict[str, tuple[float, float]] = {}
    for name, effort in efforts.items():
        if effort is not None and effort.done > 0 and name in records:
            seconds, work = times.get(effort.like, (0.0, 0.0))
            times[effort.like] = seconds + records[name]["seconds"], work + effort.done
    found = []
    for name, effort in efforts.items():
        record = records.get(name, {"seconds": 0.0})
        is_done, left = "result" in record, None
        if is_done:
            left = 0.0
        elif effort is not None:
            own = record["seconds"], effort.done
            seconds, work = own if effort.done > 0 else times.get(effort.like, own)
            left = seconds / work * max(effort.total - effort.done, 0.0) if work > 0 else None
        found.append(StageOutlook(name, is_done, effort, record["seconds"], left))
    return found


def time_left(stages: Sequence[StageOutlook]) -> tuple[float, bool]:
    """Return the seconds that are left of all stages for which there is an estimate, and whether these are all."""
    known = [stage.left for stage in stages if stage.left is not None]
    return sum(known), len(known) == len(stages)


def time_left_text(stages: Sequence[StageOutlook], running: str = "", at_least: float = math.inf) -> str:
    """Return the time left of a run, such as "1:02:03" or "at least 1:02:03"; empty where nothing is known.

    Args:
        stages: How far its stages are.
        running: Stage that is under way.
        at_least: Seconds that it takes at least; infinity where unknown.
    """
    seconds, is_whole = time_left(stages)
    for stage in stages:
        if stage.stage == running and at_least < math.inf:
            seconds += max(at_least - (stage.left or 0.0), 0.0)
    if is_whole:
        return clock(seconds)
    return f"at least {clock(seconds)}" if seconds > 0 else ""
