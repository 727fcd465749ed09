"""What is out of range is refused, and at once, whatever it is of."""

import math

import numpy as np
import pytest

from nasray.spaces import BottleneckSpace, Budget, NasrayError, ShuffleNetSpace
from nasray.spaces.ranges import (
    MAX_WIDTH,
    check_finite,
    check_image_hw,
    check_kernels,
    check_number,
    check_whole,
    shortened,
)

HUGE = 10**5000


def repr_of(value):
    return "huge" if value is HUGE else repr(value)


@pytest.mark.parametrize("value", [0, 11, True, 1.0, "1", None, math.nan, 2**70, HUGE], ids=repr_of)
def test_what_is_not_a_whole_number_in_range_is_refused(value):
    with pytest.raises(NasrayError, match=r"^seed is a whole number from 1 to 10; got ") as refusal:
        check_whole("seed", value, 1, 10)
    assert len(str(refusal.value)) < 150


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert check_whole("n", np.int64(3), 1, 10) == 3


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", HUGE], ids=repr_of)
def test_what_is_not_a_number_in_range_is_refused(value):
    with pytest.raises(NasrayError, match=r"^share is a number from 0 to 1; got "):
        check_number("share", value, 0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, HUGE, "1", False], ids=repr_of)
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(NasrayError, match="finite"):
        check_finite("bound", value)


@pytest.mark.parametrize("value", [(0, 64), (-800, 1280), (10**9, 64), (64,), 64, "64", (64.0, 64), (math.nan, 64)])
def test_image_sizes(value):
    with pytest.raises(NasrayError, match="height and width in pixels"):
        check_image_hw(value)
    with pytest.raises(NasrayError, match="height and width in pixels"):
        BottleneckSpace(image_hw=value)


@pytest.mark.parametrize("value", [(), (2,), (3, 4), (3, 3), (65,), (-1,), (10**9 + 1,), (3.0,)])
def test_kernels(value):
    with pytest.raises(NasrayError, match="kernel"):
        check_kernels(value)
    with pytest.raises(NasrayError, match="kernel"):
        BottleneckSpace(kernels=value)


@pytest.mark.parametrize(
    "options",
    [
        {"parts": (0, 1, 1, 1)},
        {"parts": (1, 1, 1)},
        {"parts": (10**9, 1, 1, 1)},
        {"max_depth": 0},
        {"max_depth": 10**6},
        {"max_depth": 500},
        {"max_width": 10**9},
        {"max_mid": 10**9},
        {"max_stem_width": -8},
    ],
)
def test_staged_spaces(options):
    with pytest.raises(NasrayError):
        BottleneckSpace(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"depths": (10**6, 1, 1, 1)},
        {"depths": (1000, 1000, 1, 1)},
        {"widths": (64, 160, 320, MAX_WIDTH + 4)},
        {"widths": (64.5, 160, 320, 640)},
        {"stem_width": -1},
        {"stem_width": 10**9},
        {"widths": (math.inf, 1, 1, 1)},
    ],
)
def test_shufflenets(options):
    with pytest.raises(NasrayError):
        ShuffleNetSpace(**options)


@pytest.mark.parametrize("bound", [math.nan, math.inf, "60"])
def test_budgets(bound):
    with pytest.raises(NasrayError, match="budget on gmacs is a finite number"):
        Budget({"gmacs": bound})


def test_a_budget_whose_bounds_exclude_each_other():
    with pytest.raises(NasrayError, match="lower bound 3 is above the upper bound 2"):
        Budget({"gmacs": 2.0}, {"gmacs": 3.0})


def test_what_messages_show_is_one_short_line():
    loop: list = []
    loop.append(loop)
    for value in ("a\nb\u2028c\x00" * 100, 10**5000, [10**5000], loop, {"a": "x" * 10**6}):
        assert shortened(value).isprintable()
        assert len(shortened(value)) <= 80
