"""Draws within a budget, for spaces that know nothing better and for those that can count.

Shapes: N architectures, G genes, K of them within the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nasray.spaces.chains import MAX_COUNT

if TYPE_CHECKING:
    from nasray.spaces.base import Population, Space
    from nasray.spaces.budget import Budget, CostFunction

BATCH = 4096
"""Samples that are looked at in one round."""


class Surcharge(NamedTuple):
    """What a cost adds to one cost of a space of backbones: that of what stands around them.

    Attributes:
        constant: Multiply-adds, or parameters, of every network.
        per_channel: Those of each channel of a map, by the map's reduction.
    """

    constant: int = 0
    per_channel: Mapping[int, int] = {}


Surcharges = Mapping[tuple[str, tuple[int, int]], Surcharge]
"""By the name of the cost and the size of the images; what is missing adds nothing."""

UNITS = {"gmacs": 1e9, "params_m": 1e6}
"""What is counted in whole numbers, and how much of it a cost's unit is."""


def counts_within(budget: Budget, constant: int = 0, name: str = "gmacs") -> tuple[int, int]:
    """Return the least and the most multiply-adds, or parameters, with which a cost is within a budget.

    They are whole numbers that are within the bounds in the cost's unit, while their neighbors outside are not.

    Args:
        budget: Bounds on the cost.
        constant: What is added to every network's own, and taken off here.
        name: A cost of `UNITS`.
    """
    low, high, unit = budget.lower.get(name, 0.0), budget.upper.get(name, np.inf), UNITS[name]
    least = -_most(-low, unit) if low > 0 else 0
    most = _most(high, unit) if high < MAX_COUNT / unit else MAX_COUNT
    return least - constant, most - constant


def _most(value: float, unit: float) -> int:
    """Return the most multiply-adds, or parameters, that are at most so much, once they are divided."""
    most = round(value * unit)
    while most / unit > value:
        most -= 1
    while (most + 1) / unit <= value:
        most += 1
    return most


def surcharges_of(space: Space, cost: CostFunction | None) -> Surcharges | None:
    """Return what a cost adds to the space's own; None where that is not known.

    It is known of the space's own cost, and of a cost with an attribute `surcharges`, which is made of its `space`.

    Args:
        space: Space.
        cost: Function that returns costs; the space's own if None.
    """
    if cost is None or cost in (space.cost, space.whole.cost):
        return {}
    own: Space | None = getattr(cost, "space", None)
    return getattr(cost, "surcharges", None) if own is not None and own.whole is space.whole else None


def draw_within(
    space: Space, num: int, budget: Budget, rng: np.random.Generator, cost: CostFunction | None, max_tries: int
) -> Population:
    """Return (K, G) rows; see `Space.sample_within`.

    They are drawn from `Space.sample_near` where the space has it and what the cost adds to its own is known, and else
    from the whole space, which takes long where few architectures are within the budget.
    """
    if not budget.names:
        return space.sample(num, rng)
    surcharges, count = surcharges_of(space, cost), cost or space.cost
    found: list[Population] = [np.empty((0, space.num_genes), dtype=np.int64)]
    missing, tried = num, 0
    while missing > 0 and tried < max_tries:
        share = (num - missing + 1) / (tried + 1)
        size = min(int(missing * 1.25 / share) + 1, BATCH, max_tries - tried)
        near = None if surcharges is None else space.sample_near(size, budget, rng, added=surcharges)
        if near is not None and not len(near):
            break
        rows = space.sample(size, rng) if near is None else near
        found.append(rows[budget.admits(count(rows), size)][:missing])
        missing -= len(found[-1])
        tried += size
    return np.concatenate(found)


def count_within(space: Space, budget: Budget, cost: CostFunction | None = None) -> int | None:
    """Return the exact number of architectures within a budget; None where the space cannot count them.

    Args:
        space: Space.
        budget: Bounds on costs.
        cost: Function that returns them; the space's own if left out.
    """
    surcharges = surcharges_of(space, cost)
    return None if surcharges is None else space.count(budget, added=surcharges)


def is_surely_empty(space: Space, budget: Budget, cost: CostFunction | None = None) -> bool:
    """Return whether nothing is within a budget, as far as the space can count; False where it cannot.

    Args:
        space: Space.
        budget: Bounds on costs.
        cost: Function that returns them; the space's own if left out.
    """
    surcharges = surcharges_of(space, cost)
    if surcharges is None or not budget.names:
        return False
    near = space.sample_near(1, budget, np.random.default_rng(0), added=surcharges)
    return near is not None and not len(near)
