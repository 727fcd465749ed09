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
    """What a cost adds to the gmacs of a space of backbones: those of what stands around them.

    Attributes:
        constant: Multiply-adds of every network.
        per_channel: Multiply-adds of each channel of a map, by the map's reduction.
    """

    constant: int = 0
    per_channel: Mapping[int, int] = {}


def macs_within(budget: Budget, surcharge: Surcharge | None = None) -> tuple[int, int]:
    """Return the least and the most multiply-adds of a space's own with which its gmacs are within a budget.

    They are whole numbers, such that divided by 1e9 they are within the bounds, and their neighbors outside are not.

    Args:
        budget: Bounds on gmacs.
        surcharge: What is added to the space's own; its constant is taken off.
    """
    low, high = budget.lower.get("gmacs", 0.0), budget.upper.get("gmacs", np.inf)
    constant = surcharge.constant if surcharge else 0
    least = -_most_macs(-low) if low > 0 else 0
    most = _most_macs(high) if high < MAX_COUNT / 1e9 else MAX_COUNT
    return least - constant, most - constant


def _most_macs(gmacs: float) -> int:
    """Return the most multiply-adds that are at most so many gmacs, once they are divided."""
    most = round(gmacs * 1e9)
    while most / 1e9 > gmacs:
        most -= 1
    while (most + 1) / 1e9 <= gmacs:
        most += 1
    return most


def surcharge_of(space: Space, cost: CostFunction | None) -> Surcharge | None:
    """Return what a cost adds to the space's own; None where that is not known.

    It is known of the space's own cost, and of a cost with an attribute `surcharge`, which is made of its `space`.

    Args:
        space: Space.
        cost: Function that returns costs; the space's own if None.
    """
    if cost is None or cost in (space.cost, space.whole.cost):
        return Surcharge()
    own: Space | None = getattr(cost, "space", None)
    return getattr(cost, "surcharge", None) if own is not None and own.whole is space.whole else None


def draw_within(
    space: Space, num: int, budget: Budget, rng: np.random.Generator, cost: CostFunction | None, max_tries: int
) -> Population:
    """Return (K, G) rows; see `Space.sample_within`.

    They are drawn from `Space.sample_near` where the space has it and what the cost adds to its own is known, and else
    from the whole space, which takes long where few architectures are within the budget.
    """
    if not budget.names:
        return space.sample(num, rng)
    surcharge, count = surcharge_of(space, cost), cost or space.cost
    found: list[Population] = [np.empty((0, space.num_genes), dtype=np.int64)]
    missing, tried = num, 0
    while missing > 0 and tried < max_tries:
        share = (num - missing + 1) / (tried + 1)
        size = min(int(missing * 1.25 / share) + 1, BATCH, max_tries - tried)
        near = None if surcharge is None else space.sample_near(size, budget, rng, surcharge=surcharge)
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
    surcharge = surcharge_of(space, cost)
    return None if surcharge is None else space.count(budget, surcharge=surcharge)


def is_surely_empty(space: Space, budget: Budget, cost: CostFunction | None = None) -> bool:
    """Return whether nothing is within a budget, as far as the space can count; False where it cannot.

    Args:
        space: Space.
        budget: Bounds on costs.
        cost: Function that returns them; the space's own if left out.
    """
    surcharge = surcharge_of(space, cost)
    if surcharge is None or not budget.names:
        return False
    near = space.sample_near(1, budget, np.random.default_rng(0), surcharge=surcharge)
    return near is not None and not len(near)
