"""From a recipe to the parts of its training, and the training itself in one worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nasray.checkpoint import make_detector
from nasray.cluster.training import Worker
from nasray.data import TrainLoader, open_data
from nasray.models.detectors.base import Detector
from nasray.recipe import Recipe
from nasray.training.folder import CheckpointFiles, Description, read_description
from nasray.training.loop import Loop, Parts
from nasray.training.norms import synchronise_norms
from nasray.training.optimisers import freeze_backbone
from nasray.training.validation import make_validation
from nasray.training.weights import check_fits, load_weights


def train(recipe: Recipe, folder: Path, worker: Worker | None = None) -> dict[str, Any]:
    """Train, from the folder's last checkpoint where there is one; gives the content of summary.json.

    Several workers call it at the same time, with PyTorch's process group ready.

    Args:
        recipe: of the folder; its `resources` may differ, as long as the batch divides among the workers.
        folder: that `create_folder` made.
        worker: this one; the only one, on the CPU, by default.

    Raises:
        NasrayError: for whatever a user can mend.
    """
    worker = worker or Worker()
    description = read_description(folder)
    files = CheckpointFiles(folder / "checkpoints", recipe.keep_best)
    checkpoint, lines = files.load()
    if checkpoint is not None:
        check_fits(checkpoint, files.last, description.architecture, description.classes)
        if lines:
            lines.append(f"the training goes on from iteration {checkpoint.iteration:,} instead")
    parts, more = make_parts(recipe, description, worker, with_weights=checkpoint is None)
    if worker.rank == 0:
        for line in [*lines, *more]:
            worker.say(line)
    return Loop(recipe, folder, parts, worker, checkpoint).run()


def make_parts(
    recipe: Recipe, description: Description, worker: Worker, *, with_weights: bool = True
) -> tuple[Parts, list[str]]:
    """The parts of a recipe's training for one worker, and lines that its user should know.

    Args:
        recipe: of the training.
        description: of the training.
        worker: whose images they are.
        with_weights: load the recipe's pre-trained weights, if it names any.

    Raises:
        NasrayError: if data, weights and recipe do not go together.
    """
    lines: list[str] = []
    source = open_data(recipe.data)
    dataset = source.split("train")
    detector = fresh_detector(recipe, description)
    if recipe.weights and with_weights:
        lines.append(load_weights(detector, recipe.weights, description.architecture, description.classes))
    freeze_backbone(detector, recipe)
    device = torch.device(worker.device)
    if worker.world > 1:
        synchronise_norms(detector, device)
    if recipe.channels_last:
        detector.to(memory_format=torch.channels_last)
    detector.to(device)
    batches = TrainLoader(
        dataset, recipe.augmentation, batch_size=recipe.batch_size // worker.world, stride=detector.stride,
        seed=recipe.seed, rank=worker.rank, world=worker.world, options=recipe.loader,
        with_masks=detector.learns_masks,
    )  # fmt: skip
    validate = make_validation(source, recipe, detector.stride, worker)
    if validate is None:
        lines.append(f"data set {source.source} has no split val: nothing is validated, and no checkpoint is the best")
    return Parts(detector, batches, validate, dataset.describe, description), lines


def fresh_detector(recipe: Recipe, description: Description) -> Detector:
    """The recipe's detector on the CPU, with weights that follow from its seed.

    Raises:
        NasrayError: if detector, backbone and options do not go together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return make_detector(recipe, description.architecture, len(description.classes))
