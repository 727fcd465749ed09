"""What stages that train have in common: folders of trainings, their work, and the disk that they take."""

from __future__ import annotations

from pathlib import Path

from nasray.checkpoint import make_network
from nasray.counting import NUM_CLASSES
from nasray.finding import recipe_architecture
from nasray.recipe import Recipe
from nasray.spaces import Architecture
from nasray.stages.outlook import Effort
from nasray.training.folder import is_training, logged_epochs

SAME_TIME = ("name", "seed", "schedule", "weights", "continues", "sort_channels")
"""Keys of a recipe on which the time of an epoch does not depend."""


def training_folders(folder: Path) -> list[Path]:
    """Return the folders of the trainings of a stage: its own, or those within it."""
    if is_training(folder):
        return [folder]
    return sorted(path.parent for pattern in ("*/recipe.yaml", "*/seed-*/recipe.yaml") for path in folder.glob(pattern))


def training_effort(recipe: Recipe, total: float, folders: list[Path], what: str, begin: float = 0.0) -> Effort:
    """Return the work of a stage's trainings in epochs, as far as their logs say what is done.

    Args:
        recipe: Recipe of all.
        total: Epochs of all together.
        folders: Their folders; one that has not begun need not be there.
        what: Whatever the time of an epoch depends on beside the recipe.
        begin: Epochs that each has behind it when it begins.
    """
    done = sum(max(logged_epochs(folder) - begin, 0.0) for folder in folders)
    like = {name: value for name, value in vars(recipe).items() if name not in SAME_TIME}
    return Effort(total, done, "epochs", f"{what} {like}")


def checkpoints_gib(recipe: Recipe, architecture: Architecture) -> float:
    """Return about how much a training's checkpoints take: weights, the optimizer's moments and moving averages."""
    whole = recipe_architecture(recipe, architecture)
    network = make_network(recipe, whole, NUM_CLASSES[recipe.task], on_meta=True)
    num = sum(parameter.numel() for parameter in network.parameters())
    copies = 1 + (2 if recipe.optimizer.name == "adamw" else 1) + (recipe.ema > 0)
    return 4 * num * copies * (1 + recipe.keep_best) / 2**30
