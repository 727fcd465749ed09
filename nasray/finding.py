"""What a user names an architecture by: a name, a JSON file, the folder of a run or of a training, a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nasray.architectures import ARCHITECTURES, FAMILIES, Slot, compose, named_architecture, read_architecture, slots
from nasray.cluster.reading import shown
from nasray.recipe import Recipe
from nasray.spaces import Architecture, Budget, NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.values import check_text

if TYPE_CHECKING:
    from nasray.cluster.leaders import Entry


def find_architecture(name: str) -> Architecture:
    """Return a named architecture, the one in a JSON file, a checkpoint or a training, or the winner of a run.

    Args:
        name: Name from `nasray list architectures`, path of a JSON file or a checkpoint, or folder of a training, of a
            run, or of a stage of a run.

    Raises:
        NasrayError: if `name` is none of these.
    """
    found = named_architecture(name)
    if found is not None:
        return found
    check_text(name)
    path = Path(name)
    if (path / "recipe.yaml").is_file():
        from nasray.training.folder import read_description

        return read_description(path).architecture
    if path.is_file() and path.suffix == ".pt":
        from nasray.checkpoint import Checkpoint

        return Checkpoint.load(path, shared=True).architecture
    if path.is_dir():
        from nasray.cluster import RunFolder

        best = RunFolder.open(path).read_best()["best"][0]["architecture"]
        return Architecture.create(best["family"], best["spec"])
    if path.is_file():
        return read_architecture(path)
    if "/" in name or path.suffix in (".json", ".pt"):
        raise NasrayError(f"{shown(path)} not found. Give a JSON file, the folder of a run or a training, or a name")
    others = "".join(f", {family.describe}" for family in FAMILIES.values() if family.describe)
    raise NasrayError(
        f"unknown architecture {name!r}{did_you_mean(name, ARCHITECTURES)} Named ones: {', '.join(ARCHITECTURES)}"
        f"{others}. A JSON file of an architecture and a run's folder also do"
    )


def find_within(name: str, budget: Budget) -> Entry:
    """Return the best of a run's best architectures that is within a budget.

    Args:
        name: Folder of a run.
        budget: Bounds on costs that the run knows.

    Raises:
        NasrayError: if `name` is no run, or none of its best is within the budget.
    """
    from nasray.cluster import RunFolder
    from nasray.cluster.leaders import best_within

    run = RunFolder(name)
    if not run.is_run():
        raise NasrayError(f"a budget chooses among the best of a run; {shown(Path(name))} is none. Leave {budget} out")
    return best_within(run.read_entries(), budget)


def find_part(name: str, slot: Slot) -> Architecture:
    """Return the architecture that fills a slot, of whatever `find_architecture` finds.

    Args:
        name: Name, file or folder, as of `find_architecture`.
        slot: Slot; of a composite the part in it is taken.

    Raises:
        NasrayError: if there is no such architecture, or it fills other slots.
    """
    found = find_architecture(name)
    parts = slots(found)
    if slot not in parts:
        raise NasrayError(f"{shown(name)} is a {' and a '.join(parts)}, not a {slot}. Name a {slot}")
    return parts[slot]


def recipe_names(architecture: Architecture) -> dict[str, str]:
    """Return the keys of a recipe that name the parts of an architecture, by their ids; a pyramid is its backbone."""
    return {"head" if slot == "head" else "backbone": part.id for slot, part in slots(architecture).items()}


def recipe_architecture(recipe: Recipe, given: Architecture | None = None) -> Architecture:
    """Return the architecture of a recipe's training: what its backbone and its head name, composed.

    Args:
        recipe: Recipe of the training.
        given: Architecture that takes the place of what the recipe names for the slots that it fills.

    Raises:
        NasrayError: if an architecture is not found, or does not fill its slot.
    """
    parts = {} if given is None else slots(given)
    if "backbone" not in parts and "pyramid" not in parts:
        named = slots(find_architecture(recipe.backbone))
        if "backbone" not in named and "pyramid" not in named:
            raise NasrayError(f"backbone {recipe.backbone} is a head: name it with --head, and a backbone beside it")
        parts = named | parts
    if recipe.head is not None and "head" not in (slots(given) if given is not None else {}):
        parts = parts | {"head": find_part(recipe.head, "head")}
    return compose(parts)
