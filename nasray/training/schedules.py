"""How the learning rate changes: pure functions of the iteration, so that a resumed training goes on as it would have.

References: Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2 (linear warm-up); Loshchilov and Hutter,
"SGDR", ICLR 2017, equation 5 without restarts (cosine).
"""

from __future__ import annotations

import math

from nasray.recipe import ScheduleOptions


def total_iterations(options: ScheduleOptions, per_epoch: int) -> int:
    """Return the iterations of a whole training, at least 1; `per_epoch` is the number of batches of an epoch."""
    return max(round(options.epochs * per_epoch), 1)


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
