"""A run's history as an Optuna study, for Optuna's dashboard and its plots.

    nasray export RUN --to study.db
    optuna-dashboard sqlite:///study.db

Every evaluation is a finished trial: its parameters are the genes, its values the objectives, and its user attributes
the architecture's id, all metrics and costs. The run itself needs no study; nothing of it is read back.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.cluster import RunFolder, write_atomic
from nasray.loading import plan_of_run
from nasray.spaces import Gene

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage


def export_study(run: RunFolder, path: Path) -> dict[str, Any]:
    """Write the history of a run's search to an SQLite file that holds an Optuna study of the run's name.

    Args:
        run: Run, or stage that searches.
        path: File to write; it appears whole, and replaces one that is there.

    Returns:
        `study`, its name; `trials`, their number; `file`.

    Raises:
        NasrayError: If the run evaluates no architectures, no batch is finished yet, or the file cannot be written.
    """
    import optuna

    searcher, history = plan_of_run(run).parts.searcher, run.read_history()
    names = [objective.name for objective in searcher.objectives]
    figures = {**history.costs, **history.metrics}
    values = np.column_stack([np.asarray(figures[name], dtype=np.float64) for name in names])
    trials = []
    for key, row, value, attributes in zip(
        history.ids, history.genes.tolist(), values.tolist(), _rows_of(figures), strict=True
    ):
        is_known = all(map(math.isfinite, value))
        params, distributions = _parameters(searcher.space.genes, row)
        trials.append(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if is_known else optuna.trial.TrialState.FAIL,
                params=params,
                distributions=distributions,
                values=value if is_known else None,
                user_attrs={"id": key, **attributes},
            )
        )
    sides = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}
    directions = [sides[objective.direction] for objective in searcher.objectives]
    name = run.path.resolve().name
    with _in_memory() as storage:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)
        study.add_trials(trials)
        connection = storage.engine.raw_connection().driver_connection
        assert connection is not None
        write_atomic(path, connection.serialize())
    return {"study": name, "trials": len(trials), "file": str(path)}


def _parameters(genes: Sequence[Gene], row: Sequence[int]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Return a row's parameters and what a sampler of Optuna's draws them from, as `Gene.suggest` asks for them.

    Genes of what is not there, such as a stage that a network leaves out, have none of their values, and are left out.
    """
    import optuna

    held = [(gene, value) for gene, value in zip(genes, row, strict=True) if value in gene.values]
    trial = optuna.trial.FixedTrial({gene.name: gene.to_param(value) for gene, value in held})
    for gene, _ in held:
        gene.suggest(trial)
    return trial.params, trial.distributions


def _rows_of(columns: Mapping[str, Any]) -> Iterator[dict[str, float | None]]:
    """Yield a mapping for each row of columns of the same length; what is not finite is None."""
    for row in zip(*(np.asarray(column, dtype=np.float64).tolist() for column in columns.values()), strict=True):
        yield {name: value if math.isfinite(value) else None for name, value in zip(columns, row, strict=True)}


@contextlib.contextmanager
def _in_memory() -> Iterator[RDBStorage]:
    """Yield a storage in memory: on disk, Optuna flushes every trial by itself, a hundred times slower."""
    import optuna
    from sqlalchemy.pool import StaticPool

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
    try:
        yield storage
    finally:
        optuna.logging.set_verbosity(level)
        storage.engine.dispose()
