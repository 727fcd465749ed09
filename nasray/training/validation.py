"""Validations within a training: metrics over all workers, and pictures of the first images with their detections."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from nasray.cluster.training import Worker
from nasray.data import EvaluationLoader
from nasray.data.classification import ClassificationLoader, ClassificationSet
from nasray.data.dataset import DetectionSet
from nasray.drawing import draw_detections, picture_bytes
from nasray.evaluation.accuracy import accuracy
from nasray.evaluation.coco import coco_metrics, mask_summary
from nasray.evaluation.predictions import Predictions, gather, predict
from nasray.recipe import Recipe
from nasray.training.loop import Validation

NUM_PICTURES, THRESHOLD = 4, 0.3


def make_validation(
    dataset: DetectionSet | None, recipe: Recipe, stride: int, worker: Worker
) -> Callable[[nn.Module], Validation] | None:
    """Return what measures a detector on images, or None without any.

    Args:
        dataset: The images.
        recipe: Recipe of the training.
        stride: Images are padded to multiples of it.
        worker: Which detects on its share of the images; the first then measures.
    """
    if dataset is None:
        return None
    batch_size = recipe.batch_size // (worker.world * recipe.optimizer.accumulate)
    batches = EvaluationLoader(
        dataset,
        recipe.augmentation,
        batch_size=batch_size,
        stride=stride,
        rank=worker.rank,
        world=worker.world,
        options=recipe.loader,
    )

    def validate(detector: nn.Module) -> Validation:
        found = gather(predict(detector, batches, device=worker.device, channels_last=recipe.channels_last))
        if worker.rank > 0:
            return Validation({}, {})
        metrics = {**coco_metrics(dataset, found).summary, **mask_summary(dataset, found)}
        return Validation(metrics, _draw(dataset, found))

    return validate


def make_accuracy(
    dataset: ClassificationSet | None, recipe: Recipe, worker: Worker
) -> Callable[[nn.Module], Validation] | None:
    """Return what measures a classifier on images, or None without any.

    Args:
        dataset: The images.
        recipe: Recipe of the training.
        worker: Which classifies its share of the images; the first then has the figures.
    """
    if dataset is None:
        return None
    batches = ClassificationLoader(
        dataset,
        image_size=recipe.augmentation.square or 0,
        batch_size=recipe.batch_size // worker.world,
        seed=None,
        rank=worker.rank,
        world=worker.world,
        options=recipe.loader,
    )

    def validate(classifier: nn.Module) -> Validation:
        return Validation(accuracy(classifier, batches.epoch(), device=worker.device), {})

    return validate


def _draw(dataset: DetectionSet, found: Predictions) -> dict[str, bytes]:
    """Return PNG files of the first images with what was found in them with some confidence."""
    pictures = {}
    for index in range(min(NUM_PICTURES, len(dataset))):
        chosen = (found.image_index == index) & (found.scores >= THRESHOLD)
        drawn = draw_detections(
            dataset.read_image(index).numpy(),
            found.boxes[chosen],
            found.labels[chosen].tolist(),
            found.scores[chosen].tolist(),
            dataset.classes,
        )
        pictures[f"image {dataset.image_ids[index]}"] = picture_bytes(drawn)
    return pictures
