"""How the learning rate changes: pure functions of the iteration, so that a resumed training goes on as it would have.

References: Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2 (linear warm-up); Loshchilov and Hutter,
"SGDR", ICLR 2017, equation 5 without restarts (cosine).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from nasray.cluster.progress import counted
from nasray.recipe import Recipe
from nasray.recipe_options import ScheduleOptions
from nasray.spaces import NasrayError

SAME = ("task", "batch_size", "ema", "precision", "schedule", "optimizer")
"""Keys of recipes in which a training and the one that it goes on from are alike."""


def total_iterations(options: ScheduleOptions, per_epoch: int) -> int:
    """Return the iterations of a whole schedule, at least 1; `per_epoch` is the number of batches of an epoch."""
    return max(round(options.epochs * per_epoch), 1)


def last_iteration(options: ScheduleOptions, per_epoch: int) -> int:
    """Return the iteration after which a training ends: that of the whole schedule, or `until` if it is given."""
    total = total_iterations(options, per_epoch)
    return total if options.until is None else min(max(round(options.until * per_epoch), 1), total)


def learning_rate_factor(iteration: int, per_epoch: int, options: ScheduleOptions) -> float:
    """Return what the learning rate is multiplied by at an iteration, in [0, 1].

    The warm-up is a factor of its own, over the schedule's first iterations; it does not move what follows.

    Args:
        iteration: Iteration from 0.
        per_epoch: Batches of an epoch.
        options: Options of the recipe.
    """
    share = iteration / total_iterations(options, per_epoch)
    if options.name == "step":
        factor = 0.1 ** sum(iteration >= round(milestone * per_epoch) for milestone in options.milestones)
    elif options.name == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * share))
    else:
        factor = 1 - share if options.name == "linear" else 1.0
    if iteration < options.warmup_iterations:
        factor *= options.warmup_factor + (1 - options.warmup_factor) * iteration / options.warmup_iterations
    return factor


def is_due(iteration: int, every: float) -> bool:
    """Return whether a multiple of `every` iterations, which need not be whole, is reached with this many done.

    Of what comes every half of 5 iterations, the first is due after 3 and the second after 5.
    """
    slack = 1e-9  # such as 0.1 epochs of 10 iterations, which are not quite 1
    return math.floor(iteration / every + slack) > math.floor((iteration - 1) / every + slack)


def refuse_other_schedule(before: Recipe, now: Recipe, source: str, end: float) -> None:
    """Refuse to go on with a training by another schedule, or that is at this one's end already.

    Args:
        before: Recipe of the training that is gone on with.
        now: Recipe of the training that goes on.
        source: What has the first one, for the message.
        end: Epochs after which it is gone on with.

    Raises:
        NasrayError: naming the first key that differs.
    """
    ours, theirs = _compared(now), _compared(before)
    for key, value in ours.items():
        if theirs[key] != value:
            raise NasrayError(
                f"continues: {source} was trained with {key} {theirs[key]}, and this training has {value}. Set it "
                "alike, or take `weights` in place of continues"
            )
    own_end = now.schedule.end
    if end >= own_end:
        raise NasrayError(
            f"continues: {source} has {counted(end, 'epoch')} behind it, and this training ends after {own_end:g}. "
            "Set `until` of the former one lower"
        )


def _compared(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in SAME:
        value: Any = getattr(recipe, key)
        if dataclasses.is_dataclass(value):
            found |= {f"{key}.{name}": one for name, one in vars(value).items() if name != "until"}
        else:
            found[key] = value
    return found
