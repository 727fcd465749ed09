import math

import numpy as np
import pytest
import scipy.stats

from nasray.scores.ranking import MIN_NUM, rank_agreement, rank_correlations


def normal_pairs(tau, num, repeats, rng):
    """(R, N) pairs of normal variables whose tau is given."""
    rho = math.sin(math.pi / 2 * tau)
    x, noise = rng.normal(size=(2, repeats, num))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_scipys(ties):
    rng = np.random.default_rng(0)
    for num in (2, 3, 17, 60):
        x = rng.normal(size=num)
        y = x + rng.normal(size=num)
        if ties:
            x, y = np.r_[np.round(x[:-1]), 9.0], np.r_[np.round(y[:-1]), -9.0]
        theirs = scipy.stats.kendalltau(x, y).statistic, scipy.stats.spearmanr(x, y).statistic
        assert rank_correlations(x, y) == pytest.approx(theirs, abs=1e-12)
        if num >= MIN_NUM:
            found = rank_agreement(x, y)
            assert (found["kendall"]["value"], found["spearman"]) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("num", [2, 3, MIN_NUM - 1])
def test_nothing_is_claimed_of_few(num):
    x = np.arange(float(num))
    nothing = {"num": num, "kendall": {"value": None, "low": None, "high": None}, "spearman": None}
    assert rank_agreement(x, -x) == nothing


@pytest.mark.parametrize(("num", "low"), [(8, 0.58), (10, 0.73), (12, 0.82), (20, 0.94)])
def test_perfect_agreement_has_an_interval(num, low):
    """From the tau at its end a sample of this size agrees perfectly less than once in forty times."""
    x = np.arange(float(num))
    kendall = rank_agreement(x, x)["kendall"]
    assert (kendall["value"], kendall["high"]) == (1, 1)
    assert kendall["low"] == pytest.approx(low, abs=0.01)
    assert rank_agreement(x, -x)["kendall"] == {"value": -1, "low": -1, "high": -kendall["low"]}
    samples = zip(*normal_pairs(kendall["low"], num, 1500, np.random.default_rng(num)), strict=True)
    perfect = np.mean([(np.argsort(a) == np.argsort(b)).all() for a, b in samples])
    assert perfect < 0.025


@pytest.mark.parametrize("digits", [None, 1], ids=["", "ties"])
@pytest.mark.parametrize("tau", [0, 0.5, 0.9, 1])
@pytest.mark.parametrize("num", [8, 10, 12, 20, 40])
def test_intervals_hold_the_truth_as_often_as_they_say(num, tau, digits):
    x, y = normal_pairs(tau, num, 300, np.random.default_rng(7))
    truth = float(tau)
    if digits is not None:
        wide = [np.round(side[0], digits) for side in normal_pairs(tau, 50_000, 1, np.random.default_rng(8))]
        truth = float(scipy.stats.kendalltau(*wide).statistic)
        x, y = np.round(x, digits), np.round(y, digits)
    held = []
    for one, other in zip(x, y, strict=True):
        kendall = rank_agreement(one, other)["kendall"]
        if kendall["value"] is not None:
            assert -1 <= kendall["low"] <= kendall["value"] <= kendall["high"] <= 1
            held.append(kendall["low"] - 0.001 <= truth <= kendall["high"] + 0.001)
    assert np.mean(held) > 0.912  # three standard errors below .95


def test_intervals_of_many_follow_the_data():
    """Heavy tails, which the formula for normal variables does not know."""
    rng = np.random.default_rng(5)
    held = []
    for _ in range(100):
        x, y = (side[0] for side in normal_pairs(0.9, 100, 1, rng))
        scale = np.sqrt(rng.chisquare(3, 100) / 3)
        kendall = rank_agreement(x / scale, y / scale)["kendall"]
        held.append(kendall["low"] <= 0.9 <= kendall["high"])
    assert np.mean(held) > 0.88  # without the jackknife .85


def test_what_cannot_be_ranked():
    x = np.arange(10.0)
    assert rank_agreement(x, np.zeros(10))["kendall"] == {"value": None, "low": None, "high": None}
    with pytest.raises(ValueError, match="NaN"):
        rank_agreement(x, np.r_[x[:-1], np.nan])
    with pytest.raises(ValueError, match="shapes"):
        rank_agreement(x, x[:-1])
