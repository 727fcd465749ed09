"""Exactly uniform sampling within bounds on a cost, for spaces that are chains of parts.

A part's cost may depend on the state that the part before leaves, such as its channels. How many settings of the first
parts leave each state at each cost follows part by part; a number from 0 to the count of all is then turned into the
setting that it stands for, from the last part to the first.

Shapes: N draws, P parts, M transitions of a part, S states, B bins of cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

NUM_BINS = 4096
MAX_COUNT = 2**62
"""Settings that are counted; more do not fit whole numbers of 64 bits."""
CHUNK = 1024
"""Draws that are walked back at a time."""


@dataclass(frozen=True)
class Part:
    """One part of a chain: each setting, once for every state that it can follow.

    Attributes:
        before: (M,) state that the part before leaves; 0 for the first part.
        after: (M,) state that it leaves, from 0.
        setting: (M,) which setting it is.
        cost: (M,) what it costs, a whole number from 0.
    """

    before: Ints
    after: Ints
    setting: Ints
    cost: Ints


@dataclass(frozen=True)
class _Steps:
    """The transitions of a part that are alike: from one state to another, at one bin of cost.

    Attributes:
        before: (T,) state before.
        after: (T,) state after.
        shift: (T,) bins by which the cost grows.
        count: (T,) number of transitions.
        start: (T,) where they begin in `setting`.
        setting: (M,) settings, those of a step one after another.
    """

    before: Ints
    after: Ints
    shift: Ints
    count: Ints
    start: Ints
    setting: Ints


class Chain:
    """Numbers of settings of a chain by cost.

    Costs are rounded down to bins, part by part: a setting whose bins add up to b costs at least b times `bin_cost`,
    and less than (b + P) times.

    Args:
        parts: Parts, the first first.

    Raises:
        ValueError: if there are more settings than are counted.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        highest = sum(int(part.cost.max()) for part in parts)
        self.bin_cost = highest // NUM_BINS + 1
        self._parts = tuple(parts)
        self._steps = [_steps(part, self.bin_cost) for part in parts]
        num_states = 1 + max(int(max(part.before.max(), part.after.max())) for part in parts)
        counts = np.zeros((num_states, NUM_BINS), dtype=np.int64)
        counts[0, 0] = 1
        self._counts: list[Ints] = [counts]
        totals = counts.sum(axis=1).astype(np.float64)
        for steps in self._steps:
            before, totals = totals, np.zeros(num_states)
            np.add.at(totals, steps.after, before[steps.before] * steps.count)
            if totals.sum() > MAX_COUNT:
                raise ValueError("a chain of more than 2^62 settings is not counted")
            self._counts.append(_grown(self._counts[-1], steps))

    @property
    def num_settings(self) -> int:
        """The exact number of settings of the whole chain."""
        return int(self._counts[-1].sum())

    def count(self, low: float, high: float) -> int:
        """Return the exact number of settings that cost from `low` to `high`, both included.

        The costs of the first parts meet those of the last ones, as many of either as there are ways.
        """
        middle = _middle(self._parts)
        first = _prefix_costs(self._parts[:middle])
        last = _suffix_costs(self._parts[middle:])
        total = 0
        for state, (costs, ways) in first.items():
            if state not in last:
                continue
            others, other_ways = last[state]
            sums = np.concatenate([[0], np.cumsum(other_ways)])
            inside = sums[np.searchsorted(others, high - costs, "right")] - sums[np.searchsorted(others, low - costs)]
            total += sum(int(part) for part in ways * inside)
        return total

    def draw(self, num: int, low: float, high: float, rng: np.random.Generator) -> Ints:
        """Return (num, P) settings, uniform among a set that holds all which cost from `low` to `high`.

        Only settings near the bounds are drawn besides, which the caller throws away: those within P bins.

        Args:
            num: Number of draws.
            low: Least cost.
            high: Largest cost.
            rng: Generator of all randomness.

        Returns:
            The place of each part's setting; (0, P) if no setting is that near.
        """
        last_cost = NUM_BINS * self.bin_cost - 1
        begin = max(int(min(max(low, 0), last_cost + 1) // self.bin_cost) - len(self._steps) + 1, 0)
        end = int(min(max(high, -1), last_cost) // self.bin_cost) + 1
        last = self._counts[-1][:, begin:end] if begin < end else self._counts[-1][:, :0]
        sums = np.cumsum(last)
        if not last.size or sums[-1] == 0:
            return np.empty((0, len(self._steps)), dtype=np.int64)
        rank = rng.integers(sums[-1], size=num)
        place = np.searchsorted(sums, rank, side="right")
        rank = rank - np.concatenate([[0], sums])[place]
        state, bin_ = place // (end - begin), begin + place % (end - begin)
        chunks = range(0, num, CHUNK)
        found = [self._walk_back(*(values[i : i + CHUNK] for values in (rank, state, bin_))) for i in chunks]
        return np.concatenate([np.empty((0, len(self._steps)), dtype=np.int64), *found])

    def _walk_back(self, rank: Ints, state: Ints, bin_: Ints) -> Ints:
        """Return the (N, P) settings that stand at a rank among those that leave a state at a bin."""
        settings = np.empty((len(rank), len(self._steps)), dtype=np.int64)
        rank, state, bin_ = rank.copy(), state.copy(), bin_.copy()
        for column in reversed(range(len(self._steps))):
            steps, counts = self._steps[column], self._counts[column]
            for after in np.unique(state):
                rows, own = np.flatnonzero(state == after), np.flatnonzero(steps.after == after)
                source = bin_[rows, None] - steps.shift[own]
                each = np.where(source >= 0, counts[steps.before[own], source], 0)
                sums = np.cumsum(each * steps.count[own], axis=1)
                chosen = (sums > rank[rows, None]).argmax(axis=1)
                one = np.arange(len(rows))
                step, ways = own[chosen], each[one, chosen]
                left = rank[rows] - (sums[one, chosen] - ways * steps.count[step])
                settings[rows, column] = steps.setting[steps.start[step] + left // ways]
                rank[rows], bin_[rows] = left % ways, source[one, chosen]
                state[rows] = -1 - steps.before[step]  # not to be taken for a state of this part
            state = -1 - state
        return settings


def _steps(part: Part, bin_cost: int) -> _Steps:
    keys = np.stack([part.before, part.after, part.cost // bin_cost], axis=1)
    order = np.lexsort((part.setting, *keys.T[::-1]))
    steps, start, count = np.unique(keys[order], axis=0, return_index=True, return_counts=True)
    before, after, shift = steps.T
    return _Steps(before, after, shift, count.astype(np.int64), start.astype(np.int64), part.setting[order])


def _grown(counts: Ints, steps: _Steps) -> Ints:
    """Return (S, B) numbers of settings by the state that a further part leaves, and by cost."""
    grown = np.zeros_like(counts)
    for before, after, shift, count in zip(steps.before, steps.after, steps.shift, steps.count, strict=True):
        grown[after, shift:] += count * counts[before, : NUM_BINS - shift]
    return grown


Costs = dict[int, tuple[Ints, Ints]]
"""By state, ascending costs and in how many ways each comes about."""


def _middle(parts: Sequence[Part]) -> int:
    """Return how many first parts have about as many settings as the others."""
    sizes = [len(np.unique(part.setting)) for part in parts]
    return min(range(1, len(parts) + 1), key=lambda middle: max(math.prod(sizes[:middle]), math.prod(sizes[middle:])))


def _prefix_costs(parts: Sequence[Part]) -> Costs:
    """Return the costs of the settings of the first parts, by the state that they leave."""
    found: Costs = {0: (np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))}
    for part in parts:
        found = _joined(found, part.before, part.after, part.cost)
    return found


def _suffix_costs(parts: Sequence[Part]) -> Costs:
    """Return the costs of the settings of the last parts, by the state before them."""
    one = (np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))
    found: Costs = dict.fromkeys(range(int(parts[-1].after.max()) + 1), one) if parts else {}
    for part in reversed(parts):
        found = _joined(found, part.after, part.before, part.cost)
    return found


def _joined(found: Costs, near: Ints, far: Ints, cost: Ints) -> Costs:
    """Return costs with those of one further part, by the state on its far side."""
    collected: dict[int, list[tuple[Ints, Ints]]] = {}
    for state, (costs, ways) in found.items():
        for target in np.unique(far[near == state]).tolist():
            own, count = np.unique(cost[(near == state) & (far == target)], return_counts=True)
            collected.setdefault(target, []).append(
                (
                    (costs[:, None] + own).ravel(),
                    (ways[:, None] * count).ravel(),
                )
            )
    joined = {}
    for target, pieces in collected.items():
        costs, inverse = np.unique(np.concatenate([costs for costs, _ in pieces]), return_inverse=True)
        ways = np.zeros(len(costs), dtype=np.int64)
        np.add.at(ways, inverse, np.concatenate([ways for _, ways in pieces]))
        joined[target] = (costs, ways)
    return joined
