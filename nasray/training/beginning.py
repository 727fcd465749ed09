"""What a training begins with: the state of another one, or weights whose channels are sorted."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from nasray.architectures import is_supernet, slots
from nasray.checkpoint import Checkpoint
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.elastic import ElasticSupernet
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.folder import Description
from nasray.training.paths import space_of_paths
from nasray.training.schedules import refuse_other_schedule
from nasray.training.weights import check_fits, is_checkpoint


def continued(recipe: Recipe, description: Description) -> Checkpoint | None:
    """Return the checkpoint whose training a recipe goes on with; None if it begins anew.

    Raises:
        NasrayError: if it cannot be read, is of another architecture, data set or schedule, or at the end already.
    """
    if recipe.continues is None:
        return None
    path = Path(recipe.continues)
    checkpoint = Checkpoint.load(path)
    check_fits(checkpoint, path, description.architecture, description.classes)
    if not checkpoint.training:
        raise NasrayError(f"continues: {path} holds weights alone. Name a training's checkpoints/last.pt, or weights")
    end = checkpoint.iteration / checkpoint.training["per_epoch"]
    refuse_other_schedule(checkpoint.recipe, recipe, str(path), end)
    return checkpoint


def sort_supernet(network: nn.Module, recipe: Recipe, description: Description) -> str:
    """Sort the channels inside a supernet's blocks, in place, and return a line about it.

    What those paths compute stays the same of which the weights' own training drew, as the recipe in their checkpoint
    says. Of other weights it is the largest path.

    Raises:
        NasrayError: without a supernet whose channels can be sorted.
    """
    supernet = supernet_of(network)
    if not isinstance(supernet, ElasticSupernet):
        raise NasrayError("sort_channels is of supernets with elastic channels, such as ofa-resnet50's. Leave it out")
    before = Checkpoint.load(recipe.weights) if recipe.weights and is_checkpoint(recipe.weights) else None
    kept = None
    if before is not None and before.architecture == description.architecture:
        (architecture,) = (part for part in slots(before.architecture).values() if is_supernet(part))
        kept = space_of_paths(before.recipe, architecture)
    supernet.sort_channels(kept)
    what = "the largest path computes" if kept is None else f"the paths of {recipe.weights} compute"
    return f"channels are sorted by their importance; what {what} is the same"
