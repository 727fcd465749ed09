"""Several trainings: at the same time where each has one worker, else one after another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.cluster import owned, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.ownership import STALE
from nasray.cluster.records import Reached, read_record
from nasray.cluster.training import Group, Worker
from nasray.cluster.trainings import run_jobs
from nasray.devices import choose_device
from nasray.recipe import Recipe
from nasray.spaces import Architecture
from nasray.training import finish_training, with_absolute_paths
from nasray.training.folder import (
    clear_unbegun,
    create_folder,
    drop_damaged_summary,
    is_finished,
    is_training,
    last_checkpoint,
    read_description,
    read_summary,
)

if TYPE_CHECKING:
    from nasray.training.loop import Loop

RUNGS = "rungs.json"
"""What a training reached at the rungs of a halving, each noted once its checkpoint is there."""


@dataclass(frozen=True)
class TrainingJob:
    """Training of one network by one worker, for `nasray.cluster.trainings.run_jobs`.

    Attributes:
        label: Name of the training, and of its folder within the one of all.
        recipe: Recipe; its `resources` do not count.
        architecture: Architecture that is trained.
        rung: Epochs of the schedule after which it pauses, with a validation there; None for the end.
    """

    label: str
    recipe: Recipe
    architecture: Architecture
    rung: float | None = None

    def result(self, folder: Path) -> dict[str, float] | None:
        """Return the metrics of the best validation if the training in a folder is finished, else None.

        With a rung: those of the validation there, if the training has come so far.
        """
        if self.rung is not None:
            reached = {entry["epochs"]: entry["metrics"] for entry in _read_rungs(folder)}
            return reached.get(self.rung)
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
            loop = make_loop(read_description(folder).recipe, folder, worker)
            yield from loop.validations() if self.rung is None else _to_rung(loop, self.rung)


def _to_rung(loop: Loop, rung: float) -> Iterator[dict[str, float]]:
    """Train up to a rung, note in rungs.json what was reached there, and yield the metrics of every validation."""
    end = math.ceil(rung * loop.per_epoch - 1e-9)
    if loop.iteration < end:
        for metrics in loop.validations():
            yield metrics
            if loop.iteration == end:
                break
    if loop.recorder is not None:
        loop.recorder.close()
    if loop.iteration == end:  # the checkpoint of the rung is there; else a session before this one went on from it
        reached = [*_read_rungs(loop.folder), {"epochs": rung, "metrics": loop.metrics}]
        write_atomic(loop.folder / RUNGS, to_json({"rungs": reached}, indent=1).encode())


def _read_rungs(folder: Path) -> list[dict[str, Any]]:
    """Return what a training reached at each rung so far: `epochs` and `metrics`.

    Raises:
        NasrayError: if rungs.json is damaged.
    """
    path = folder / RUNGS
    remedy = f"Move {folder} away: the training begins anew"
    content = read_record(path, Reached, remedy) if path.is_file() else {"rungs": []}
    rungs: list[dict[str, Any]] = content["rungs"]
    return rungs


@dataclass(frozen=True)
class StagedTraining:
    """Trainings of one architecture, one after another, each with the weights of the one before.

    Attributes:
        label: Name, and folder within the one of all; each of its trainings has a folder in it.
        architecture: Architecture that is trained.
        seed: Seed of the recipes.
    """

    label: str
    architecture: Architecture
    seed: int


def train_here(recipe: Recipe, folder: Path, architecture: Architecture) -> dict[str, Any]:
    """Train in this process alone, on its GPU where it has one, and return the content of summary.json.

    What is in the folder already is gone on with; a training that is finished is not repeated.

    Args:
        recipe: Recipe; its `resources` do not count.
        folder: Folder of the training.
        architecture: Architecture that is trained.

    Raises:
        NasrayError: for every mistake that the user can fix.
    """
    job = TrainingJob(folder.name, recipe, architecture)
    if job.result(folder) is None:
        for _ in job.train(folder, Worker(device=str(choose_device("auto")))):
            pass
    return read_summary(folder)


def train_all(jobs: Sequence[TrainingJob], folder: Path) -> dict[str, dict[str, Any]]:
    """Train all to the end from wherever they are: several at a time if they have one worker, else one after another.

    Args:
        jobs: Trainings with the same resources; weights of those that are begun do not count.
        folder: Folder of them all, owned by the caller.

    Returns:
        Content of summary.json by label, in the order of the jobs.

    Raises:
        NasrayError: for every mistake that the user can fix; what was saved can be continued.
        KeyboardInterrupt: if the user interrupted it; its state is saved.
    """
    train_to(jobs, folder)
    return {job.label: read_summary(folder / job.label) for job in jobs}


def train_to(jobs: Sequence[TrainingJob], folder: Path) -> dict[str, dict[str, float]]:
    """Train all to their rungs, or to the end, as `train_all`; return the result of each by its label.

    Raises:
        NasrayError, KeyboardInterrupt: as `train_all`.
    """
    if not jobs:
        return {}
    jobs = [dataclasses.replace(job, recipe=_one_of_several(job.recipe)) for job in jobs]
    group = Group(**vars(jobs[0].recipe.resources))
    if group.workers == 1:
        found: dict[str, dict[str, float]] = run_jobs(jobs, folder, group=group)
        return found
    for job in jobs:
        finish_training(job.recipe, folder / job.label, job.architecture)
    return {job.label: job.result(folder / job.label) or {} for job in jobs}


def _one_of_several(recipe: Recipe) -> Recipe:
    """Return a recipe with absolute paths and without callbacks, which are of trainings that are alone."""
    return dataclasses.replace(with_absolute_paths(recipe), callbacks=())


def train_in_stages(
    trainings: Sequence[StagedTraining], recipes: Mapping[str, Recipe], folder: Path
) -> dict[str, dict[str, Any]]:
    """Train all by the first recipe, then all by the next one, as `train_all` does.

    Args:
        trainings: At least one.
        recipes: Recipes by stage, in their order, without weights. One with `continues` goes on with the whole training
            of the stage before, any other takes its weights.
        folder: Folder of them all, owned by the caller: a training is in LABEL/STAGE of it.

    Returns:
        Content of summary.json of the last stage by label.

    Raises:
        NasrayError, KeyboardInterrupt: as `train_all`.
    """
    stages = list(recipes)
    for number, (stage, recipe) in enumerate(recipes.items()):
        jobs = []
        for training in trainings:
            own = folder / training.label
            if any(is_training(own / later) for later in stages[number + 1 :]):  # it needs this one no more
                continue
            before = str(last_checkpoint(own / stages[number - 1])) if number else None
            begin: dict[str, Any] = {"weights": None, "continues": before} if recipe.continues else {"weights": before}
            seeded = dataclasses.replace(recipe, seed=training.seed, **begin)
            jobs.append(TrainingJob(f"{training.label}/{stage}", seeded, training.architecture))
        train_all(jobs, folder)
    return {training.label: read_summary(folder / training.label / stages[-1]) for training in trainings}
