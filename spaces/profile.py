"""The profile of a space: its size, the range of its costs, and what a budget leaves of it.

Shapes: N architectures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nasray.spaces.base import Population, Space
from nasray.spaces.budget import Budget, CostFunction
from nasray.spaces.errors import NasrayError
from nasray.spaces.groups import group_settings

NUM_SAMPLES = 20_000
"""Random architectures that stand for a space; one of no more architectures is listed as a whole."""
MAX_ROUNDS = 10
"""Rounds over all genes in which the end of a cost's range is looked for."""
QUANTILE = 1.959964
"""Of the normal distribution, for 95 % intervals."""


@dataclass(frozen=True)
class CostRange:
    """One cost over a space.

    Attributes:
        minimum: Least value that was found, by descent from the least random one; exact where the space is listed.
        median: Median of the random architectures, or of all.
        maximum: Greatest value that was found, by ascent.
    """

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Profile:
    """What a space holds.

    Attributes:
        num_architectures: Exact number; None where it is not known.
        num_looked_at: Architectures from which the figures are: all, or random ones as `Space.sample` draws them.
        is_whole: Whether these are all architectures of the space.
        costs: Range of every cost.
        share: Share of them that meets the budget; None without a budget.
        interval: 95 % interval of the share (Wilson); the share itself as both ends where the space is listed.
    """

    num_architectures: int | None
    num_looked_at: int
    is_whole: bool
    costs: dict[str, CostRange]
    share: float | None
    interval: tuple[float, float] | None


def profile_space(
    space: Space,
    budget: Budget | None = None,
    *,
    cost: CostFunction | None = None,
    seed: int = 0,
    num: int = NUM_SAMPLES,
) -> Profile:
    """Return the profile of a space.

    Args:
        space: Space to describe.
        budget: Bounds on its costs, whose share is estimated.
        cost: Function that returns the costs; the space's own by default.
        seed: Seed of the random architectures.
        num: Number of random architectures; spaces of no more are listed.

    Raises:
        NasrayError: for a budget on a cost that the space does not have.
    """
    budget, cost = budget or Budget(), cost or space.cost
    rows = list_rows(space, num)
    is_whole = rows is not None
    if rows is None:
        rows = space.sample(num, np.random.default_rng(seed))
    costs = cost(rows)
    if missing := [name for name in budget.names if name not in costs]:
        raise NasrayError(
            f"budget on {', '.join(missing)}: space {space.family!r} does not have that cost. "
            f"It has: {', '.join(costs) or 'none'}"
        )
    ranges = {}
    for name, values in costs.items():
        low, high = cost_ends(space, cost, name, rows, is_whole=is_whole)
        ranges[name] = CostRange(low, float(np.median(values)), high)
    share, interval = None, None
    if budget.names:
        hits = int(budget.admits(costs, len(rows)).sum())
        share = hits / len(rows)
        interval = (share, share) if is_whole else wilson_interval(hits, len(rows))
    num_architectures = len(rows) if is_whole else space.num_architectures
    return Profile(num_architectures, len(rows), is_whole, ranges, share, interval)


def list_rows(space: Space, most: int) -> Population | None:
    """Return (N, G) all architectures; None of more than `most`."""
    settings = []
    for group in space.groups:
        found = group_settings(space, group)
        if found is None:
            return None
        settings.append(found)
    num = math.prod(map(len, settings))
    if num > most:
        return None
    rows = np.empty((num, space.num_genes), dtype=np.int64)
    places = np.unravel_index(np.arange(num), [len(found) for found in settings])
    for group, found, place in zip(space.groups, settings, places, strict=True):
        rows[:, list(group)] = found[place]
    return rows


def cost_ends(
    space: Space, cost: CostFunction, name: str, rows: Population, *, is_whole: bool = False
) -> tuple[float, float]:
    """Return the ends of a cost's range over a space: the least and the greatest value that descent and ascent find.

    Args:
        space: Space.
        cost: Function that returns the cost.
        name: Name of the cost.
        rows: (N, G) architectures, of which the least and the greatest are where the search begins.
        is_whole: Whether they are the whole space.
    """
    values = cost(rows)[name]
    if is_whole:
        return float(values.min()), float(values.max())
    return (
        _end(space, cost, name, rows[values.argmin()], -1.0),
        _end(space, cost, name, rows[values.argmax()], 1.0),
    )


def _end(space: Space, cost: CostFunction, name: str, row: Population, sign: float) -> float:
    """Return the end of a cost's range, gene by gene from a row; +1 for the upper end."""
    best = float(cost(row[None])[name][0])
    for _ in range(MAX_ROUNDS):
        before = best
        for column, gene in enumerate(space.genes):
            others = np.repeat(row[None], len(gene.values), axis=0)
            others[:, column] = gene.values
            others = space.repair(others)
            values = cost(others)[name]
            place = int((sign * values).argmax())
            if sign * values[place] > sign * best:
                row, best = others[place], float(values[place])
        if best == before:
            break
    return best


def wilson_interval(hits: int, num: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `hits` of `num` draws are known (Wilson, JASA 1927)."""
    share, square = hits / num, QUANTILE**2 / num
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)
