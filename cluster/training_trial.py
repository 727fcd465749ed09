"""A trial of Ray Tune that is a training of one worker."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from nasray.cluster.board import Board
from nasray.cluster.progress import say
from nasray.cluster.resources import assigned_gpus, hide_unassigned_gpus
from nasray.cluster.training import Worker, compute_on
from nasray.spaces import NasrayError


class TrainingTrial(tune.Trainable):
    """Trains to the next validation with every step."""

    def setup(self, config: dict[str, Any], jobs: Mapping[str, Any] | None = None, cpus: float = 1.0) -> None:
        """Find the training; it begins, or goes on, with the first step."""
        assert jobs is not None
        hide_unassigned_gpus()
        self.jobs, self.cpus = jobs, cpus
        self._open(config["label"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another training: importing PyTorch anew takes longer than a small one."""
        self._open(new_config["label"])
        return True

    def _open(self, label: str) -> None:
        self.label = label
        self.job, folder, board = self.jobs[label]
        self.folder, self.board = Path(folder), Board(Path(board))
        self.validations: Iterator[Mapping[str, float]] | None = None

    def step(self) -> dict[str, Any]:
        """Train until the next validation, or the end."""
        try:
            if self.validations is None:
                if self.board.should_stop():
                    return self._result(done=True)
                self.validations = iter(self.job.train(self.folder, self._worker()))
            next(self.validations)
        except StopIteration:
            return self._result(done=True)
        except NasrayError as error:  # it would fail again in the same way
            if not self.board.should_stop():
                self.board.say(str(error))  # the others go on, maybe for days
            return {**self._result(done=True), "mistake": str(error)}
        return self._result(done=False)

    def _result(self, *, done: bool) -> dict[str, Any]:
        return {"done": done, "label": self.label, "process": os.getpid()}

    def _worker(self) -> Worker:
        compute_on(self.cpus)
        return Worker(
            device="cuda:0" if assigned_gpus() else "cpu",
            progress=self.board.progress,
            say=self.board.say,
            should_stop=self.board.should_stop,
        )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: the training's folder holds its checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""


class Restarts(tune.Callback):
    """Tell the user which trainings start again."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tell of one whose process has died, or that failed by no mistake of its user's."""
        del iteration, trials, info
        say(f"training {trial.config['label']} has failed; starting again from the last checkpoint")
