"""A trial of Ray Tune that is a training of one worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from nasray.cluster.board import Board
from nasray.cluster.resources import assigned_gpus, hide_unassigned_gpus
from nasray.cluster.training import Worker
from nasray.spaces import NasrayError


class TrainingTrial(tune.Trainable):
    """Trains to the next validation with every step."""

    def setup(self, config: dict[str, Any], jobs: Mapping[str, Any] | None = None, threads: int = 1) -> None:
        """Find the training; it begins, or goes on, with the first step."""
        assert jobs is not None
        hide_unassigned_gpus()
        self.label: str = config["label"]
        self.job, folder, board = jobs[self.label]
        self.folder, self.board, self.threads = Path(folder), Board(Path(board)), threads
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
            return {**self._result(done=True), "mistake": str(error)}
        return self._result(done=False)

    def _result(self, *, done: bool) -> dict[str, Any]:
        return {"done": done, "label": self.label, "process": os.getpid()}

    def _worker(self) -> Worker:
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # Ray says one, whatever a trial has
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
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
