"""A training as one of several that run at the same time, each with one worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasray.cluster import owned
from nasray.cluster.ownership import STALE
from nasray.recipe import Recipe
from nasray.spaces import Architecture
from nasray.training.folder import (
    clear_unbegun,
    create_folder,
    drop_damaged_summary,
    is_finished,
    is_training,
    read_description,
    read_summary,
)

if TYPE_CHECKING:
    from nasray.cluster.training import Worker


@dataclass(frozen=True)
class TrainingJob:
    """Training of one network by one worker, for `nasray.cluster.trainings.run_jobs`.

    Attributes:
        label: Name of the training, and of its folder within the one of all.
        recipe: Recipe; its `resources` do not count.
        architecture: Architecture that is trained.
    """

    label: str
    recipe: Recipe
    architecture: Architecture

    def result(self, folder: Path) -> dict[str, float] | None:
        """Return the metrics of the best validation if the training in a folder is finished, else None."""
        drop_damaged_summary(folder)
        if not is_finished(folder):
            return None
        return {name: value for name, value in read_summary(folder)["best"].items() if name != "iteration"}

    def train(self, folder: Path, worker: Worker) -> Iterator[dict[str, float]]:
        """Train in a folder, from its last checkpoint where there is one, and yield the metrics of every validation.

        Raises:
            NasrayError: For every mistake that the user can fix.
        """
        from nasray.training.preparing import try_out
        from nasray.training.setup import make_loop

        # The process that this one stands in for may not be quite dead, or be of a machine that is lost.
        with owned(folder, patience=2 * STALE):
            if not is_training(folder):
                clear_unbegun(folder)
                create_folder(folder, try_out(self.recipe, self.architecture))
            yield from make_loop(read_description(folder).recipe, folder, worker).validations()
