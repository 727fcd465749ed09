"""Golden laterals and outputs follow by hand from the definitions, for the rows that the paper prints."""

import itertools

import numpy as np
import pytest

from nasray.spaces.msnas_paths import (
    SCALES,
    STRIDES,
    absolute_strides,
    are_valid,
    dead,
    laterals,
    outputs,
    sources,
    stage_ends,
)
from tests.spaces.msnas_rows import LABELLED

R34_2 = {8: 4, 11: 2, 13: 8, 15: 11, 16: 0, 17: 15, 18: 13, 19: 7}
R50_1 = {12: 10, 14: 5, 15: 2, 16: 0, 17: 15, 19: 14, 20: 12}, (16, 17, 19, 20, 11)
R50_2 = {12: 10, 14: 5, 15: 2, 16: 0, 18: 15, 19: 14, 20: 12}, (16, 18, 19, 20, 11)
LATERALS_AND_OUTPUTS = {
    "r18-1": ({8: 3, 11: 1, 12: 0}, (12, 11, 8, 5, -1)),
    "r18-2": ({4: 2, 5: 3, 7: 4, 9: 1, 10: 0, 11: 9, 12: 7}, (10, 11, 12, 5, -1)),
    "r18-3": ({7: 2, 8: 1, 9: 0, 11: 8, 12: 7}, (9, 11, 12, 5, -1)),
    "r18-4": ({4: 2, 5: 3, 8: 4, 10: 1, 11: 0, 12: 10}, (11, 12, 8, 5, -1)),
    "r18-5": ({2: 0, 4: 1, 10: 6, 11: 4, 12: 10}, (2, 11, 12, 8, -1)),
    "r34-1": ({8: 5, 11: 2, 13: 8, 15: 11, 16: 0, 17: 15, 18: 13, 20: 7}, (16, 17, 18, 20, -1)),
    "r34-2": (R34_2, (16, 17, 18, 19, 20)),
    "r34-3": (R34_2, (16, 17, 18, 19, 20)),
    "r34-4": ({10: 7, 13: 5, 14: 10, 15: 13, 16: 2, 18: 0, 19: 16, 20: 15}, (18, 19, 20, 14, 9)),
    "r34-5": ({**R34_2, 20: 18}, (16, 17, 20, 19, -1)),
    "r50-1": R50_1,
    "r50-2": R50_2,
    "r50-3": R50_2,
    "r50-4": R50_1,
    "r50-5": ({10: 6, 12: 2, 13: 0, 14: 12, 15: 10, 16: 9, 20: 16}, (13, 14, 15, 20, 17)),
}


def pairs_of(found):
    return {block: int(source) for block, source in enumerate(found) if source >= 0}


@pytest.mark.parametrize("label", LABELLED)
def test_laterals_and_outputs_of_the_printed_rows(label):
    strides, heads = np.array([LABELLED[label][0]]), np.array([LABELLED[label][1]])
    expected_laterals, expected_outputs = LATERALS_AND_OUTPUTS[label]
    assert are_valid(strides).all()
    assert pairs_of(laterals(strides)[0]) == expected_laterals
    assert tuple(outputs(strides)[0]) == expected_outputs
    assert sources(strides, heads)[0].tolist() == [expected_outputs[SCALES.index(scale)] for scale in heads[0]]


def test_absolute_strides_of_a_printed_row():
    strides = np.array([LABELLED["r18-1"][0]])
    assert absolute_strides(strides).tolist() == [[4, 8, 16, 16, 32, 32, 16, 16, 16, 8, 8, 8, 4]]


def all_valid_paths(num_blocks):
    strides = np.array(list(itertools.product(STRIDES, repeat=num_blocks)))
    return strides[are_valid(strides)]


def test_validity_is_that_every_map_is_within_4_to_64():
    strides = np.array(list(itertools.product(STRIDES, repeat=6)))
    scales = 4 * np.cumprod(strides, axis=1)
    np.testing.assert_array_equal(are_valid(strides), ((scales >= 4) & (scales <= 64)).all(axis=1))


def test_every_path_of_7_blocks_follows_the_definitions():
    paths = all_valid_paths(7)
    scales, ends = absolute_strides(paths), stage_ends(paths)
    found, last = laterals(paths), outputs(paths)
    for row, path in enumerate(paths):
        for block in range(7):
            is_end = block == 6 or path[block + 1] != 1
            earlier = [k for k in range(block) if path[k + 1] != 1 and scales[row, k] == scales[row, block]]
            assert ends[row, block] == is_end
            assert found[row, block] == (max(earlier, default=-1) if is_end else -1)
        for place, scale in enumerate(SCALES):
            assert last[row, place] == max(np.flatnonzero(scales[row] == scale), default=-1)


def test_dead_blocks_are_those_from_which_nothing_reaches_a_head():
    paths = all_valid_paths(6)
    rng = np.random.default_rng(0)
    heads = np.take_along_axis(absolute_strides(paths), rng.integers(6, size=(len(paths), 5)), axis=1)
    found, sideways, read = dead(paths, heads), laterals(paths), sources(paths, heads)
    assert (read >= 0).all()
    for row in range(len(paths)):
        needed = set(read[row].tolist())
        for block in reversed(range(6)):
            if block in needed:
                needed |= {block - 1, int(sideways[row, block])}
        assert (~found[row]).tolist() == [block in needed for block in range(6)]


def test_the_first_printed_row_ends_in_a_dead_block():
    strides, heads = LABELLED["r18-1"]
    assert np.flatnonzero(dead(np.array([strides]), np.array([heads]))[0]).tolist() == [12]


def test_no_paths():
    empty = np.empty((0, 13))
    assert laterals(empty).shape == (0, 13)
    assert outputs(empty).shape == (0, 5)
    assert dead(empty, np.empty((0, 5))).shape == (0, 13)
