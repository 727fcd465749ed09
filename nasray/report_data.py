"""What a report tells of a run, as plain numbers.

Shapes: N evaluations in the order in which they were told, O objectives, T points in time (batch ends, thinned to at
most `MAX_POINTS`), L levels C1 to C5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.architectures import layer_table
from nasray.architectures.staged import MID_KEYS
from nasray.cluster import RunFolder
from nasray.cluster.leaders import leaders
from nasray.searchers import Metrics, Objective, pareto_front
from nasray.spaces import Architecture, Costs, LayerTable, NasrayError, Population, Space
from nasray.spaces.staged import StagedSpace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_POINTS = 200
PAUSE = 5.0  # seconds between two sessions of a run; Ray alone takes longer to start
LEVELS = (1, 2, 3, 4, 5)


class Timing(NamedTuple):
    """Where the time went, from the first batch's start to the last one's end. None where no trial was recorded.

    Attributes:
        seconds: wall time, without the pauses between an interruption and its resumption.
        evaluations_per_second: of the batches whose trials were recorded.
        sessions: how often the search was begun or resumed.
        workers: most processes in one session.
        busy_share: share of the workers' wall time, in [0, 1], in which they evaluated.
    """

    seconds: float | None
    evaluations_per_second: float | None
    sessions: int
    workers: int
    busy_share: float | None


class Convergence(NamedTuple):
    """One objective over time, each (T,), in the objective's own units; NaN where nothing is finite.

    Attributes:
        evaluations: told so far.
        best: best so far.
        mean: of the finite values since the point before.
        std: their standard deviation.
    """

    evaluations: Ints
    best: Floats
    mean: Floats
    std: Floats


class LevelCosts(NamedTuple):
    """Layers of the main branch, gmacs and parameters in millions, each (L, N)."""

    layers: Floats
    gmacs: Floats
    params_m: Floats


class Stage(NamedTuple):
    """One row of a stage table, as in Tables 10-15 of MAE-DET; `mid` is None where a block has none."""

    level: str
    block: str
    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    mid: int | None
    depth: int
    gmacs: float


class StageTable(NamedTuple):
    """An architecture's stages, what their `mid` means, and the costs of the whole."""

    stages: list[Stage]
    mid_name: str | None
    costs: dict[str, float]


@dataclass(frozen=True)
class RunData:
    """A run as it lies in its folder.

    Attributes:
        name: of the experiment, or of the folder.
        description: the content of experiment.yaml.
        objectives: what was optimized; the first one ranks where a single winner is asked for.
        ids: of the N evaluated architectures.
        genes: (N, G).
        costs: each (N,).
        metrics: each (N,).
        batch_ends: (B,) evaluations told after each batch.
        timing: where the time went.
        ended_early: a sentence that says where and why, if the search ended before all its evaluations.
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

    def column(self, name: str) -> Floats:
        """(N,) values of a metric, or else of a cost.

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
        return leaders(self.values)

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
        """One objective over time."""
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
        """(T,) share of the box between the worst and the best finite values that the front covers; two objectives.

        Reference: Zitzler and Thiele, "Multiobjective evolutionary algorithms", IEEE TEVC 1999. NaN without a box.
        """
        assert len(self.objectives) == 2
        finite = np.asarray(np.isfinite(self.values).all(axis=1))
        if not finite.any():
            return np.full(len(self.points), np.nan)
        low, high = self.values[finite].min(axis=0), self.values[finite].max(axis=0)
        scaled = np.where(finite[:, None], self.values - low, 0.0) / np.where(high > low, high - low, np.nan)
        front, shares, start = np.empty((0, 2)), [], 0
        for end in self.points:
            known = np.concatenate([front, scaled[start:end]])
            front, start = known[pareto_front(known)], end
            front = np.unique(front, axis=0)[::-1]  # the first objective falls, the second rises
            shares.append(float((front[:, 0] * np.diff(front[:, 1], prepend=0.0)).sum()))
        return np.array(shares)

    @cached_property
    def budget(self) -> dict[str, list[float]]:
        """The experiment's bounds of each cost, upper and lower alike."""
        bounds: dict[str, list[float]] = {}
        for name, bound in _section(self.description, "budget").items():
            if isinstance(bound, (int, float)):
                bounds.setdefault(name.removeprefix("min_"), []).append(float(bound))
        return bounds

    @property
    def fine_after(self) -> int | None:
        """Evaluations after which a coarse-to-fine search takes small steps only.

        None for other searchers, and for a run that has not come so far.
        """
        searcher = _section(self.description, "searcher")
        if searcher.get("name") != "coarse-to-fine":
            return None
        experiment = self.description.get("experiment", self.description)
        half = int(experiment.get("evaluations", len(self.ids))) // 2
        switch = int(searcher.get("fine_after") or max(half, 1))
        return switch if switch <= len(self.ids) else None

    def entry(self, index: int, space: Space) -> dict[str, Any]:
        """One evaluation, as in best.json; None in place of what is not finite."""
        architecture = space.to_architecture(self.genes[index])
        return {
            "id": self.ids[index],
            "evaluation": int(index),
            "metrics": {name: finite_or_none(values[index]) for name, values in self.metrics.items()},
            "costs": {name: finite_or_none(values[index]) for name, values in self.costs.items()},
            "architecture": {"family": architecture.family, "spec": architecture.spec},
        }


def read_run(folder: RunFolder, objectives: Sequence[Objective] | None = None) -> RunData:
    """Read a run; its objectives are those of its best.json unless given.

    Raises:
        NasrayError: if no batch is finished, a part file is corrupt, or an objective is not in the history.
    """
    description = folder.description()
    batches = list(folder.read_batches())
    if not batches:
        raise NasrayError(f"{folder.path} has no finished batch yet. `nasray resume` continues the search")
    ends = np.cumsum([len(batch.ids) for batch in batches])
    best = folder.read_best() if objectives is None or (folder.path / "best.json").is_file() else {}
    if objectives is None:
        objectives = [Objective(**entry) for entry in best["objectives"]]
    name = description.get("name") or _section(description, "experiment").get("name") or folder.path.name
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
    )
    for objective in run.objectives:
        run.column(objective.name)
    return run


def _joined(columns: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([batch[name] for batch in columns]) for name in columns[0]}


def _section(description: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of the description, which holds it under `experiment` or at its top; empty where it has none."""
    experiment = description.get("experiment")
    for owner in (experiment if isinstance(experiment, dict) else {}, description):
        if isinstance(owner.get(name), dict):
            return owner[name]
    return {}


def run_timing(trials: Sequence[dict[str, Any]], batch_ends: Ints) -> Timing:
    """Where the time went, from the records of the trials and (B,) evaluations told after each batch."""
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
    return Timing(
        seconds, done / seconds if seconds > 0 else None, len(sessions), most_workers,
        busy / available if available > 0 else None,
    )  # fmt: skip


# ---- staged networks ---------------------------------------------------------------------------------------------


def level_costs(table: LayerTable) -> LevelCosts:
    """What every level costs, for each of a table's N architectures."""
    of_level = [table.level == level for level in LEVELS]
    main = table.role == "main"
    return LevelCosts(
        np.stack([table.repeats[rows & main].sum(axis=0) for rows in of_level]),
        np.stack([table.macs[rows].sum(axis=0) for rows in of_level]) / 1e9,
        np.stack([table.params[rows].sum(axis=0) for rows in of_level]) / 1e6,
    )


def winner_stages(space: StagedSpace, genes: NDArray[np.int64]) -> StageTable:
    """The stage table of one (G,) row."""
    return _stage_table(space.to_architecture(genes), space.layers(genes[None]), space.mid_kind)


def reference_stages(architecture: Architecture, image_hw: tuple[int, int]) -> StageTable:
    """The stage table of a staged architecture, whether or not a space holds it."""
    return _stage_table(architecture, layer_table(architecture, image_hw), MID_KEYS[architecture.family])


def _stage_table(architecture: Architecture, table: LayerTable, mid_name: str | None) -> StageTable:
    spec = architecture.spec
    # Block positions 2i + 1 and 2i + 2 are the first block and the others of part i; absent parts have no repeats.
    part = (table.block + 1) // 2
    present = [int(index) for index in np.unique(part) if table.repeats[part == index].any()]
    gmacs = [float(table.macs[part == index].sum()) / 1e9 for index in present]
    levels = [f"C{table.level[part == index][0]}" for index in present]
    stem = spec["stem"]
    block, stride = ("conv + pool", 4) if stem.get("pool") else ("conv", 2)
    stages = [Stage(levels[0], block, stem["kernel"], 3, stem["width"], stride, None, 1, gmacs[0])]
    for stage, level, cost in zip(spec["stages"], levels[1:], gmacs[1:], strict=True):
        mid = stage[mid_name] if mid_name else None
        kernel, width, stride, depth = (stage[name] for name in ("kernel", "width", "stride", "depth"))
        before = stages[-1].out_channels
        stages.append(Stage(level, architecture.family, kernel, before, width, stride, mid, depth, cost))
    return StageTable(stages, mid_name, {name: float(value[0]) for name, value in table.cost().items()})


# ---- as JSON -----------------------------------------------------------------------------------------------------


def finite_or_none(value: float) -> float | None:
    """A number that JSON can hold."""
    return float(value) if math.isfinite(value) else None


def summarize(run: RunData, space: Space) -> dict[str, Any]:
    """The figures of a report, JSON-serializable; None in place of what is not finite or not known."""
    best = int(run.leaders[0])
    many = len(run.objectives) > 1
    summary: dict[str, Any] = {
        "name": run.name,
        "objectives": [{"name": o.name, "direction": o.direction} for o in run.objectives],
        "evaluations": len(run.ids),
        "ended_early": run.ended_early,
        "batches": len(run.batch_ends),
        "not_finite": int((~np.isfinite(run.values).all(axis=1)).sum()),
        **run.timing._asdict(),
        "best": run.entry(best, space),
        "convergence": {objective.name: _points(run.convergence(objective)) for objective in run.objectives},
    }
    if many:
        summary["front"] = [run.entry(int(index), space) for index in run.leaders]
    if len(run.objectives) == 2:
        summary["hypervolume"] = [finite_or_none(share) for share in run.hypervolume()]
    if isinstance(space, StagedSpace):
        costs = level_costs(space.layers(run.genes[best][None]))
        summary["levels"] = {
            f"C{level}": {name: float(rows[level - 1, 0]) for name, rows in costs._asdict().items()} for level in LEVELS
        }
    return summary


def _points(convergence: Convergence) -> list[dict[str, float | int | None]]:
    return [
        {
            "evaluations": int(told),
            "best": finite_or_none(best),
            "mean": finite_or_none(mean),
            "std": finite_or_none(std),
        }
        for told, best, mean, std in zip(*convergence, strict=True)
    ]
