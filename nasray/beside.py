"""Trained detectors beside a run's front: measured on the images that the front was, and counted as it was.

A front of a supernet's paths says what they are worth with shared weights. What a network trained by itself for some
budget is worth on the same images says whether that is much.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasray.architectures import compose, slots
from nasray.checkpoint import Checkpoint, checkpoint_path
from nasray.cluster import RunFolder
from nasray.cluster.reading import shown
from nasray.counting import CountedOptions, cost_of_detector, costs_of
from nasray.evaluation import evaluate_checkpoint, refuse_other_classes
from nasray.loading import plan_of_run
from nasray.recipe import Recipe, own_sides
from nasray.spaces import NasrayError
from nasray.stages import Plan
from nasray.subnets import path_evaluator


class Trained(NamedTuple):
    """A detector that was trained by itself.

    Attributes:
        name: Its folder, as it was given.
        id: Id of its architecture.
        metrics: `score`, which is mAP, `AP50` and `AP75`, as a run's paths have them.
        costs: Costs as the run counts them, at the size of image of its own recipe; those that are known.
    """

    name: str
    id: str
    metrics: dict[str, float]
    costs: dict[str, float]

    @property
    def figures(self) -> dict[str, float]:
        """Metrics and costs, by name."""
        return {**self.metrics, **self.costs}


def measure_beside(run: RunFolder, folders: Sequence[str]) -> list[Trained]:
    """Measure trained detectors on the images that a run compared the paths of its supernet on.

    Args:
        run: Run of a supernet, whose score is mAP.
        folders: Folders of trainings, or checkpoints.

    Raises:
        NasrayError: if the run's score is another, or a training has seen these images or knows other classes.
    """
    evaluator, plan = path_evaluator(run), plan_of_run(run)
    supernet = Checkpoint.load(evaluator.supernet, shared=True)
    if supernet.recipe.task != "detection" or evaluator.measure != "mAP":
        raise NasrayError(
            f"trained detectors are set beside a front of mAP; {shown(run.path)} measures "
            f"{evaluator.measure if supernet.recipe.task == 'detection' else 'accuracy'}. Leave --beside out"
        )
    found = []
    for name in folders:
        checkpoint = Checkpoint.load(checkpoint_path(Path(name)))
        if _images(checkpoint.recipe) != _images(supernet.recipe):
            raise NasrayError(
                f"{shown(name)} was trained on {_images_text(checkpoint.recipe)}, and the front is measured on images "
                f"that its supernet kept apart: {_images_text(supernet.recipe)}. Train it so, with "
                f"--holdout {supernet.recipe.holdout} --holdout-seed {supernet.recipe.split_seed}"
            )
        refuse_other_classes(checkpoint.classes, supernet.classes, f"the supernet of {shown(run.path)}")
        measured = evaluate_checkpoint(checkpoint, split="held" if supernet.recipe.holdout else "val")["coco"]
        metrics = {"score": measured["mAP"], "AP50": measured["AP50"], "AP75": measured["AP75"]}
        found.append(Trained(name, checkpoint.architecture.id, metrics, _costs(checkpoint, plan)))
    return found


def _images(recipe: Recipe) -> tuple[Any, ...]:
    """Return what says which images a training leaves out."""
    return recipe.data, recipe.holdout, recipe.split_seed if recipe.holdout else None


def _images_text(recipe: Recipe) -> str:
    apart = f"{recipe.holdout} held out by seed {recipe.split_seed}" if recipe.holdout else "none held out"
    return f"{shown(recipe.data)}, {apart}"


def _costs(checkpoint: Checkpoint, plan: Plan) -> dict[str, float]:
    """Return the costs of a trained detector: of all of it where the run counts detectors, else of its backbone."""
    space, cost, architecture = plan.parts.space, plan.parts.cost, checkpoint.architecture
    if plan.experiment.costs == "detector":
        parts = slots(architecture)
        head = parts.pop("head", None)
        own = None if head is None else {"family": head.family, "spec": head.spec}
        counted = CountedOptions(checkpoint.recipe.detector, own, len(checkpoint.classes))
        architecture, cost = compose(parts), cost_of_detector(counted, space)
    return costs_of(architecture, cost, space, own_sides(checkpoint.recipe))
