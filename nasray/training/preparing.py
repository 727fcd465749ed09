"""What happens before a training begins: everything that it needs is opened and built once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.recipe import Recipe
from nasray.spaces import Architecture

if TYPE_CHECKING:
    from nasray.training.folder import Description


def try_out(recipe: Recipe, architecture: Architecture | None = None) -> Description:
    """Open the data, build the network and load its weights once, to find out what does not go together.

    Args:
        recipe: Recipe of the training.
        architecture: Architecture for the slots that it fills, instead of those that the recipe names; the recipe of
            what is returned names its id.

    Raises:
        NasrayError: for every mistake that the user can fix.
    """
    from nasray.architectures import slots
    from nasray.finding import recipe_architecture
    from nasray.training.folder import Description
    from nasray.training.optimizers import freeze_backbone
    from nasray.training.setup import fresh_network, make_paths, open_sets
    from nasray.training.weights import load_weights

    given = architecture
    architecture = recipe_architecture(recipe, given)
    if given is not None:
        names: dict[str, Any] = {
            "head" if slot == "head" else "backbone": part.id for slot, part in slots(given).items()
        }
        recipe = dataclasses.replace(recipe, **names)
    sets = open_sets(recipe)
    sets.validation()
    train = sets.train
    description = Description(recipe, architecture, train.classes, train.category_ids, train.pixel_rules)
    network = fresh_network(recipe, description)
    if getattr(network, "learns_masks", False):
        sets.require_outlines()
    freeze_backbone(network, recipe)
    make_paths(recipe, description)
    if recipe.weights:
        load_weights(network, recipe.weights, description.architecture, description.classes)
    return description


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Make paths absolute: workers may run in other folders. What is no path stays as it is."""
    from nasray.training.published import is_published

    data = str(Path(recipe.data).absolute()) if recipe.data != "shapes" and Path(recipe.data).exists() else recipe.data
    is_file = recipe.weights is not None and not is_published(recipe.weights)
    weights = str(Path(recipe.weights).absolute()) if recipe.weights and is_file else recipe.weights
    return dataclasses.replace(recipe, data=data, weights=weights)
