"""Evaluation: detections over a data set, COCO's and VOC's average precision. PyTorch is imported when it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from nasray.checkpoint import Checkpoint
    from nasray.data import DetectionSet
    from nasray.evaluation.coco import CocoMetrics
    from nasray.evaluation.predictions import Predictions


def evaluate_checkpoint(
    checkpoint: Checkpoint,
    *,
    data: str | None = None,
    split: str = "val",
    batch_size: int | None = None,
    device: str = "auto",
    to: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a trained detector on a data set, as validation in its training did.

    Args:
        checkpoint: Checkpoint of a detector.
        data: As in `nasray train`; the training's own if None.
        split: "train", "val" or "test"; or "held", the images of the training set that the training kept apart, on
            which a search compares the paths of a supernet.
        batch_size: Images at a time; 8 by default. For "held" as many as the search took, which with its number of
            threads gives the same figures.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        to: A Parquet file for all detections.

    Returns:
        JSON-serializable: `coco` (the twelve numbers, and those of masks as `mask_...`), `voc`, `classes` (a row for
        each), `images`, `seconds`.

    Raises:
        NasrayError: if the data set's classes are not those that the detector was trained for; and as `open_data`.
    """
    begin = time.monotonic()
    dataset, found = find_detections(checkpoint, data=data, split=split, batch_size=batch_size, device=device)
    figures, _ = detection_figures(dataset, found)
    if to is not None:
        found.write(to, dataset)
    source = {"data": data or checkpoint.recipe.data, "split": split, "images": len(dataset)}
    return {**source, "iteration": checkpoint.iteration, **figures, "seconds": time.monotonic() - begin}


def find_detections(
    checkpoint: Checkpoint,
    *,
    data: str | None = None,
    split: str = "val",
    batch_size: int | None = None,
    device: str = "auto",
    program: Callable[..., Any] | None = None,
) -> tuple[DetectionSet, Predictions]:
    """Return a data set, and what a trained detector finds in it.

    Arguments and errors are those of `evaluate_checkpoint`.

    Args:
        checkpoint: Checkpoint of a detector.
        data: Data set.
        split: Split.
        batch_size: Images at a time.
        device: Device.
        program: What computes in place of the checkpoint's own network, called alike; it takes one image at a time,
            not padded, on the CPU.
    """
    import torch

    from nasray.cluster.progress import ProgressLine
    from nasray.data import EvaluationLoader, open_data
    from nasray.devices import Precision, choose_precision, computing_threads
    from nasray.evaluation.predictions import predict

    recipe, threads = checkpoint.recipe, torch.get_num_threads()
    searched: dict[str, Any] = {}
    if split == "held":
        dataset = _held_images(checkpoint, data)
        searched = checkpoint.training.get("subnet", {})  # with what the search looked at it, if it is a path
        batch_size = batch_size or searched.get("batch_size") or recipe.batch_size // recipe.resources.workers
        threads = searched.get("threads", threads)
    else:
        dataset = open_data(data or recipe.data).split(split)
    refuse_other_classes(checkpoint.classes, dataset.classes, data or recipe.data)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision: Precision = "float32"
    if program is None:
        if searched:
            precision = choose_precision(searched.get("precision"), torch.device(device), recipe.precision)
        detector = checkpoint.detector().to(device)
        program, stride = detector, detector.stride
    else:
        device, batch_size, stride = "cpu", 1, 1
    batches = EvaluationLoader(
        dataset, recipe.augmentation, batch_size=batch_size or 8, stride=stride, options=recipe.loader
    )
    line = ProgressLine("evaluate", len(dataset))
    with computing_threads(threads):
        found = predict(
            program,
            batches,
            device=device,
            precision=precision,
            channels_last=recipe.channels_last,
            progress=lambda done: line.update(done, final=done == len(dataset)),
        )
    return dataset, found


def detection_figures(dataset: DetectionSet, found: Predictions) -> tuple[dict[str, Any], CocoMetrics]:
    """Return `coco`, `voc` and `classes` of `evaluate_checkpoint`, and all of COCO's figures."""
    from nasray.evaluation.coco import coco_metrics, mask_summary
    from nasray.evaluation.voc import voc_metrics

    coco, voc = coco_metrics(dataset, found), voc_metrics(dataset, found)
    counted = np.bincount(dataset.labels[~dataset.ignored], minlength=len(dataset.classes))
    rows = [
        {
            "class": name,
            "mAP": float(coco.class_ap[label]),
            "AP50": float(coco.class_ap50[label]),
            "AP50_voc07": float(voc.class_ap07[label]),
            "AP50_voc12": float(voc.class_ap12[label]),
            "boxes": int(counted[label]),
        }
        for label, name in enumerate(dataset.classes)
    ]
    figures = {
        "coco": {**coco.summary, **mask_summary(dataset, found)},
        "voc": {"AP50_voc07": voc.ap50_voc07, "AP50_voc12": voc.ap50_voc12},
        "classes": rows,
    }
    return figures, coco


def _held_images(checkpoint: Checkpoint, data: str | None) -> DetectionSet:
    """Return the images of the training set that a training kept apart.

    Raises:
        NasrayError: If it kept none apart, or other data is asked for.
    """
    from nasray.data import open_data
    from nasray.data.order import divide
    from nasray.spaces import NasrayError

    if data is not None:
        raise NasrayError(
            "split held is a part of the training's own data, drawn by its seed; --data names other data. Leave one of "
            "the two out"
        )
    if checkpoint.recipe.task != "detection" or not checkpoint.recipe.holdout:
        raise NasrayError(
            "this training kept no images apart (holdout 0 in its recipe): a search in its supernet compared paths on "
            "split val. Choose --split val"
        )
    whole = open_data(checkpoint.recipe.data).split("train")
    _, held = divide(checkpoint.recipe.split_seed, len(whole), checkpoint.recipe.holdout)
    return whole.select(held)


def refuse_other_classes(trained: tuple[str, ...], given: tuple[str, ...], source: str) -> None:
    """Raise `NasrayError` if a data set's classes are not, in this order, those that a detector knows."""
    from nasray.spaces import NasrayError

    if trained == given:
        return
    foreign, missing = [n for n in given if n not in trained], [n for n in trained if n not in given]
    difference = "; ".join(
        f"{text}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for text, names in (("only in the data", foreign), ("only in the checkpoint", missing))
        if names
    )
    raise NasrayError(
        f"the checkpoint has {len(trained)} classes, {source} has {len(given)} ({difference or 'in another order'}). "
        "Evaluate on data with the same classes; `classes:` in its YAML file chooses and orders them"
    )


__all__ = ["evaluate_checkpoint", "refuse_other_classes"]
