from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from nasray.evaluation.statistics import (
    POWER,
    compare_groups,
    mean_interval,
    share_interval,
    student_quantile,
    told_apart,
    visible_ratio,
)


@example(0.9999, 1.5)  # the density of broken degrees has no smooth end
@settings(deadline=None)
@given(st.floats(0.5, 0.9999), st.floats(1.0, 1e5))
def test_quantiles_are_scipys(share, degrees):
    assert student_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(
    st.lists(st.floats(0.0, 1.0).map(lambda value: round(value, 4)), min_size=2, max_size=9),
    st.lists(st.floats(0.0, 1.0).map(lambda value: round(value, 4)), min_size=2, max_size=9),
)
def test_intervals_of_repeated_groups_are_scipys(one, other):
    found = compare_groups(one, other)
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        assert found.verdict == "too few to tell"
        return
    wanted = stats.ttest_ind(one, other, equal_var=min(len(one), len(other)) < 3).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)
    back = compare_groups(other, one)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    opposite = {"better": "worse", "worse": "better"}
    assert back.verdict == opposite.get(found.verdict, found.verdict)
    if np.ptp(one):
        wanted = stats.t.interval(0.95, len(one) - 1, np.mean(one), stats.sem(one))
        found = mean_interval(one)
        assert (found.low, found.high) == pytest.approx(wanted)


def test_a_clear_win_a_clear_loss_and_no_difference():
    winner, chance = [0.52, 0.53, 0.51], [0.40, 0.42, 0.41, 0.39, 0.43]
    assert compare_groups(winner, chance).verdict == "better"
    assert compare_groups(chance, winner).verdict == "worse"
    same = compare_groups([0.41, 0.42, 0.40], chance)
    assert same.verdict == "cannot be told apart"
    assert same.low < 0 < same.high
    assert same.smallest == pytest.approx((same.high - same.low) / 2)


@pytest.mark.parametrize(("value", "verdict"), [(0.60, "better"), (0.20, "worse"), (0.44, "cannot be told apart")])
def test_one_training_is_held_against_the_spread_of_a_group(value, verdict):
    group = [0.40, 0.42, 0.41, 0.39, 0.43]
    found = compare_groups([value], group)
    assert found.verdict == verdict
    half = stats.t.ppf(0.975, 4) * np.std(group, ddof=1) * np.sqrt(1 + 1 / 5)
    assert (found.low, found.high) == pytest.approx((value - 0.41 - half, value - 0.41 + half))


@pytest.mark.parametrize(("one", "other"), [([0.5], [0.1]), ([0.5, 0.5], [0.1, 0.1]), ([0.5], [0.1, 0.1, 0.1])])
def test_without_any_spread_nothing_is_stated(one, other):
    found = compare_groups(one, other)
    assert found.verdict == "too few to tell"
    assert (found.low, found.high, found.smallest) == (None, None, None)
    assert found.difference == pytest.approx(0.4)


@pytest.mark.parametrize(("count", "num"), [(0, 100), (17, 100), (100, 100), (1, 1), (3, 8)])
def test_intervals_of_shares_are_scipys(count, num):
    wanted = stats.binomtest(count, num).proportion_ci(method="wilson")
    assert share_interval(count, num) == pytest.approx((wanted.low, wanted.high), abs=1e-6)
    with pytest.raises(ValueError, match="0 to all"):
        share_interval(num + 1, num)


@pytest.mark.parametrize("values", [[], [np.nan], [0.1, np.inf]])
def test_values_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match="at least one finite value"):
        mean_interval(values)
    with pytest.raises(ValueError, match="at least one finite value"):
        compare_groups([0.5], values)


SIZES = [
    ((1, 5), (0.01, 0.01)), ((2, 12), (0.01, 0.01)), ((2, 12), (0.007, 0.01)),
    ((3, 3), (0.01, 0.01)), ((3, 12), (0.01, 0.01)), ((5, 8), (0.01, 0.03)),
]  # fmt: skip


@pytest.mark.parametrize(("sizes", "spreads"), SIZES)
def test_intervals_hold_the_truth_in_nineteen_of_twenty_repetitions(sizes, spreads):
    rng = np.random.default_rng(7)
    held, num, truth = 0, 1200, 0.004
    for _ in range(num):
        one, other = rng.normal(0.4 + truth, spreads[0], sizes[0]), rng.normal(0.4, spreads[1], sizes[1])
        found = compare_groups(one.tolist(), other.tolist())
        held += found.low <= truth <= found.high
    assert 0.925 <= held / num <= 0.995, held / num


@pytest.mark.parametrize("sizes", [(1, 8), (3, 5), (5, 5)])
def test_the_smallest_difference_that_could_have_been_seen_is_where_the_verdict_turns(sizes):
    rng = np.random.default_rng(3)
    one, other = rng.normal(0.4, 0.01, sizes[0]), rng.normal(0.4, 0.01, sizes[1])
    one += other.mean() - one.mean()
    least = compare_groups(one, other).smallest
    assert compare_groups(one + 1.001 * least, other).verdict == "better"
    assert compare_groups(one + 0.999 * least, other).verdict == "cannot be told apart"
    assert compare_groups(one - 1.001 * least, other).verdict == "worse"


@pytest.mark.parametrize("sizes", [(1, 8), (3, 5), (5, 5)])
def test_where_there_is_no_difference_one_in_twenty_is_told_apart(sizes):
    rng = np.random.default_rng(3)
    pairs = ((rng.normal(0.4, 0.01, sizes[0]), rng.normal(0.4, 0.01, sizes[1])) for _ in range(900))
    told_apart = np.mean([compare_groups(one, other).verdict != "cannot be told apart" for one, other in pairs])
    assert 0.02 <= told_apart <= 0.07


@pytest.mark.parametrize("degrees", [1, 2, 3, 4.5, 20, 300])
@pytest.mark.parametrize("ratio", [0.5, 2.5, 6])
def test_shares_told_apart_are_scipys(ratio, degrees):
    bound = stats.t.ppf(0.975, degrees)
    assert told_apart(ratio, degrees) == pytest.approx(stats.nct.sf(bound, degrees, ratio), abs=2e-4)


@pytest.mark.parametrize(("sizes", "degrees"), [((1, 8), 7), ((3, 3), 4), ((5, 5), 8), ((5, 12), 7.55)])
def test_synthetic_differences_are_told_apart_as_often_as_the_power_says(sizes, degrees):
    """Degrees are Welch's for the true spreads; his interval of three values a side is told apart less often."""
    rng, num, spread = np.random.default_rng(5), 1000, 0.01
    error = spread * np.sqrt(sum(1 / size for size in sizes))
    for power in (0.5, POWER):
        truth = visible_ratio(power, degrees) * error
        pairs = ((rng.normal(0.4 + truth, spread, sizes[0]), rng.normal(0.4, spread, sizes[1])) for _ in range(num))
        found = np.mean([compare_groups(one, other).verdict == "better" for one, other in pairs])
        assert found == pytest.approx(power, abs=0.04 if max(sizes) > 3 else 0.13), (power, found)


def test_what_is_likely_to_be_seen_follows_from_the_spreads():
    rng = np.random.default_rng(6)
    one, other = rng.normal(0.4, 0.01, 4), rng.normal(0.4, 0.01, 6)
    found, twice = compare_groups(one, other), compare_groups(2 * one, 2 * other)
    assert found.smallest < found.likely < 2 * found.smallest
    assert twice.likely == pytest.approx(2 * found.likely)
    assert compare_groups([0.4], [0.5]).likely is None
