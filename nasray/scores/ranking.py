"""Rank correlations, and what a few architectures can say about them.

References: Kendall, "The treatment of ties in ranking problems", Biometrika 1945 (tau-b); Esscher, "On a method of
determining correlation from the ranks of the variates", Skandinavisk Aktuarietidskrift 1924 (the variance of tau under
a normal distribution); Kendall and Gibbons, "Rank Correlation Methods", 1990 (the variance with ties); Wilson,
"Probable inference", JASA 1927 (intervals of all values that a test does not reject).

Shapes: N items to rank, B multisets of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_NUM = 8
"""Fewest items that an agreement is stated of: among fewer, tau is anywhere by chance."""

JACKKNIFE_NUM = 30
"""Fewest items whose own spread is taken into account."""

_NORMAL_975 = 1.959963984540054

Floats = NDArray[np.float64]


def rank_agreement(x: ArrayLike, y: ArrayLike) -> dict[str, Any]:
    """Return Kendall's tau-b of two rankings with a 95 % interval, and Spearman's rho.

    The interval holds every tau that the data do not reject: those from which the sample's differs by at most 1.96
    standard deviations, which are taken at that tau and not at the sample's. So it has a width at -1 and 1 too, where a
    bootstrap's collapses. The deviations are those of normal variables, whatever monotone functions they went through,
    with the ties of the data; from `JACKKNIFE_NUM` items on the jackknife's where they are larger.

    Args:
        x: (N,) scores; ties are allowed.
        y: (N,) scores of the same items.

    Returns:
        `num`; `kendall` with `value`, `low` and `high`; `spearman`. All are None for fewer than `MIN_NUM` items, and
        where one side is constant.

    Raises:
        ValueError: for unequal shapes, fewer than two items, or NaN among them.
    """
    first, second = _checked(x, y)
    num = len(first)
    nothing = {"num": num, "kendall": {"value": None, "low": None, "high": None}, "spearman": None}
    if num < MIN_NUM:
        return nothing
    tau, rho = rank_correlations(first, second)
    if np.isnan(tau):
        return nothing
    deviations = _normal_deviations(num)[1] * _tie_factor(first, second)
    if num >= JACKKNIFE_NUM:
        deviations = np.maximum(deviations, _jackknife(first, second))
    low, high = _interval(tau, deviations, num)
    return {"num": num, "kendall": {"value": tau, "low": low, "high": high}, "spearman": rho}


def rank_correlations(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Return Kendall's tau-b and Spearman's rho of two (N,) arrays, N >= 2; NaN where one side is constant.

    Raises:
        ValueError: for unequal shapes, fewer than two items, or NaN among them.
    """
    first, second = _checked(x, y)
    tau, rho = _rank_correlations(first, second, np.ones((1, len(first))))
    return float(tau[0]), float(rho[0])


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(f"rank agreement needs two (N,) arrays, N >= 2; got shapes {first.shape} and {second.shape}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("rank agreement of NaN is undefined; drop these items from both sides")
    return first, second


def _rank_correlations(x: Floats, y: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return Kendall's tau-b and Spearman's rho, each (B,), of B multisets in which item i occurs counts[b, i] times.

    Both follow from the (N, N) signs of differences: repeated items are tied with each other and cancel, and an
    item's centered mid-rank is half the count-weighted sum of its signs.
    """
    sign_x, sign_y = np.sign(x[:, None] - x), np.sign(y[:, None] - y)

    def pairs(matrix: Floats) -> Floats:
        sums: Floats = ((counts @ matrix) * counts).sum(axis=1)
        return sums

    def weighted(first: Floats, second: Floats) -> Floats:
        sums: Floats = (counts * first * second).sum(axis=1)
        return sums

    rank_x, rank_y = counts @ sign_x.T / 2, counts @ sign_y.T / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = pairs(sign_x * sign_y) / np.sqrt(pairs(np.abs(sign_x)) * pairs(np.abs(sign_y)))
        rho = weighted(rank_x, rank_y) / np.sqrt(weighted(rank_x, rank_x) * weighted(rank_y, rank_y))
    return tau, rho


def _interval(tau: float, deviations: Floats, num: int) -> tuple[float, float]:
    """Return the range of tau that a sample's tau of `num` items does not reject, by the deviation around each."""
    values, _ = _normal_deviations(num)
    quarter_step = 1 / (num * (num - 1))  # tau moves in steps of 4 / (N (N - 1))
    held = values[np.abs(values - tau) <= _NORMAL_975 * deviations + quarter_step]
    return min(tau, *held[:1].tolist()), max(tau, *held[-1:].tolist())


@lru_cache(maxsize=32)
def _normal_deviations(num: int) -> tuple[Floats, Floats]:
    """Return values of tau from -1 to 1, and the standard deviation of a sample's around each."""
    values = np.arange(-2000, 2001) / 2000
    half = 2 / np.pi * np.arcsin(np.sin(np.pi / 2 * values) / 2)
    variance = 2 / (num * (num - 1)) * (1 - values**2 + 2 * (num - 2) * (1 / 9 - half**2))
    return values, np.sqrt(np.maximum(variance, 0))


def _tie_factor(x: Floats, y: Floats) -> float:
    """Return how much larger the standard deviation of tau-b is with the ties of the data, where nothing agrees."""
    num = len(x)
    ties_x, ties_y = (np.unique(side, return_counts=True)[1].astype(np.float64) for side in (x, y))

    def sums(ties: Floats) -> tuple[float, float, float]:
        pairs = ties * (ties - 1)
        return (pairs * (2 * ties + 5)).sum(), pairs.sum(), (pairs * (ties - 2)).sum()

    (x_0, x_1, x_2), (y_0, y_1, y_2) = sums(ties_x), sums(ties_y)
    all_0, all_1, all_2 = sums(np.array([float(num)]))
    variance = (all_0 - x_0 - y_0) / 18 + x_1 * y_1 / (2 * all_1) + x_2 * y_2 / (9 * all_2)
    with_ties = variance / ((all_1 - x_1) * (all_1 - y_1) / 4)
    without = all_0 / 18 / (all_1 / 2) ** 2
    return float(np.sqrt(with_ties / without))


def _jackknife(x: Floats, y: Floats) -> float:
    """Return the standard deviation of tau from its values without one item each."""
    num = len(x)
    tau, _ = _rank_correlations(x, y, 1 - np.eye(num))
    sound = tau[~np.isnan(tau)]
    return float(np.sqrt((num - 1) / num * ((sound - sound.mean()) ** 2).sum())) if len(sound) else 0.0
