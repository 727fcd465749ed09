"""What a report tells of a run, as plain numbers.

Shapes: N evaluations in the order in which they were told, O objectives, T points in time (batch ends, thinned to at
most `MAX_POINTS`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import RunFolder
from nasray.cluster.leaders import leaders, make_entry
from nasray.searchers import Metrics, Objective, pareto_front
from nasray.spaces import Budget, Costs, NasrayError, Population, Space

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_POINTS = 200
PAUSE = 5.0  # seconds between two sessions of a run; Ray alone takes longer to start


class Timing(NamedTuple):
    """Where the time went, from the first batch's start to the last one's end. None where no trial was recorded.

    Attributes:
        seconds: Wall time, without the pauses between an interruption and its resumption.
        evaluations_per_second: Evaluations per second of the batches whose trials were recorded.
        sessions: How often the search was begun or resumed.
        workers: Maximum processes in one session.
        busy_share: Share of the workers' wall time, in [0, 1], in which they evaluated.
    """

    seconds: float | None
    evaluations_per_second: float | None
    sessions: int
    workers: int
    busy_share: float | None


class Convergence(NamedTuple):
    """One objective over time, each (T,), in the objective's own units; NaN where nothing is finite.

    Attributes:
        evaluations: Evaluations told so far.
        best: Best so far.
        mean: Mean of the finite values since the point before.
        std: Standard deviation of the same values.
    """

    evaluations: Ints
    best: Floats
    mean: Floats
    std: Floats


@dataclass(frozen=True)
class RunData:
    """A run as it lies in its folder.

    Attributes:
        name: Name of the experiment, or of the folder.
        description: The content of experiment.yaml.
        objectives: Objectives; the first one ranks where a single winner is asked for.
        ids: Ids of the N evaluated architectures.
        genes: (N, G).
        costs: Costs, each (N,).
        metrics: Metrics, each (N,).
        batch_ends: (B,) evaluations told after each batch.
        timing: Where the time went.
        ended_early: A sentence that says where and why, if the search ended before all its evaluations.
        finished: Whether the search has come to its end.
        cost_scope: What the costs are of, as in best.json.
        parents: (N, 2) evaluations that each was bred from, -1 for none; None if not read.
        ranked: Evaluations, best first, where something else than the objectives ranks them, as of the seeds of a
            gradient search; None where these do.
    """

    name: str
    description: dict[str, Any]
    objectives: tuple[Objective, ...]
    ids: list[str]
    genes: Population
    costs: Costs
    metrics: Metrics
    batch_ends: Ints
    timing: Timing
    ended_early: str | None = None
    finished: bool = True
    cost_scope: dict[str, Any] = field(default_factory=dict)
    parents: Population | None = None
    ranked: Ints | None = None

    def column(self, name: str) -> Floats:
        """Return (N,) values of a metric, or else of a cost.

        Raises:
            NasrayError: if the history has neither.
        """
        columns = {**self.costs, **self.metrics}
        if name not in columns:
            raise NasrayError(
                f"objective {name!r} is not in the run's history. It has: {', '.join(columns) or 'nothing'}"
            )
        return columns[name]

    @cached_property
    def values(self) -> Floats:
        """(N, O) objectives with signs so that larger is better; minus infinity for NaN. As searchers see them."""
        columns = [self.column(objective.name) * objective.sign for objective in self.objectives]
        values = np.stack(columns, axis=1)
        return np.where(np.isnan(values), -np.inf, values)

    @cached_property
    def leaders(self) -> Ints:
        """Evaluations, best first: the ten best by one objective, or the Pareto front of several, as in best.json."""
        return leaders(self.values) if self.ranked is None else self.ranked

    @cached_property
    def best_so_far(self) -> Ints:
        """(N,) the evaluation that was the best by the first objective after each; ties go to the earlier one."""
        value = self.values[:, 0]
        before = np.r_[-np.inf, np.maximum.accumulate(value)[:-1]]
        return np.maximum.accumulate(np.where(value > before, np.arange(len(value)), 0))

    @cached_property
    def points(self) -> Ints:
        """(T,) evaluations told at each point in time."""
        step = math.ceil(len(self.batch_ends) / MAX_POINTS)
        return self.batch_ends[::-1][::step][::-1]

    def convergence(self, objective: Objective) -> Convergence:
        """Return one objective over time."""
        column = self.column(objective.name)
        finite = np.isfinite(column)
        starts = np.r_[0, self.points[:-1]]
        count = np.add.reduceat(finite.astype(np.float64), starts)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.add.reduceat(np.where(finite, column, 0.0), starts) / count
            offset = np.where(finite, column - np.repeat(mean, np.diff(np.r_[0, self.points])), 0.0)
            std = np.sqrt(np.add.reduceat(offset**2, starts) / count)
        best = np.maximum.accumulate(np.where(finite, column * objective.sign, -np.inf))[self.points - 1]
        best = np.where(np.isfinite(best), best * objective.sign, np.nan)
        return Convergence(self.points, best, mean, std)

    def hypervolume(self) -> Floats:
        """Return the (T,) share of the box between worst and best finite values that the front covers; two objectives.

        Reference: Zitzler and Thiele, "Multiobjective evolutionary algorithms", IEEE TEVC 1999. NaN without a box.
        """
        assert len(self.objectives) == 2
        finite = np.asarray(np.isfinite(self.values).all(axis=1))
        if not finite.any():
            return np.full(len(self.points), np.nan)
        low, high = self.values[finite].min(axis=0), self.values[finite].max(axis=0)
        return box_shares(np.where(finite[:, None], self.values, low), self.points.tolist(), low, high)

    @cached_property
    def budget(self) -> Budget:
        """The experiment's bounds on costs."""
        given = section(self.description, "budget")
        bounds = {name: float(bound) for name, bound in given.items() if isinstance(bound, (int, float))}
        return Budget(
            {name: bound for name, bound in bounds.items() if not name.startswith("min_")},
            {name.removeprefix("min_"): bound for name, bound in bounds.items() if name.startswith("min_")},
        )

    @property
    def asked(self) -> int | None:
        """Evaluations that the search was asked for; None where nothing says so."""
        if self.ranked is not None:
            return len(self.ranked)
        experiment = self.description.get("experiment", self.description)
        asked = experiment.get("evaluations") if isinstance(experiment, dict) else None
        return int(asked) if asked is not None else None

    @property
    def fine_after(self) -> int | None:
        """Evaluations after which a coarse-to-fine search takes small steps only.

        None for other searchers, and for a run that has not come so far.
        """
        searcher = section(self.description, "searcher")
        if searcher.get("name") != "coarse-to-fine":
            return None
        experiment = self.description.get("experiment", self.description)
        half = int(experiment.get("evaluations", len(self.ids))) // 2
        switch = int(searcher.get("fine_after") or max(half, 1))
        return switch if switch <= len(self.ids) else None

    def entry(self, index: int, space: Space) -> dict[str, Any]:
        """Return one evaluation, as in best.json; None in place of what is not finite."""
        metrics = {name: values[index] for name, values in self.metrics.items()}
        costs = {name: values[index] for name, values in self.costs.items()}
        entry = make_entry(space, self.genes[index], int(index), metrics, costs).to_json()
        for part in ("metrics", "costs"):
            entry[part] = {name: finite_or_none(value) for name, value in entry[part].items()}
        return entry


def read_run(folder: RunFolder, objectives: Sequence[Objective] | None = None, space: Space | None = None) -> RunData:
    """Read a run; its objectives are those of its best.json unless given.

    A run without a history, of a gradient search, is read from its best.json alone, in the space that is given.

    Raises:
        NasrayError: if no batch is finished, a part file is corrupt, or an objective is not in the history.
    """
    description = folder.description()
    batches = list(folder.read_batches())
    if not batches and space is not None and folder.is_finished():
        return _read_derived(folder, space)
    if not batches:
        raise NasrayError(f"{folder.path} has no finished batch yet. `nasray resume` continues the search")
    ends = np.cumsum([len(batch.ids) for batch in batches])
    best = folder.read_best() if objectives is None or (folder.path / "best.json").is_file() else {}
    if objectives is None:
        objectives = [Objective(**entry) for entry in best["objectives"]]
    name = description.get("name") or section(description, "experiment").get("name") or folder.path.name
    run = RunData(
        name=str(name),
        description=description,
        objectives=tuple(objectives),
        ids=[key for batch in batches for key in batch.ids],
        genes=np.concatenate([batch.genes for batch in batches]),
        costs=_joined([batch.costs for batch in batches]),
        metrics=_joined([batch.metrics for batch in batches]),
        batch_ends=ends,
        timing=run_timing(folder.read_trials(), ends),
        ended_early=best.get("ended_early"),
        finished=bool(best.get("finished", True)),
        cost_scope=best.get("cost_scope", {}),
        parents=np.concatenate([batch.parents for batch in batches]),
    )
    for objective in run.objectives:
        run.column(objective.name)
    return run


def _read_derived(folder: RunFolder, space: Space) -> RunData:
    """Return the derived architectures of a gradient search, an evaluation for each seed."""
    best, entries = folder.read_best(), folder.read_entries()
    order = np.array([entry.evaluation for entry in entries], dtype=np.int64)
    by_seed = sorted(entries, key=lambda entry: entry.evaluation)
    description = folder.description()
    return RunData(
        name=str(section(description, "experiment").get("name") or folder.path.name),
        description=description,
        objectives=tuple(Objective(**objective) for objective in best["objectives"]),
        ids=[entry.id for entry in by_seed],
        genes=np.stack([space.from_architecture(entry.architecture) for entry in by_seed]),
        costs={name: np.array([entry.costs[name] for entry in by_seed]) for name in entries[0].costs},
        metrics={name: np.array([entry.metrics[name] for entry in by_seed]) for name in entries[0].metrics},
        batch_ends=np.arange(1, len(entries) + 1),
        timing=run_timing([], np.empty(0, dtype=np.int64)),
        cost_scope=best.get("cost_scope", {}),
        ranked=order,
    )


def box_shares(values: Floats, ends: Sequence[int], low: Floats, high: Floats) -> Floats:
    """Return the share of a box that the front of the first points covers; NaN where the box has no width.

    Args:
        values: (N, 2) points, the larger the better, none beyond the box.
        ends: How many of the first points each time, ascending.
        low: (2,) worst corner of the box.
        high: (2,) best corner.
    """
    scaled = (values - low) / np.where(high > low, high - low, np.nan)
    front, shares, start = np.empty((0, 2)), [], 0
    for end in ends:
        known = np.concatenate([front, scaled[start:end]])
        front, start = known[pareto_front(known)], end
        front = np.unique(front, axis=0)[::-1]  # the first objective falls, the second rises
        shares.append(float((front[:, 0] * np.diff(front[:, 1], prepend=0.0)).sum()))
    return np.array(shares)


def _joined(columns: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([batch[name] for batch in columns]) for name in columns[0]}


def section(description: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a part of the description, which holds it under `experiment` or at its top; empty where it has none."""
    experiment = description.get("experiment")
    for owner in (experiment if isinstance(experiment, dict) else {}, description):
        part = owner.get(name)
        if isinstance(part, dict):
            return part
    return {}


def run_timing(trials: Sequence[dict[str, Any]], batch_ends: Ints) -> Timing:
    """Return where the time went, from the records of the trials and (B,) evaluations told after each batch."""
    trials = sorted(trials, key=lambda trial: trial["started"])
    if not trials:
        return Timing(None, None, 0, 0, None)
    workers = [(trial.get("host"), trial["process"]) for trial in trials]
    last = {worker: number for number, worker in enumerate(workers)}
    sessions: list[list[int]] = [[0]]
    end, known_until = trials[0]["started"] + trials[0]["seconds"], last[workers[0]]
    for number, trial in enumerate(trials[1:], start=1):
        # A resumed search has other processes, and Ray started in between.
        if trial["started"] - end > PAUSE and known_until < number:
            sessions.append([])
        sessions[-1].append(number)
        end = max(end, trial["started"] + trial["seconds"])
        known_until = max(known_until, last[workers[number]])
    seconds = available = 0.0
    most_workers = 0
    for session in sessions:
        begin = trials[session[0]]["started"]
        span = max(trials[number]["started"] + trials[number]["seconds"] for number in session) - begin
        num_workers = len({workers[number] for number in session})
        seconds += span
        available += span * num_workers
        most_workers = max(most_workers, num_workers)
    sizes = np.diff(batch_ends, prepend=0)
    done = sum(int(sizes[trial["batch"]]) for trial in trials if trial["batch"] < len(sizes))
    busy = sum(trial["seconds"] for trial in trials)
    rate, share = done / seconds if seconds > 0 else None, busy / available if available > 0 else None
    return Timing(seconds, rate, len(sessions), most_workers, share)


def finite_or_none(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return float(value) if math.isfinite(value) else None
