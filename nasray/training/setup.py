"""From a recipe to the parts of its training, and the training itself in one worker."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from nasray.checkpoint import Checkpoint, make_network
from nasray.cluster.reading import shown
from nasray.cluster.training import Worker
from nasray.data import DataSource, DetectionSet, TrainLoader, open_data
from nasray.data.classification import ClassificationLoader, ClassificationSet, ClassificationSource, open_images
from nasray.data.examples import Batches
from nasray.data.order import divide
from nasray.data.work import loading_text
from nasray.models.classifier import Classifier
from nasray.models.detectors.base import Detector
from nasray.models.norms import synchronize_norms
from nasray.models.supernets.sampling import BlockPaths
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.beginning import continued, sort_supernet
from nasray.training.bilevel import AlphaLearner, alphas_of
from nasray.training.distilling import load_teacher, probabilities_of
from nasray.training.folder import CheckpointFiles, Description, read_description
from nasray.training.loop import Loop, Parts
from nasray.training.optimizers import freeze_backbone
from nasray.training.paths import make_paths, make_resolutions
from nasray.training.validation import make_accuracy, make_validation
from nasray.training.weights import check_fits, load_weights

PAUSES = (2.0, 5.0, 15.0, 30.0)
"""Seconds between two looks at checkpoints that differ between workers."""


def train(recipe: Recipe, folder: Path, worker: Worker | None = None) -> dict[str, Any]:
    """Train, from the folder's last checkpoint where there is one; return the content of summary.json.

    As `make_loop`, and what the loop raises.
    """
    return make_loop(recipe, folder, worker or Worker()).run()


def make_loop(recipe: Recipe, folder: Path, worker: Worker) -> Loop:
    """Return the loop of the training in a folder, which goes on from its last checkpoint where there is one.

    Several workers call it at the same time, with PyTorch's process group ready.

    Args:
        recipe: Recipe of the folder; its `resources` may differ, as long as the batch divides among the workers.
        folder: Folder that `create_folder` made.
        worker: Rank and device of this process.

    Raises:
        NasrayError: for whatever a user can fix.
    """
    description = read_description(folder)
    files = CheckpointFiles(folder / "checkpoints", recipe.keep_best)
    checkpoint, lines = load_alike(files)
    is_begun = checkpoint is not None
    if checkpoint is None:
        checkpoint = continued(recipe, description)
    else:
        check_fits(checkpoint, files.last, description.architecture, description.classes)
        if lines:
            lines.append(f"the training goes on from iteration {checkpoint.iteration:,} instead")
    parts, more = make_parts(recipe, description, worker, with_weights=checkpoint is None)
    if worker.rank == 0:
        for line in [*lines, *more]:
            worker.say(line)
    return Loop(recipe, folder, parts, worker, checkpoint, is_begun=is_begun)


def load_alike(files: CheckpointFiles) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest sound checkpoint as `CheckpointFiles.load` does, in all workers the same as in the first.

    A network file system may show one machine an older file for a while: it is read again a few times.

    Raises:
        NasrayError: in all workers, if they still differ then; and as `CheckpointFiles.load`.
    """
    for pause in (*PAUSES, None):
        checkpoint, lines = files.load()
        if not (distributed.is_available() and distributed.is_initialized()):
            return checkpoint, lines
        own = (checkpoint.iteration, checkpoint_digest(checkpoint)) if checkpoint is not None else (None, "")
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, own)
        if all(other == found[0] for other in found):
            return checkpoint, lines
        if pause is not None:
            time.sleep(pause)
    seen = ", ".join(
        f"worker {rank} iteration {iteration} ({digest[:8]})" for rank, (iteration, digest) in enumerate(found)
    )
    raise NasrayError(
        f"the workers see different checkpoints in {shown(files.folder)}: {seen}. Put the folder where all machines "
        "see the same files, or resume once its file system has caught up"
    )


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """Return a SHA-256 of a checkpoint's weights and optimizer state, equal where these are equal bit by bit."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            for key in sorted(value, key=repr):
                digest.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            digest.update(repr(value).encode())

    add([checkpoint.model, checkpoint.training])
    return digest.hexdigest()


class Sets(NamedTuple):
    """The images of a training.

    Attributes:
        train: Data set to train on.
        held: Those of the training set that are kept apart, None if there are none.
        source: Source of all splits.
    """

    train: DetectionSet | ClassificationSet
    held: DetectionSet | ClassificationSet | None
    source: DataSource | ClassificationSource

    def validation(self) -> DetectionSet | ClassificationSet | None:
        """Return the split val, if there is one.

        Raises:
            NasrayError: if it is not fit to be used.
        """
        return self.source.split("val") if "val" in self.source.splits else None

    def require_outlines(self) -> None:
        """Refuse sets that masks cannot be learned from, or not be measured on.

        Raises:
            NasrayError: if outlines are missing in the training set, or are none in a set; it names the first.
        """
        assert isinstance(self.train, DetectionSet)
        self.train.require_outlines()
        measured = self.validation()
        if isinstance(measured, DetectionSet) and measured.segmentations is not None:  # else boxes alone are measured
            measured.require_outlines()


def open_sets(recipe: Recipe) -> Sets:
    """Return the data of a recipe.

    Raises:
        NasrayError: if they cannot be used, or more images are to be held out than there are.
    """
    source = open_images(recipe.data) if recipe.task == "classification" else open_data(recipe.data)
    dataset = source.split("train")
    if not recipe.holdout:
        return Sets(dataset, None, source)
    if recipe.holdout >= len(dataset):
        raise NasrayError(
            f"holdout {recipe.holdout}: the training set of {recipe.data} has {len(dataset)} images; hold out fewer"
        )
    kept, held = divide(recipe.split_seed, len(dataset), recipe.holdout)
    return Sets(dataset.select(kept), dataset.select(held), source)


def make_parts(
    recipe: Recipe, description: Description, worker: Worker, *, with_weights: bool = True
) -> tuple[Parts, list[str]]:
    """Return the parts of a recipe's training for one worker, and lines that its user should know.

    Args:
        recipe: Recipe of the training.
        description: Description of the training.
        worker: Worker whose images they are.
        with_weights: Whether the network begins as the recipe says, with its pre-trained weights if it names any.

    Raises:
        NasrayError: if data, weights and recipe do not go together.
    """
    lines = [text] if (text := loading_text(recipe.loader)) else []
    sets = open_sets(recipe)
    if sets.train.pixel_rules != description.pixel_rules:
        raise NasrayError(
            f"data set {recipe.data}: orientation or value_range has changed since the training began. Continue with "
            f"what it was begun with ({description.pixel_rules.to_json()}), or begin a new training"
        )
    network = fresh_network(recipe, description)
    if with_weights:
        lines += begin_network(network, recipe, description)
    freeze_backbone(network, recipe)
    device = torch.device(worker.device)
    if worker.world > 1:
        synchronize_norms(network, device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    network.to(device)
    if isinstance(network, Classifier) and (teacher := load_teacher(recipe, description)) is not None:
        if recipe.channels_last:
            teacher.to(memory_format=torch.channels_last)
        network.teacher, network.teacher_weight = probabilities_of(teacher.to(device)), recipe.distil.weight
    batches, validate = _loaders(recipe, sets, network, worker)
    paths, resolutions = make_paths(recipe, description), make_resolutions(recipe, description, network, device)
    if isinstance(paths, BlockPaths):
        paths.ahead = device.type == "cuda"
    alphas = _make_alphas(recipe, sets, network, worker, len(batches))
    if paths is not None:  # a supernet is measured path by path, by whoever searches it
        validate = None
    elif validate is None:
        lines.append(f"data set {recipe.data} has no split val: nothing is validated, and no checkpoint is the best")
    return Parts(network, batches, validate, sets.train.describe, description, paths, resolutions, alphas), lines


def _loaders(recipe: Recipe, sets: Sets, network: nn.Module, worker: Worker) -> tuple[Batches, Any]:
    """Return the training loader, and what measures the network (None without a split val)."""
    batches = train_loader(recipe, sets.train, network, recipe.batch_size // worker.world, worker)
    if isinstance(network, Detector):
        assert isinstance(sets.source, DataSource)
        measured = sets.held if recipe.alpha.is_searched else sets.validation()
        assert measured is None or isinstance(measured, DetectionSet)
        return batches, make_validation(measured, recipe, network.stride, worker)
    held_against = sets.validation()
    assert not isinstance(held_against, DetectionSet)
    return batches, make_accuracy(held_against, recipe, worker)


def check_alpha(sets: Sets, network: nn.Module) -> None:
    """Refuse a gradient search without images held out, or without a relaxed supernet in a detector.

    Raises:
        NasrayError: saying what is missing.
    """
    if not isinstance(network, Detector):
        raise NasrayError("alpha is of relaxed supernets in detectors; classification has none. Leave alpha out")
    alphas_of(network)
    if sets.held is None:
        half = len(sets.train) // 2
        raise NasrayError(f"alpha moves on images that the weights do not see: set holdout, such as to half, {half}")


def _make_alphas(recipe: Recipe, sets: Sets, network: nn.Module, worker: Worker, per_epoch: int) -> AlphaLearner | None:
    """Return what moves the alphas on the images that are held out; None where the recipe searches none."""
    if not recipe.alpha.is_searched:
        return None
    check_alpha(sets, network)
    assert isinstance(network, Detector)
    assert isinstance(sets.held, DetectionSet)
    return AlphaLearner(
        network,
        recipe.alpha,
        train_loader(recipe, sets.held, network, recipe.batch_size // worker.world, worker),
        per_epoch=per_epoch,
        seed=recipe.seed,
        rank=worker.rank,
        world=worker.world,
        precision=recipe.precision,
        channels_last=recipe.channels_last,
    )


def train_loader(
    recipe: Recipe,
    dataset: DetectionSet | ClassificationSet,
    network: nn.Module,
    batch_size: int,
    worker: Worker,
) -> TrainLoader | ClassificationLoader:
    """Return what loads augmented images with targets, as the training of a recipe does.

    Args:
        recipe: Recipe of the training.
        dataset: Images.
        network: Detector or classifier that learns from them.
        batch_size: Images of a batch of one worker.
        worker: Rank of this process.
    """
    if isinstance(network, Detector):
        assert isinstance(dataset, DetectionSet)
        return TrainLoader(
            dataset,
            recipe.augmentation,
            batch_size=batch_size,
            stride=network.stride,
            seed=recipe.seed,
            rank=worker.rank,
            world=worker.world,
            options=recipe.loader,
            with_masks=network.learns_masks,
        )
    assert isinstance(dataset, ClassificationSet)
    return ClassificationLoader(
        dataset,
        image_size=recipe.augmentation.square or 0,
        batch_size=batch_size,
        seed=recipe.seed,
        rank=worker.rank,
        world=worker.world,
        options=recipe.loader,
    )


def begin_network(network: nn.Module, recipe: Recipe, description: Description) -> list[str]:
    """Bring a fresh network to where its recipe's training begins, in place, and return lines about it.

    Raises:
        NasrayError: for weights that cannot be read or do not fit, or channels that cannot be sorted.
    """
    lines = []
    if recipe.weights:
        lines.append(load_weights(network, recipe.weights, description.architecture, description.classes))
    if recipe.sort_channels:
        lines.append(sort_supernet(network, recipe, description))
    return lines


def fresh_network(recipe: Recipe, description: Description) -> Detector | Classifier:
    """Return the recipe's network on the CPU, with weights that follow from its seed.

    Raises:
        NasrayError: if detector, backbone and options do not go together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return make_network(recipe, description.architecture, len(description.classes))
