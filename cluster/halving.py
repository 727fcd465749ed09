"""Synchronous halving: several trainings go on to a rung, the best share of them to the next one, and so on.

Reference: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
2016 (successive halving).

At a rung all that are left are waited for, so who goes on depends on what they reached there alone: not on which came
first, how many ran at a time, or where a search was interrupted. A decision is on disk before it is acted on.

To whoever trains (`nasray.cluster.trainings.run_jobs`) each rung is an end. A scheduler of Ray Tune's that pauses
trials would decide alike, and have a state of its own that has to be restored after an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nasray.cluster.files import to_json, write_atomic
from nasray.cluster.progress import counted, say
from nasray.cluster.records import Halved, read_record
from nasray.spaces import NasrayError
from nasray.spaces.ranges import Range

HALVING = "halving.json"
RunTo = Callable[[Sequence[str], float | None], Mapping[str, float]]
"""Trains what labels name up to a rung, to the end for None, and returns the score of each there."""


@dataclass(frozen=True)
class Halving:
    """Where trainings are compared, and how many go on.

    Attributes:
        rungs: Epochs of the schedule after which they are compared, ascending.
        keep: Share of those compared that goes on, rounded, at least one.
    """

    rungs: tuple[Annotated[float, Range(above=0)], ...]
    keep: Annotated[float, Range(above=0, maximum=1)] = 0.5

    def __post_init__(self) -> None:
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)):
            raise NasrayError(f"rungs are epochs that ascend, such as [2, 4]; got {list(self.rungs)}")

    def total_epochs(self, num: int, end: float) -> float:
        """Return the epochs of all of `num` trainings together, of which the last ones end after `end`."""
        total, begin = 0.0, 0.0
        for rung in self.rungs:
            total, begin, num = total + num * (rung - begin), rung, num_kept(num, self.keep)
        return total + num * (end - begin)


def survivors(scores: Mapping[str, float], keep: float) -> list[str]:
    """Return the labels of the best share, in the order in which they were given.

    Args:
        scores: Score by label, the larger the better; NaN is the worst. Of equal ones the earlier label is better.
        keep: Share in (0, 1], of which at least one is kept.
    """
    labels = list(scores)

    def rank(place: int) -> tuple[float, int]:
        score = scores[labels[place]]
        return (-score if score == score else math.inf, place)

    return [labels[place] for place in sorted(sorted(range(len(labels)), key=rank)[: num_kept(len(labels), keep)])]


def num_kept(num: int, keep: float) -> int:
    """Return how many of `num` trainings the share `keep` is: rounded, at least one."""
    return max(1, math.floor(keep * num + 0.5))


def run_halving(labels: Sequence[str], halving: Halving | None, folder: Path, run_to: RunTo) -> list[str]:
    """Train to the end, with ever fewer that are left at each rung; return the labels of those that came to the end.

    Args:
        labels: Labels of the trainings, the better one of equal ones first.
        halving: Rungs; None trains all to the end.
        folder: Folder of `halving.json`, which holds what was decided before.
        run_to: Function that trains.

    Raises:
        NasrayError: if `halving.json` is damaged, or of other trainings; and what `run_to` raises.
    """
    left, path = list(labels), folder / HALVING
    decided = read_decisions(folder)
    for number, rung in enumerate(halving.rungs if halving else ()):
        assert halving is not None
        if number < len(decided):
            if list(decided[number]["scores"]) != left or decided[number]["epochs"] != rung:
                raise NasrayError(f"{path} is of other trainings. Restore it from a copy of the run")
            left = list(decided[number]["left"])
            continue
        found = run_to(left, rung)
        scores = {label: found[label] for label in left}
        left = survivors(scores, halving.keep)
        decided.append({"epochs": rung, "scores": scores, "left": left})
        write_atomic(path, to_json({"rungs": decided}, indent=1).encode())
        say(f"after {counted(rung, 'epoch')} {', '.join(left)} of {len(scores)} go on")
    run_to(left, None)
    return left


def read_decisions(folder: Path) -> list[dict[str, Any]]:
    """Return what was decided at each rung so far: `epochs`, `scores` by label, and the labels `left`.

    Raises:
        NasrayError: if `halving.json` is damaged.
    """
    path = folder / HALVING
    remedy = "Remove it: the trainings know what they reached at each rung, and the same is decided again"
    content = read_record(path, Halved, remedy) if path.is_file() else {"rungs": []}
    rungs: list[dict[str, Any]] = content["rungs"]
    return rungs
