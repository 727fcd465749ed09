"""Training of detectors. PyTorch and Ray are imported when one begins, not before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.configuration import validate
from nasray.recipe import RECIPE, Recipe, WorkerOptions
from nasray.spaces import Architecture

if TYPE_CHECKING:
    from nasray.cluster.training import Worker


def begin_training(recipe: Recipe, folder: Path | str, architecture: Architecture | None = None) -> dict[str, Any]:
    """Train a detector in a new folder; gives iterations, and metrics of the best and of the last validation.

    Data, backbone, detector and weights are looked at before anything is written.

    Args:
        recipe: of the training.
        folder: empty, or not there yet.
        architecture: of the backbone, instead of the one that the recipe names.

    Raises:
        NasrayError: for every mistake that the user can mend; what was saved can be continued.
        KeyboardInterrupt: if the user interrupted it; its state is saved.
    """
    from nasray.architectures import find_architecture
    from nasray.data import open_data
    from nasray.training.folder import Description, create_folder, refuse_occupied

    path = Path(folder).absolute()
    refuse_occupied(path)
    recipe = _with_absolute_paths(recipe)
    architecture = architecture or find_architecture(recipe.backbone)
    source = open_data(recipe.data)
    dataset = source.split("train")
    if "val" in source.splits:
        source.split("val")
    description = Description(recipe, architecture, dataset.classes, dataset.category_ids)
    _try_out(description)
    create_folder(path, description)
    return _run(recipe, path)


def resume_training(folder: Path | str, resources: WorkerOptions | None = None) -> dict[str, Any]:
    """Continue a training from its last checkpoint, or from the beginning if it has none.

    Args:
        folder: of the training.
        resources: workers from now on, instead of those of the recipe. With as many as before the training goes on
            exactly as it would have; with others, but for rounding, and for what detectors sample.

    Raises:
        NasrayError: if there is no training, or its checkpoints are all damaged; and as `begin_training`.
    """
    path = Path(folder).absolute()
    recipe = recipe_of_training(path)
    if resources is not None:
        content = {**RECIPE.dump_python(recipe, mode="json"), "resources": vars(resources)}
        recipe = validate(RECIPE, Recipe, content, str(folder))
    return _run(recipe, path)


def recipe_of_training(folder: Path | str) -> Recipe:
    """The recipe that a training was begun with.

    Raises:
        NasrayError: if there is none in the folder.
    """
    from nasray.training.folder import read_description

    return read_description(Path(folder)).recipe


def _run(recipe: Recipe, path: Path) -> dict[str, Any]:
    from nasray.cluster.training import Group, run_training

    run_training(_train, (recipe, str(path)), folder=path, group=Group(**vars(recipe.resources)))
    return json.loads((path / "summary.json").read_text())


def _train(config: tuple[Recipe, str], worker: Worker) -> None:
    """The loop as the workers call it."""
    from nasray.training.setup import train

    train(config[0], Path(config[1]), worker)


def _try_out(description: Any) -> None:
    """Build the detector once and load its weights, to find out here what does not go together."""
    from nasray.training.optimisers import freeze_backbone
    from nasray.training.setup import fresh_detector
    from nasray.training.weights import load_weights

    recipe = description.recipe
    detector = fresh_detector(recipe, description)
    freeze_backbone(detector, recipe)
    if recipe.weights:
        load_weights(detector, recipe.weights, description.architecture, description.classes)


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """Workers may run in other folders. What is no path stays as it is."""
    data = str(Path(recipe.data).absolute()) if recipe.data != "shapes" and Path(recipe.data).exists() else recipe.data
    weights = str(Path(recipe.weights).absolute()) if recipe.weights else None
    return dataclasses.replace(recipe, data=data, weights=weights)


__all__ = ["begin_training", "recipe_of_training", "resume_training"]
