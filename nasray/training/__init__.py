"""Training of detectors and classifiers. PyTorch and Ray are imported when one begins, not before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.callbacks import Callback, make_callbacks
from nasray.recipe import RECIPE, Recipe
from nasray.recipe_options import WorkerOptions
from nasray.spaces import Architecture
from nasray.training.preparing import try_out, with_absolute_paths
from nasray.validation import validate

if TYPE_CHECKING:
    from nasray.cluster.training import Worker


def begin_training(
    recipe: Recipe,
    folder: Path | str,
    architecture: Architecture | None = None,
    *,
    clear: bool = False,
    callbacks: Sequence[str | Callback] = (),
) -> dict[str, Any]:
    """Train a network in a new folder; return iterations, and metrics of the best and of the last validation.

    Data, backbone, detector and weights are looked at before anything is written.

    Args:
        recipe: Recipe of the training.
        folder: Output folder, empty or not there yet.
        architecture: Architecture for the slots that it fills, instead of those that the recipe names.
        clear: Whether to remove what a training left that was interrupted before its recipe was written.
        callbacks: Names and functions that hear it, beside those of the recipe.

    Raises:
        NasrayError: for every mistake that the user can fix; what was saved can be continued.
        KeyboardInterrupt: if the user interrupted it; its state is saved.
    """
    from nasray.cluster import Resources, check_reachable, owned, refuse_owned
    from nasray.cluster.callbacks import heard_by
    from nasray.cluster.training import training_session
    from nasray.training.folder import clear_unbegun, create_folder, refuse_occupied

    path = Path(folder).absolute()
    refuse_owned(path)
    if not clear:
        refuse_occupied(path)
    check_reachable(Resources(address=recipe.resources.address))
    recipe = with_absolute_paths(recipe)
    description = try_out(recipe, architecture)
    heard = heard_by(make_callbacks(recipe.callbacks, callbacks), path)
    with owned(path), training_session(recipe.resources.address, recipe.resources.workers), heard:
        if clear:
            clear_unbegun(path)
        create_folder(path, description)
        return _run(description.recipe, path)


def finish_training(recipe: Recipe, folder: Path, architecture: Architecture) -> dict[str, Any]:
    """Train to the end from wherever a folder's training is, and return the content of summary.json.

    Args:
        recipe: Recipe of the training, if it is not begun yet.
        folder: Folder of the training.
        architecture: What is trained.

    Raises:
        NasrayError: as `begin_training`.
    """
    from nasray.training.folder import drop_damaged_summary, is_finished, is_training, read_summary

    drop_damaged_summary(folder)
    if not is_finished(folder):
        if is_training(folder):
            resume_training(folder)
        else:
            begin_training(recipe, folder, architecture, clear=True)
    return read_summary(folder)


def resume_training(
    folder: Path | str, resources: WorkerOptions | None = None, *, callbacks: Sequence[str | Callback] = ()
) -> dict[str, Any]:
    """Continue a training from its last checkpoint, or from the beginning if it has none.

    Args:
        folder: Folder of the training.
        resources: Workers from now on, instead of those of the recipe. With as many as before the training goes on
            exactly as it would have; with others, but for rounding, and for what detectors sample.
        callbacks: Names and functions that hear it, beside those of the recipe.

    Raises:
        NasrayError: if there is no training, or its checkpoints are all damaged; and as `begin_training`.
    """
    from nasray.cluster import owned
    from nasray.cluster.callbacks import heard_by
    from nasray.training.folder import drop_damaged_summary

    path = Path(folder).absolute()
    recipe = recipe_of_training(path)
    if resources is not None:
        content = {**RECIPE.dump_python(recipe, mode="json"), "resources": vars(resources)}
        recipe = validate(RECIPE, Recipe, content, str(folder))
    with owned(path), heard_by(make_callbacks(recipe.callbacks, callbacks, is_begun=True), path):
        drop_damaged_summary(path)
        return _run(recipe, path)


def recipe_of_training(folder: Path | str) -> Recipe:
    """Return the recipe that a training was begun with.

    Raises:
        NasrayError: if there is none in the folder.
    """
    from nasray.training.folder import read_description

    return read_description(Path(folder)).recipe


def _run(recipe: Recipe, path: Path) -> dict[str, Any]:
    from nasray.cluster.callbacks import is_heard_alone, told_stage
    from nasray.cluster.log_tail import LOG, TRAINING
    from nasray.cluster.training import Group, run_training
    from nasray.training.folder import is_finished, read_summary

    group = Group(**vars(recipe.resources), divides=recipe.batch_size // recipe.optimizer.accumulate)
    is_told_before = is_finished(path) or not is_heard_alone(path)  # within a run, the run tells its stages
    with told_stage(path, TRAINING, is_begun=(path / LOG).is_file(), is_done=is_told_before) as figures:
        run_training(_train, (recipe, str(path)), folder=path, group=group)
        figures |= read_summary(path)
    return figures


def _train(config: tuple[Recipe, str], worker: Worker) -> None:
    """Run the loop as the workers call it."""
    from nasray.training.setup import train

    train(config[0], Path(config[1]), worker)


__all__ = [
    "begin_training",
    "finish_training",
    "recipe_of_training",
    "resume_training",
    "try_out",
    "with_absolute_paths",
]
