"""Distillation: a classifier also learns the probabilities that a trained one, its teacher, has for the classes.

Reference: Hinton et al., "Distilling the knowledge in a neural network", 2015; once-for-all's released code trains
smaller paths so, with the largest network as the teacher.

Differs from the released code in: the teacher is in inference mode, so that its probabilities do not depend on the
other images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from nasray.checkpoint import Checkpoint
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.elastic import ElasticSupernet
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.folder import Description


def load_teacher(recipe: Recipe, description: Description) -> nn.Module | None:
    """Return the classifier that teaches, on the CPU, in inference mode; None where none does.

    Raises:
        NasrayError: if it cannot be read, is no classifier, of other classes, or a supernet without a largest path.
    """
    if recipe.distil.teacher is None:
        return None
    path = Path(recipe.distil.teacher)
    checkpoint = Checkpoint.load(path)
    if checkpoint.recipe.task != "classification":
        raise NasrayError(f"distil.teacher: {path} is of a detector. Name the checkpoint of a classifier")
    if checkpoint.classes != description.classes:
        raise NasrayError(
            f"distil.teacher: {path} knows {len(checkpoint.classes)} classes, and not those of the data set in the "
            f"same order, which has {len(description.classes)}. Name a checkpoint that was trained on the same classes"
        )
    network = checkpoint.network().requires_grad_(False)
    supernet = supernet_of(network)
    if isinstance(supernet, ElasticSupernet):
        supernet.set_path(supernet.largest)
    elif supernet is not None:
        raise NasrayError(
            f"distil.teacher: {path} is of a supernet of {supernet.space.family}, none of whose paths is the largest. "
            "Name the checkpoint of an architecture that was trained by itself"
        )
    return network


def probabilities_of(teacher: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function from (B, 3, H, W) images to the (B, K) probabilities of a teacher, without gradients.

    A copy of a network that holds the function has the same teacher, whose weights are no part of the network's.
    """

    def probabilities(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = teacher(images)
            return logits.float().softmax(dim=1)

    return probabilities
