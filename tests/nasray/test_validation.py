"""Configurations in records of earlier versions."""

import pytest

from nasray.experiment import Experiment
from nasray.overrides import dotted_keys
from nasray.recipe import RECIPE, Recipe
from nasray.recipe_options import AugmentationOptions, OptimizerOptions, ScheduleOptions
from nasray.spaces import NasrayError
from nasray.validation import FORMER_KEYS, validate


def test_a_recipe_with_former_keys_is_the_recipe_it_was():
    recipe = Recipe(
        name="earlier",
        augmentation=AugmentationOptions(color=0.3),
        optimizer=OptimizerOptions(learning_rate=0.07, clip=3.0),
    )
    content = RECIPE.dump_python(recipe, mode="json")
    content["augmentation"]["colour"] = content["augmentation"].pop("color")
    content["optimiser"] = content.pop("optimizer")
    assert validate(RECIPE, Recipe, content, "recipe.yaml", is_record=True) == recipe
    with pytest.raises(NasrayError, match="unknown key 'optimiser'; did you mean 'optimizer'"):
        validate(RECIPE, Recipe, content, "recipe.yaml")
    assert {"colour", "optimiser"} < FORMER_KEYS.keys()


def test_paths_of_former_recipes_are_named():
    content = RECIPE.dump_python(Recipe(name="earlier"), mode="json")
    for former, name in (([], "uniform"), ([[0.29, 0.3]], "windows")):
        content["paths"] = {"windows": former, "image_size": [192, 192]}
        paths = validate(RECIPE, Recipe, content, "recipe.yaml", is_record=True).paths
        assert paths.name == name
    assert (paths.windows, paths.image_hw) == (((0.29, 0.3),), (192, 192))


@pytest.mark.parametrize("former", FORMER_KEYS)
def test_every_former_key_has_become_one_that_there_is(former):
    known = {part for owner in (Recipe, Experiment) for key in dotted_keys(owner) for part in key.split(".")}
    assert FORMER_KEYS[former] in known
    assert former not in known


def test_a_line_about_what_goes_together_names_no_class():
    with pytest.raises(NasrayError, match=r"^until 3 is beyond the schedule's 1 epoch"):
        ScheduleOptions(epochs=1, until=3)
    with pytest.raises(NasrayError, match=r"^ScheduleOptions: epochs: "):
        ScheduleOptions(epochs=-1)
