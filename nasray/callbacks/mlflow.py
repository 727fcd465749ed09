"""MLflow: one run there for a run of nasray's, with the metrics of all its searches and trainings."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from nasray.callbacks.kept import flat, keep_id, read_id, settings
from nasray.cluster.callbacks import Event, StageEvent
from nasray.spaces import NasrayError

MAX_PARAMS = 100
"""Parameters that MLflow takes at a time."""
MAX_LENGTH = 500
"""Characters of a parameter that every store takes."""


class MLflow:
    """Log batches and lines of trainings to MLflow.

    Where is said by MLflow's own environment: `MLFLOW_TRACKING_URI` (without it, a store of MLflow's own choice in the
    folder where the command runs), and `MLFLOW_EXPERIMENT_NAME` (nasray if unset). Scalars have dots there where
    TensorBoard has slashes, since MLflow's files hold no metric `loss` beside `loss/cls`.

    Raises:
        NasrayError: if MLflow is not installed.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise NasrayError(
                f"callback 'mlflow' needs the package mlflow-skinny, or mlflow: {error}. Install nasray with the extra "
                "mlflow, or leave the callback out"
            ) from error
        self.client: Any = mlflow.MlflowClient()
        self.entities: Any = mlflow.entities
        self.id: str | None = None
        self.is_stopped = False

    def __call__(self, event: Event) -> None:
        """Log an event."""
        if self.id is None:
            self.id = self._begin(event.run)
        if isinstance(event, StageEvent):
            self.is_stopped = event.state == "stop"
            self.client.set_tag(self.id, f"{event.source}/state", event.state)
            return
        now = int(time.time() * 1000)
        metric = self.entities.Metric
        named = {f"{event.source}/{name.replace('/', '.')}": value for name, value in event.scalars.items()}
        metrics = [metric(name, value, now, event.step) for name, value in named.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def _begin(self, run: str) -> str:
        if known := read_id(run, "mlflow"):
            self.client.update_run(known, status="RUNNING")
            return known
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "nasray"
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment is not None else self.client.create_experiment(name)
        begun = str(self.client.create_run(place, run_name=Path(run).name).info.run_id)
        keep_id(run, "mlflow", begun)
        params = [self.entities.Param(key, value[:MAX_LENGTH]) for key, value in flat(settings(run)).items()]
        for first in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(begun, params=params[first : first + MAX_PARAMS])
        return begun

    def close(self) -> None:
        """End the run; a further session of the same run of nasray's goes on with it."""
        if self.id is not None:
            self.client.set_terminated(self.id, status="FAILED" if self.is_stopped else "FINISHED")
            self.id = None
