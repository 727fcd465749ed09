"""Recipes that come with nasray, their tiny twins, and what the command line changes of them."""

import dataclasses
import pickle

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.counting import CountedOptions
from nasray.models.supernets import PATHS
from nasray.options import options_of
from nasray.recipe import (
    RECIPE,
    at_resolution,
    is_recipe,
    load_recipe,
    of_one_path,
    override_recipe,
    override_workers,
    own_sides,
    recipe_texts,
    with_files,
)
from nasray.recipe_options import DistilOptions
from nasray.spaces import NasrayError
from nasray.validation import validate


@pytest.mark.parametrize("name", sorted(recipe_texts()))
def test_every_recipe_survives_its_own_file(name):
    recipe = load_recipe(name)
    assert is_recipe(name)
    assert recipe.name == name
    assert recipe.backbone in ARCHITECTURES
    assert validate(RECIPE, type(recipe), RECIPE.dump_python(recipe, mode="json"), name) == recipe


@pytest.mark.parametrize("name", sorted(name for name in recipe_texts() if not name.endswith("-tiny")))
def test_a_tiny_twin_is_the_same_training_in_small(name):
    recipe, twin = load_recipe(name), load_recipe(f"{name}-tiny")
    assert (twin.detector.name, twin.optimizer.name, twin.schedule.name) == (
        recipe.detector.name,
        recipe.optimizer.name,
        recipe.schedule.name,
    )
    assert twin.task == recipe.task
    assert len(twin.schedule.milestones) == len(recipe.schedule.milestones)
    assert all(0 < milestone < twin.schedule.epochs for milestone in twin.schedule.milestones)
    assert (twin.data, twin.weights, twin.resources.workers, twin.resources.gpus) == ("shapes", None, 1, 0)
    assert bool(twin.augmentation.square) == bool(recipe.augmentation.square)


def test_the_command_line_changes_what_it_names_alone():
    recipe = load_recipe("shapes-detect")
    changed = override_recipe(recipe, ["--schedule.epochs", "2.5", "--optimizer.learning-rate", "0.5"])
    assert (changed.schedule.epochs, changed.optimizer.learning_rate) == (2.5, 0.5)
    back = ["--schedule.epochs", str(recipe.schedule.epochs)]
    back += ["--optimizer.learning-rate", str(recipe.optimizer.learning_rate)]
    assert override_recipe(changed, back) == recipe
    workers = override_workers(recipe.resources, ["--workers", "2"])
    assert (workers.workers, workers.gpus) == (2, recipe.resources.gpus)


def test_mistakes_name_the_key_and_what_is_allowed():
    with pytest.raises(NasrayError, match="unknown recipe 'shapes-detekt'; did you mean 'shapes-detect'"):
        load_recipe("shapes-detekt")
    with pytest.raises(NasrayError, match=r"option '--schedule\.epoch'; did you mean '--schedule\.epochs'"):
        override_recipe(load_recipe("shapes-detect"), ["--schedule.epoch", "3"])
    with pytest.raises(NasrayError, match=r"schedule\.epochs: .*greater than"):
        override_recipe(load_recipe("shapes-detect"), ["--schedule.epochs", "-1"])


def test_a_recipe_of_one_path_says_nothing_of_a_supernets_training():
    recipe = load_recipe("shapes-detect")
    counted = CountedOptions(detector={"name": "centernet", "channels": 16}, classes=3)
    paths = options_of(PATHS, "accepted", pruned="pruned.json", counted=counted)
    space, within = {"name": "ofa-resnet"}, {"width": (80,)}
    changed = dataclasses.replace(recipe, continues="x.pt", paths=paths, space=space, within=within, frozen_stages=1)
    assert of_one_path(changed) == dataclasses.replace(recipe, weights="x.pt", frozen_stages=1)
    assert pickle.loads(pickle.dumps(changed)) == changed  # as it goes to workers
    assert validate(RECIPE, type(recipe), RECIPE.dump_python(changed, mode="json"), "x", is_record=True) == changed
    moved = with_files(changed, lambda file: f"there/{file}")
    assert (moved.continues, moved.paths.pruned, moved.weights) == ("there/x.pt", "there/pruned.json", None)


@pytest.mark.parametrize(("changes", "message"), [
    ({"continues": "x.pt", "weights": "y.pt"}, "leave out weights, or continues"),
    ({"continues": "x.pt", "sort_channels": True}, "leave out sort_channels, or continues"),
    ({"distil": DistilOptions(teacher="x.pt")}, "distil is of classification"),
    ({"within": {"width": (-1,)}}, "within.width.0: Input should be greater than or equal to 0"),
])  # fmt: skip
def test_what_does_not_go_together_in_a_recipe(changes, message):
    with pytest.raises(NasrayError, match=message):
        dataclasses.replace(load_recipe("shapes-detect"), **changes)


def test_a_recipe_at_a_resolution():
    recipe = override_recipe(
        load_recipe("shapes-detect"),
        ["--augmentation.short-side", "192", "208", "256", "--augmentation.long-side", "400"],
    )
    assert own_sides(recipe) == (256, 400)
    assert at_resolution(recipe, None) is recipe
    found = at_resolution(recipe, (128, 224))
    options = found.augmentation
    assert (options.short_side, options.long_side, options.evaluation_sides) == ((96, 104, 128), 224, (128, 224))
    assert at_resolution(found, (128, 224)) == found
    assert at_resolution(found, (224, 128)) == found, "of a tall one the sides are the same"
    wide = dataclasses.replace(recipe, augmentation=dataclasses.replace(options, evaluation_sides=(100, 150)))
    assert own_sides(wide) == (100, 150)
    assert at_resolution(wide, (50, 96)).augmentation.short_side == (48, 52, 64)


def test_a_recipe_of_squares_at_a_resolution():
    recipe = override_recipe(load_recipe("detofa-centernet-voc"), [])
    assert own_sides(recipe) == (384, 384)
    found = at_resolution(recipe, (256, 256)).augmentation
    assert (found.square, found.evaluation_sides) == (256, None)
    with pytest.raises(NasrayError, match="detofa-centernet-voc brings images to squares, and the resolution 256x320"):
        at_resolution(recipe, (256, 320))
