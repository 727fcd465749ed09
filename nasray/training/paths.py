"""Which paths of a supernet a recipe trains, and how they are drawn."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from nasray.architectures import is_supernet, slots
from nasray.models.detectors.base import Detector
from nasray.models.supernets import PathSampler, space_of_supernet, supernet_architecture
from nasray.options import make_part, options_of
from nasray.recipe import PATH, Recipe
from nasray.registry import SPACES
from nasray.spaces import (
    Architecture,
    CostFunction,
    NasrayError,
    RestrictedSpace,
    ShuffleNetSpace,
    Space,
    forbid_values,
)
from nasray.training.folder import Description
from nasray.training.resolutions import PathResolutions, check_resolutions


def make_paths(recipe: Recipe, description: Description) -> PathSampler | None:
    """Return what draws the path of every step, if the description's architecture has a supernet in a slot.

    Raises:
        NasrayError: for windows that no path hits, resolutions that do not go with the recipe, or without a supernet.
    """
    supernets = [part for part in slots(description.architecture).values() if is_supernet(part)]
    if not supernets:
        for key, value in (("paths", recipe.paths), ("space", recipe.space), ("within", recipe.within)):
            if value not in (None, PATH.make_default()):
                raise NasrayError(f"{key} is of supernets; this network has a single path. Leave {key} out")
        return None
    if recipe.alpha.is_searched:  # a gradient search trains the mixture of all
        if recipe.paths != PATH.make_default() or recipe.within:
            raise NasrayError("alpha trains all paths at once, weighted: leave out paths and within, or alpha")
        return None

    def cost(space: Any) -> CostFunction:
        if recipe.task == "classification" and isinstance(space, ShuffleNetSpace):
            width, num_classes = recipe.classifier.width, len(description.classes)
            return partial(space.classifier_cost, width=width, num_classes=num_classes)
        own: CostFunction = space.cost
        return own

    space = space_of_paths(recipe, supernets[0])
    check_resolutions(recipe, space)
    made: PathSampler = make_part(recipe.paths, space=space, seed=recipe.seed, cost=cost)
    return made


def make_resolutions(
    recipe: Recipe, description: Description, network: nn.Module, device: torch.device
) -> PathResolutions | None:
    """Return what brings batches to the resolution of a path; None where paths have none."""
    for part in slots(description.architecture).values():
        space = space_of_paths(recipe, part) if is_supernet(part) else None
        if space is not None and space.resolutions:
            return PathResolutions(space, network.stride if isinstance(network, Detector) else 1, device)
    return None


def space_of_paths(recipe: Recipe, supernet: Architecture) -> Space:
    """Return the space of which a recipe trains the paths through a supernet.

    Raises:
        NasrayError: if the recipe's space is of another supernet, or `within` names what it does not have.
    """
    space = space_of_supernet(supernet)
    if recipe.space is not None:
        own: Space = make_part(options_of(SPACES, **recipe.space))
        if supernet_architecture(own) != supernet_architecture(space):
            raise NasrayError(
                f"the space {recipe.space} is not of this supernet, which has {supernet.text}. Leave space out"
            )
        space = own
    if not recipe.within:
        return space
    try:
        return RestrictedSpace(space, forbid_values(space, recipe.within))
    except NasrayError as error:
        raise NasrayError(f"within: {error}") from error
