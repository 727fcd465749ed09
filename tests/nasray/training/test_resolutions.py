"""A step's batch has the resolution of its path; resolutions that do not fit a recipe are refused."""

import dataclasses

import numpy as np
import pytest
import torch

from nasray.data.classification import ClassificationBatch
from nasray.data.scaling import images_at
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, ClassifierOptions, LoaderOptions, ScheduleOptions
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.training.learner import Learner
from nasray.training.preparing import try_out
from nasray.training.resolutions import PathResolutions, check_resolutions
from tests.nasray.data.test_scaling import make_batch

SPACE = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
SQUARE = {"image_hw": (96, 96), "resolutions": [[64, 64], [96, 96]]}
RECIPE = Recipe(
    name="r", detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1), batch_size=8,
    augmentation=AugmentationOptions(short_side=(96,), long_side=96),
    loader=LoaderOptions(processes=0, cache=True), space={"name": "ofa-resnet", "size": "tiny", **SQUARE},
)  # fmt: skip
CLASSIFIER = dataclasses.replace(
    RECIPE, task="classification", classifier=ClassifierOptions(16), augmentation=AugmentationOptions(square=96)
)


def test_a_batch_has_the_resolution_of_the_path():
    resolutions = PathResolutions(SPACE, 32, torch.device("cpu"))
    rows = SPACE.sample(20, np.random.default_rng(0))
    low, high = (rows[rows[:, -1] == height][0] for height in (64, 96))
    batch = make_batch()
    genes, same = resolutions(high, batch)
    assert genes.tolist() == high[:-1].tolist()
    assert same is batch
    genes, smaller = resolutions(low, batch)
    assert genes.tolist() == low[:-1].tolist()
    assert smaller.images.shape == (3, 3, 64, 64)
    labels = ClassificationBatch(batch.images, torch.tensor([0, 1, 2]), torch.tensor([4, 5, 6]))
    _, found = resolutions(low, labels)
    assert torch.equal(found.images, images_at(batch.images, (64, 64)))
    assert torch.equal(found.targets, labels.targets)


def with_square(recipe, side):
    return dataclasses.replace(recipe, augmentation=dataclasses.replace(recipe.augmentation, square=side))


@pytest.mark.parametrize(("recipe", "resolutions", "message"), [
    (RECIPE, [(64, 64), (160, 160)], "the size to which recipe r brings images, sides of 96 and 96 pixels"),
    (RECIPE, [(64, 64), (96, 128)], "the size to which recipe r brings images"),
    (CLASSIFIER, [(64, 64), (128, 128)], "sides of 96 and 96"),
    (with_square(RECIPE, 96), [(64, 96), (96, 96)], "the resolution 64x96 is none. Take square ones"),
])  # fmt: skip
def test_resolutions_that_do_not_go_with_a_recipe_are_refused(recipe, resolutions, message):
    with pytest.raises(NasrayError, match=message):
        check_resolutions(recipe, OFAResNetSpace("tiny", image_hw=resolutions[-1], resolutions=resolutions))


def test_what_a_multiple_of_32_needs_is_no_difference():
    recipe = dataclasses.replace(RECIPE, augmentation=AugmentationOptions(short_side=(80, 104), long_side=121))
    check_resolutions(recipe, OFAResNetSpace("tiny", image_hw=(96, 128), resolutions=[(64, 96), (96, 128)]))
    check_resolutions(recipe, OFAResNetSpace("tiny"))


def test_a_detector_with_a_larger_stride_says_so(monkeypatch):
    monkeypatch.setattr(DETECTORS["fcos"], "stride", 64)
    with pytest.raises(NasrayError, match="multiples of 64 for fcos, got 96x96"):
        check_resolutions(RECIPE, SPACE)


def test_resolutions_are_looked_at_before_a_training_begins():
    recipe = dataclasses.replace(RECIPE, augmentation=AugmentationOptions(short_side=(64,), long_side=64))
    with pytest.raises(NasrayError, match="the largest of the resolutions"):
        try_out(recipe, supernet_architecture(SPACE))


def test_an_architecture_is_trained_at_its_resolution():
    rows = SPACE.sample(20, np.random.default_rng(0))
    low = SPACE.to_architecture(rows[rows[:, -1] == 64][0])
    recipe = dataclasses.replace(RECIPE, space=None)
    found = try_out(recipe, low).recipe.augmentation
    assert (found.short_side, found.long_side, found.evaluation_sides) == ((64,), 64, (64, 64))
    assert try_out(dataclasses.replace(recipe, augmentation=found), low).recipe.augmentation == found
    plain = OFAResNetSpace("tiny")
    architecture = plain.to_architecture(plain.sample(1, np.random.default_rng(0))[0])
    assert try_out(recipe, architecture).recipe.augmentation == recipe.augmentation


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", [RECIPE, CLASSIFIER], ids=["detector", "classifier"])
def test_every_step_trains_at_the_resolution_of_its_path(recipe, tmp_path, monkeypatch):
    """What a step learns from is the batch of the path's size, and resumed or not the training is the same."""
    from nasray.training.folder import Description
    from nasray.training.jobs import train_here
    from nasray.training.paths import make_paths

    seen, step = [], Learner.step

    def watched(self, batch, iteration, seed):
        seen.append(tuple(batch.images.shape[-2:]))
        return step(self, batch, iteration, seed)

    monkeypatch.setattr(Learner, "step", watched)
    recipe = dataclasses.replace(
        recipe, holdout=120, schedule=ScheduleOptions(name="constant", epochs=1, milestones=(), warmup_iterations=0)
    )
    architecture = supernet_architecture(SPACE)
    summary = train_here(recipe, tmp_path / "a", architecture)
    paths = make_paths(recipe, Description(recipe, architecture, ("a",), (1,)))
    heights = [int(paths.draw(iteration)[-1]) for iteration in range(summary["iterations"])]
    assert seen == [(height, height) for height in heights]
    assert set(heights) == {64, 96}
