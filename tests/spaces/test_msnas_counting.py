"""Numbers of paths and pairs: against all combinations for short paths, and as computed from the definition."""

import itertools

import numpy as np
import pytest

from nasray.spaces.msnas_counting import (
    BEFORE,
    NOWHERE,
    STATES,
    STEPS,
    State,
    draw_pairs,
    head_settings,
    heads_of,
    num_pairs,
    num_paths,
    walk,
)
from nasray.spaces.msnas_paths import SCALES, STRIDES, absolute_strides, are_valid, dead

ALL_FIVE = State(0, 4, 2)


def fits(heads, utilization):
    """The definition of what heads may read, in absolute strides of the path."""
    rising = all(one <= other for one, other in itertools.pairwise(heads))
    ranged = min(heads) <= 8 <= max(heads) and min(heads) != max(heads)
    return {"free": True, "monotone": rising, "constrained": rising and ranged}[utilization]


def listed_pairs(num_blocks, utilization):
    """Every valid path and heads of it, by trying all."""
    paths = [path for path in itertools.product(STRIDES, repeat=num_blocks) if are_valid([path]).all()]
    pairs = []
    for path in paths:
        scales = sorted(set(absolute_strides([path])[0].tolist()))
        tuples = itertools.product(scales, repeat=5)
        pairs += [(path, heads) for heads in tuples if fits(heads, utilization)]
    return pairs


@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5, 7, 9])
def test_short_paths_by_brute_force(num_blocks):
    strides = np.array(list(itertools.product(STRIDES, repeat=num_blocks)))
    paths = strides[are_valid(strides)]
    assert num_paths(num_blocks) == len(paths)
    kinds, counts = np.unique((absolute_strides(paths)[:, :, None] == SCALES).any(axis=1), axis=0, return_counts=True)
    for utilization in ("constrained", "monotone", "free"):
        tuples = [itertools.product(np.array(SCALES)[kind].tolist(), repeat=5) for kind in kinds]
        fitting = [sum(fits(heads, utilization) for heads in each) for each in tuples]
        assert num_pairs(num_blocks, heads_of(utilization, True)) == counts @ fitting


@pytest.mark.parametrize("utilization", ["constrained", "monotone", "free"])
@pytest.mark.parametrize("num_blocks", [1, 3, 5])
def test_pairs_without_dead_blocks_by_brute_force(num_blocks, utilization):
    pairs = listed_pairs(num_blocks, utilization)
    paths, heads = np.array([path for path, _ in pairs]), np.array([heads for _, heads in pairs])
    alive = ~dead(paths, heads).any(axis=1) if pairs else np.empty(0)
    assert num_pairs(num_blocks, heads_of(utilization, False)) == alive.sum()


def test_numbers_of_the_papers_spaces():
    assert [num_paths(num) for num in (13, 21, 22)] == [293_867, 912_137_899, 2_492_007_083]
    numbers = {
        "constrained": (13_003_499, 57_229_409_266, 160_840_183_936),
        "monotone": (16_329_042, 71_072_375_304, 199_569_817_148),
        "free": (329_716_767, 1_570_094_207_596, 4_439_911_823_412),
        "fpn": (293_865, 912_137_897, 2_492_007_081),
    }
    for utilization, expected in numbers.items():
        heads = heads_of(utilization, True)
        assert tuple(num_pairs(num, heads) for num in (13, 21, 22)) == expected


def test_tuples_of_heads_where_a_path_has_all_five_scales():
    assert len(head_settings(ALL_FIVE, "monotone", dead_blocks=True)) == 126
    assert len(head_settings(ALL_FIVE, "constrained", dead_blocks=True)) == 103
    assert len(head_settings(ALL_FIVE, "free", dead_blocks=True)) == 5**5


def test_fpn_style_heads_are_cut_to_what_a_path_has():
    assert head_settings(ALL_FIVE, "fpn", dead_blocks=True).tolist() == [[0, 1, 2, 3, 4]]
    assert head_settings(State(1, 3, 3), "fpn", dead_blocks=True).tolist() == [[1, 1, 2, 3, 3]]
    assert len(head_settings(State(1, 1, 1), "fpn", dead_blocks=True)) == 0
    assert len(head_settings(BEFORE, "free", dead_blocks=True)) == 0


def test_states_are_what_paths_have_seen():
    paths = np.array(list(itertools.product(range(3), repeat=6)))
    valid = are_valid(np.array(STRIDES)[paths])
    walked, states = walk(paths)
    np.testing.assert_array_equal((walked == paths).all(axis=1), valid)
    assert are_valid(np.array(STRIDES)[walked]).all()
    places = np.cumsum(walked - 1, axis=1)
    expected = np.stack([places.min(axis=1), places.max(axis=1), places[:, -1]], axis=1)
    np.testing.assert_array_equal(np.array(STATES)[states], expected)
    assert len(STATES) == 36
    assert (STEPS[:, 1] != NOWHERE).all()


def test_the_nearest_heads():
    heads, state = heads_of("constrained", True), np.array([STATES.index(State(0, 2, 2))])
    for given, expected in {
        (0, 1, 2, 2, 2): (0, 1, 2, 2, 2),  # as they are
        (0, 1, 2, 3, 2): (0, 1, 2, 2, 2),  # the path has no stride 32
        (0, 0, 0, 0, 0): (0, 0, 0, 0, 1),  # the coarsest is at least 8
        (1, 1, 1, 1, 1): (0, 1, 1, 1, 1),  # not all the same: one differs by one, the first of two
    }.items():
        assert tuple(heads.nearest(state, np.array([given]))[0]) == expected


def test_draws_of_short_paths_reach_every_pair():
    heads = heads_of("constrained", False)
    moves, read = draw_pairs(20_000, 3, heads, np.random.default_rng(0))
    distinct = np.unique(np.concatenate([moves, read], axis=1), axis=0)
    assert len(distinct) == num_pairs(3, heads)
