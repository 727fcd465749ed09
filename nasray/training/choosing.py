"""Which recipe a training has: what a user names, and what is changed of it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from nasray.architectures import slots
from nasray.finding import find_architecture
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.recipe import SCHEDULES, Recipe, is_recipe, load_recipe
from nasray.spaces import Architecture, NasrayError


def training_recipe(
    what: str,
    *,
    recipe: str | None = None,
    detector: str | None = None,
    schedule: str | None = None,
    architecture: Architecture | None = None,
) -> Recipe:
    """Return the recipe of a training.

    Args:
        what: Recipe, or what names an architecture.
        recipe: Recipe, where `what` names an architecture; a default one if left out.
        detector: Name of the detector, instead of the recipe's.
        schedule: Name of a schedule, instead of the recipe's.
        architecture: Architecture that `what` stands for, if it is known.

    Raises:
        NasrayError: for a name that there is not, and for what does not go together.
    """
    if detector:
        DETECTORS.check(detector)
    if architecture is None and is_recipe(what):
        if recipe:
            raise NasrayError(f"{what} is a recipe itself: leave out --recipe, or name an architecture before it")
        chosen = load_recipe(what)
    else:
        chosen = load_recipe(recipe) if recipe else Recipe(name="default")
        parts = slots(architecture or find_architecture(what))  # before PyTorch is imported
        name = chosen.name if recipe else _training_name(what, detector or chosen.detector.name)
        named: dict[str, Any] = {"head": what} if set(parts) == {"head"} else {"backbone": what}
        chosen = dataclasses.replace(chosen, name=name, **named)
    if detector and detector != chosen.detector.name:
        chosen = dataclasses.replace(chosen, detector=options_of(DETECTORS, detector))
    if schedule:
        if schedule not in SCHEDULES:
            raise NasrayError(
                f"unknown schedule {schedule!r}; there are {', '.join(SCHEDULES)}, or --schedule.epochs and "
                "--schedule.milestones"
            )
        epochs, milestones = SCHEDULES[schedule]
        stepped = dataclasses.replace(chosen.schedule, name="step", epochs=epochs, milestones=milestones)
        chosen = dataclasses.replace(chosen, schedule=stepped)
    return chosen


def _training_name(architecture: str, detector: str) -> str:
    """Return a name for the folder of a training: the architecture's, or that of its file, and the detector's."""
    name = Path(architecture).resolve().stem if "/" in architecture else architecture
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:64].lstrip('._-') or 'backbone'}-{detector}"
