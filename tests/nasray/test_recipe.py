"""Recipes that come with nasray, their tiny twins, and what the command line changes of them."""

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.recipe import RECIPE, is_recipe, load_recipe, override_recipe, override_workers, recipe_texts
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
