"""What happens before a training begins: everything that it needs is opened and built once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.recipe import Recipe, at_resolution, with_files
from nasray.spaces import Architecture

if TYPE_CHECKING:
    from nasray.training.folder import Description


def try_out(recipe: Recipe, architecture: Architecture | None = None) -> Description:
    """Open the data, build the network and load its weights once, to find out what does not go together.

    Args:
        recipe: Recipe of the training.
        architecture: Architecture for the slots that it fills, instead of those that the recipe names; the recipe of
            what is returned names its id, and brings images to its resolution, if it has one.

    Raises:
        NasrayError: for every mistake that the user can fix.
    """
    from nasray.architectures import resolution_of
    from nasray.finding import recipe_architecture, recipe_names
    from nasray.training.beginning import continued
    from nasray.training.distilling import load_teacher
    from nasray.training.folder import Description
    from nasray.training.optimizers import freeze_backbone
    from nasray.training.paths import make_paths
    from nasray.training.setup import begin_network, check_alpha, fresh_network, open_sets

    given = architecture
    architecture = recipe_architecture(recipe, given)
    if given is not None:
        names: dict[str, Any] = {**recipe_names(given)}
        recipe = dataclasses.replace(recipe, **names)
    recipe = at_resolution(recipe, resolution_of(architecture))
    sets = open_sets(recipe)
    sets.validation()
    train = sets.train
    description = Description(recipe, architecture, train.classes, train.category_ids, train.pixel_rules)
    network = fresh_network(recipe, description)
    if getattr(network, "learns_masks", False):
        sets.require_outlines()
    freeze_backbone(network, recipe)
    make_paths(recipe, description)
    if recipe.alpha.is_searched:
        check_alpha(sets, network)
    begin_network(network, recipe, description)
    continued(recipe, description)
    load_teacher(recipe, description)
    return description


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Make paths absolute: workers may run in other folders. What is no path stays as it is."""
    from nasray.training.published import is_published

    data = str(Path(recipe.data).absolute()) if recipe.data != "shapes" and Path(recipe.data).exists() else recipe.data
    recipe = with_files(recipe, lambda file: file if is_published(file) else str(Path(file).absolute()))
    return dataclasses.replace(recipe, data=data)
