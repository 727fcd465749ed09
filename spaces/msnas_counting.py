"""Exact numbers of MSNAS architectures, and exactly uniform draws of them: of all, and of those within a window.

An architecture is a path (the strides of all blocks) and what the five heads read. Which heads go with a path depends
on the scales that its maps have, and, where no block may be dead, on the last one. Scales change by one step at a time,
so that those that a path has seen are an interval: interval and present scale are one of 35 states, beside the start.
From the end to the beginning, the number of ways to go on from each state follows (`ways`), and with costs of the steps
beside them the number of ways at each cost (`nasray.spaces.chains`).

Shapes: N architectures, B blocks, S = 36 states, K settings of the G = 5 heads. Scales are places in `SCALES`.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Mask
from nasray.spaces.chains import Chain, Part
from nasray.spaces.msnas_layers import Size, part_costs
from nasray.spaces.msnas_paths import NUM_GROUPS, SCALES, STRIDES

Ints = NDArray[np.int64]
Utilization = Literal["constrained", "monotone", "free", "fpn"]
UTILIZATIONS = ("constrained", "monotone", "free", "fpn")

NUM_SCALES = len(SCALES)
MAIN = SCALES.index(8)
"""Place of the stride that Equation 7 wants the finest head to read at most, and the coarsest at least."""
STAY = STRIDES.index(1.0)
NOWHERE = -1


class State(NamedTuple):
    """What of a beginning of a path bears on what may follow.

    Attributes:
        finest: Place of the finest scale of its maps so far.
        coarsest: Place of the coarsest.
        place: Place of the last one.
    """

    finest: int
    coarsest: int
    place: int


BEFORE = State(NUM_SCALES, NOWHERE, 0)
"""The state behind the stem, whose map no head reads: there is no scale yet."""
STATES = (
    BEFORE,
    *(
        State(finest, coarsest, place)
        for finest in range(NUM_SCALES)
        for coarsest in range(finest, NUM_SCALES)
        for place in range(finest, coarsest + 1)
    ),
)


def _steps() -> Ints:
    index = {state: number for number, state in enumerate(STATES)}
    found = np.full((len(STATES), len(STRIDES)), NOWHERE, dtype=np.int64)
    for state, move in itertools.product(STATES, range(len(STRIDES))):
        place = state.place + move - STAY
        if 0 <= place < NUM_SCALES:
            after = State(min(state.finest, place), max(state.coarsest, place), place)
            found[index[state], move] = index[after]
    return found


STEPS = _steps()
"""(S, 3) the state behind a block of each stride, -1 where its map would be finer than 4 or coarser than 64."""


def walk(moves: Ints) -> tuple[Ints, Ints]:
    """Return paths of which no map leaves the range of scales, and the states that they end in.

    A block that would leave it takes the stride 1 instead; a valid path stays as it is.

    Args:
        moves: (N, B) places of the blocks' strides in `STRIDES`.

    Returns:
        (N, B) places of strides, and (N,) states.
    """
    moves, state = moves.copy(), np.zeros(len(moves), dtype=np.int64)
    for column in moves.T:
        column[STEPS[state, column] == NOWHERE] = STAY
        state = STEPS[state, column]
    return moves, state


# ---- heads -------------------------------------------------------------------------------------------------------


def head_settings(state: State, utilization: Utilization, *, dead_blocks: bool) -> Ints:
    """Return the (K, 5) scales, as places, that heads may read of a path that ends in a state, ascending.

    Args:
        state: State at the end of the path.
        utilization: "constrained" by Equation 7: in ascending order, the finest at most 8, the coarsest at least 8, not
            all the same; "monotone": in ascending order; "free": any; "fpn": 4, 8, 16, 32, 64, cut to the path's.
        dead_blocks: Whether the path may go on behind what heads read; if not, one reads its last map.
    """
    seen = range(state.finest, state.coarsest + 1)
    if utilization == "fpn":
        found = [tuple(np.clip(range(NUM_GROUPS), seen[0], seen[-1]).tolist())] if len(seen) > 1 else []
    elif utilization == "free":
        found = list(itertools.product(seen, repeat=NUM_GROUPS))
    else:
        found = list(itertools.combinations_with_replacement(seen, NUM_GROUPS))
    if utilization == "constrained":
        found = [heads for heads in found if heads[0] <= MAIN <= heads[-1] and heads[0] != heads[-1]]
    if not dead_blocks:
        found = [heads for heads in found if state.place in heads]
    return np.array(found, dtype=np.int64).reshape(-1, NUM_GROUPS)


_POWERS = NUM_SCALES ** np.arange(NUM_GROUPS)


class Heads:
    """The settings of heads for every state, one after another, and which of all settings are among them.

    Args:
        utilization: Which settings there are, see `head_settings`.
        dead_blocks: Whether blocks may be dead.

    Attributes:
        settings: (K, 5) places of scales, of all states.
        count: (S,) number of settings of each state.
        begin: (S,) where they begin.
    """

    def __init__(self, utilization: Utilization, *, dead_blocks: bool) -> None:
        own = [head_settings(state, utilization, dead_blocks=dead_blocks) for state in STATES]
        self.settings = np.concatenate(own)
        self.count = np.array([len(settings) for settings in own], dtype=np.int64)
        self.begin = np.cumsum(self.count) - self.count
        self._allowed = np.zeros((len(STATES), NUM_SCALES**NUM_GROUPS), dtype=bool)
        for allowed, settings in zip(self._allowed, own, strict=True):
            allowed[(settings * _POWERS).sum(axis=1)] = True

    def allow(self, states: Ints, heads: Ints) -> Mask:
        """Return (N,) whether heads of (N, 5) places go with paths that end in (N,) states."""
        allowed: Mask = self._allowed[states, (heads * _POWERS).sum(axis=1)]
        return allowed

    def nearest(self, states: Ints, heads: Ints) -> Ints:
        """Return (N, 5) heads that go with their paths: as they are, or else the nearest, the first of equally near.

        Near is first in how many heads differ, then in by how many scales. States without settings are not asked for.
        """
        heads = heads.copy()
        for row in np.flatnonzero(~self.allow(states, heads)):
            own = self.settings[self.begin[states[row]] :][: self.count[states[row]]]
            apart = np.abs(own - heads[row])
            distance = (apart > 0).sum(axis=1) * NUM_GROUPS * NUM_SCALES + apart.sum(axis=1)
            heads[row] = own[distance.argmin()]
        return heads


@lru_cache(maxsize=8)
def heads_of(utilization: Utilization, dead_blocks: bool) -> Heads:
    """Return the settings of heads of a kind of space."""
    return Heads(utilization, dead_blocks=dead_blocks)


# ---- numbers and draws -------------------------------------------------------------------------------------------


def ways(num_blocks: int, last: Ints) -> list[Ints]:
    """Return for 0 to B blocks behind us the (S,) number of ways to go on to the end.

    Args:
        num_blocks: B.
        last: (S,) number of ways to finish once all blocks are placed: 1 to count paths, settings to count pairs.
    """
    found = [last]
    for _ in range(num_blocks):
        found.append(np.where(STEPS == NOWHERE, 0, found[-1][STEPS]).sum(axis=1))
    return found[::-1]


def num_paths(num_blocks: int) -> int:
    """Return the number of valid paths."""
    return int(ways(num_blocks, np.ones(len(STATES), dtype=np.int64))[0][0])


def num_pairs(num_blocks: int, heads: Heads) -> int:
    """Return the number of pairs of a valid path and of heads that go with it."""
    return int(ways(num_blocks, heads.count)[0][0])


def draw_pairs(num: int, num_blocks: int, heads: Heads, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return pairs, uniform over all of them and independent of each other.

    A number from 0 to the count of all pairs is turned into the pair that it stands for, block by block.

    Returns:
        (N, B) places of strides, and (N, 5) places of scales that the heads read.
    """
    left = ways(num_blocks, heads.count)
    rank, state = rng.integers(left[0][0], size=num), np.zeros(num, dtype=np.int64)
    moves = np.empty((num, num_blocks), dtype=np.int64)
    for block in range(num_blocks):
        sums = np.cumsum(np.where(STEPS == NOWHERE, 0, left[block + 1][STEPS]), axis=1)
        bounds = sums[state]
        moves[:, block] = (rank[:, None] >= bounds[:, :-1]).sum(axis=1)
        before = np.where(moves[:, block] > 0, bounds[np.arange(num), moves[:, block] - 1], 0)
        rank -= before
        state = STEPS[state, moves[:, block]]
    return moves, heads.settings[heads.begin[state] + rank]


@lru_cache(maxsize=16)
def chain_of(size: Size, image_hw: tuple[int, int], utilization: Utilization, dead_blocks: bool) -> Chain:
    """Return the chain of the blocks and, as its last part, of the heads' settings, with what each costs.

    A lateral leads to the end of a stage whose scale an earlier stage had. Each stage but the first of its scale has
    one, so it is counted where a path comes to a scale that it has seen.
    """
    costs, heads = part_costs(size, image_hw), heads_of(utilization, dead_blocks)
    before, move = np.nonzero(STEPS != NOWHERE)
    after = STEPS[before, move]
    states = np.array(STATES, dtype=np.int64)
    finest, coarsest = states[before, 0], states[before, 1]
    place = states[after, 2]
    returns = (move != STAY) & (finest <= place) & (place <= coarsest)
    behind = np.flatnonzero(before > 0)
    parts = []
    for block in range(size.blocks):
        own = behind if block else np.flatnonzero(before == 0)
        cost = costs.block[min(block, 1), move[own], place[own]] + returns[own] * costs.lateral[place[own]]
        cost = cost + (costs.stem[0] if block == 0 else 0)
        parts.append(Part(before[own], after[own], move[own], cost))
    settings = heads.settings
    is_read = (settings[:, :, None] == np.arange(NUM_SCALES)).any(axis=1)
    cost = costs.rpn[settings].sum(axis=1) + (costs.output * is_read).sum(axis=1)
    owners = np.repeat(np.arange(len(STATES)), heads.count)
    parts.append(Part(owners, np.zeros_like(owners), np.arange(len(settings)), cost))
    return Chain(parts)
