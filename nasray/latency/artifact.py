"""A trained detector as a runtime runs it: its accuracy, and the images that ranges of "int8" come from."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nasray.checkpoint import Checkpoint
from nasray.data import DetectionSet, EvaluationLoader
from nasray.data.order import calibration
from nasray.evaluation import find_detections
from nasray.evaluation.coco import coco_metrics
from nasray.latency.setting import Setting
from nasray.models.detectors.base import Detections
from nasray.runtimes.base import Program
from nasray.training.setup import open_sets

NUM_CALIBRATION = 32
"""Images of which "int8" takes the ranges of activations."""


def calibration_images(checkpoint: Checkpoint) -> list[Tensor]:
    """Return images (1, 3, H, W) of the training set, none of those that were held out, resized as for evaluation."""
    recipe = checkpoint.recipe
    train = open_sets(recipe).train
    assert isinstance(train, DetectionSet)
    chosen = train.select(calibration(recipe.seed, len(train), NUM_CALIBRATION))
    batches = EvaluationLoader(chosen, recipe.augmentation, batch_size=1, stride=1, options=recipe.loader)
    return [batch.images.float() for batch in batches]


def mean_ap(checkpoint: Checkpoint, program: Program, setting: Setting) -> float:
    """Return the mAP of a prepared detector on the images that the search compared paths on.

    Images come one by one and not padded, as where the detector is deployed.

    Args:
        checkpoint: Checkpoint that the program was prepared from; its recipe says which data.
        program: Prepared detector.
        setting: Setting that it was prepared for.
    """

    def detector(images: Tensor, image_hw: Any) -> Detections:
        return Detections(*program(images.to(setting.device, setting.tensor_dtype)))

    split = "held" if checkpoint.recipe.holdout else "val"
    dataset, found = find_detections(checkpoint, split=split, program=detector)
    return float(coco_metrics(dataset, found).summary["mAP"])
