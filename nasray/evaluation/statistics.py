"""Is one group of trainings better than another? Means, their 95 % intervals, and verdicts.

References: Student, "The probable error of a mean", Biometrika 1908; Welch, "The generalization of 'Student's' problem
when several different population variances are involved", Biometrika 1947 (both sides repeated); Altman and Bland,
"Absence of evidence is not evidence of absence", BMJ 1995 (why a verdict states what could have been seen).

Method: the values of a group are taken as a normal sample. Groups of at least `MIN_WELCH` values are compared by
Welch's interval. Where one of them is smaller, even down to a single value, its spread is taken to be the other's:
Student's interval with the pooled spread. (Welch's would hold the truth in 89 % instead of 95 % of the cases for two
values against twelve; pooled intervals hold it in 95 % where the spreads are equal, and in more where that of the
smaller group is smaller, as repeated trainings of one architecture differ less than trainings of several.) Two single
values are not compared: nothing is known about their spread. Intervals of several comparisons are not adjusted for
their number.

All values are such that larger is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
"""Share of repetitions in which an interval holds the truth."""

POWER = 0.8
"""Share of repetitions in which a difference that counts as likely to be seen is seen."""

MIN_WELCH = 3
"""Fewest values on both sides for an interval that lets the two spreads differ."""

_MAX_DEGREES = 1e6

Verdict = Literal["better", "worse", "cannot be told apart", "too few to tell"]


@dataclass(frozen=True)
class Mean:
    """The mean of a group of values.

    Attributes:
        num: Number of values.
        mean: Their mean.
        sd: Their standard deviation with N - 1, None for a single value.
        low: Lower end of the 95 % interval of the mean, None for a single value.
        high: Upper end.
    """

    num: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A group of values compared with another.

    Attributes:
        difference: Mean of the first minus mean of the second.
        low: Lower end of the 95 % interval of the difference, None where none can be stated.
        high: Upper end.
        smallest: Smallest difference of the means that this comparison could have told from chance, half the interval's
            width; a true difference of that size is found in about half of all repetitions.
        likely: True difference that `POWER` of all repetitions would tell from chance, were the spreads those seen.
        verdict: "better" or "worse" where the interval excludes 0; "too few to tell" where there is no interval.
    """

    difference: float
    low: float | None
    high: float | None
    smallest: float | None
    likely: float | None
    verdict: Verdict


def mean_interval(values: ArrayLike) -> Mean:
    """Return the mean of a group with its 95 % interval (Student's t).

    Args:
        values: At least one finite value.

    Raises:
        ValueError: for no values, or values that are not finite.
    """
    sample = _checked(values)
    num, mean = len(sample), float(sample.mean())
    if num == 1:
        return Mean(1, mean, None, None, None)
    sd = _deviation(sample)
    half = student_quantile(_UPPER, num - 1) * sd / math.sqrt(num)
    return Mean(num, mean, sd, mean - half, mean + half)


def compare_groups(first: ArrayLike, second: ArrayLike) -> Difference:
    """Say whether the first group is better than the second.

    Args:
        first: At least one finite value, larger is better.
        second: Likewise.

    Raises:
        ValueError: for no values, or values that are not finite.

    Examples:
        >>> compare_groups([0.53, 0.55, 0.54], [0.50, 0.49, 0.51, 0.50]).verdict
        'better'
    """
    one, other = _checked(first), _checked(second)
    difference = float(one.mean() - other.mean())
    error, degrees = _standard_error(one, other)
    if error == 0.0:  # a single value on each side, or no spread at all: nothing is known of what chance does
        return Difference(difference, None, None, None, None, "too few to tell")
    likely = visible_ratio(POWER, degrees) * error
    smallest = student_quantile(_UPPER, degrees) * error
    low, high = difference - smallest, difference + smallest
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "cannot be told apart"
    return Difference(difference, low, high, smallest, likely, verdict)


def share_interval(count: int, num: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `count` of `num` were seen (Wilson, JASA 1927).

    Raises:
        ValueError: unless 0 <= count <= num and num is at least 1.
    """
    if not 0 <= count <= num or num < 1:
        raise ValueError(f"a share is 0 to all of at least one; got {count} of {num}")
    z, share = student_quantile(_UPPER, math.inf), count / num
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _standard_error(one: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Return the standard error of the difference of two means, and its degrees of freedom."""
    parts = [_deviation(sample) ** 2 for sample in (one, other)]
    sizes = len(one), len(other)
    if min(sizes) < MIN_WELCH:
        degrees = float(sum(sizes) - 2)
        if degrees == 0:
            return 0.0, 0.0
        pooled = sum((size - 1) * part for size, part in zip(sizes, parts, strict=True)) / degrees
        return math.sqrt(pooled * sum(1 / size for size in sizes)), degrees
    parts = [part / size for size, part in zip(sizes, parts, strict=True)]
    if sum(parts) == 0.0:
        return 0.0, 0.0
    shares = [part / sum(parts) for part in parts]
    return math.sqrt(sum(parts)), 1 / sum(share**2 / (size - 1) for size, share in zip(sizes, shares, strict=True))


def _deviation(sample: NDArray[np.float64]) -> float:
    """Return the standard deviation: 0 for a single value, and exactly 0 for equal ones whatever the rounding."""
    return float(sample.std(ddof=1)) if np.ptp(sample) > 0.0 else 0.0


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"a group is at least one finite value; got {sample.tolist()}")
    return sample


# ---- Student's distribution --------------------------------------------------------------------------------------

_UPPER = 0.5 + CONFIDENCE / 2
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@lru_cache(maxsize=256)
def visible_ratio(power: float, degrees: float) -> float:
    """Return the true difference, in standard errors, that a share of all repetitions tells from chance.

    Args:
        power: The share, in [0.05, 1).
        degrees: Degrees of freedom of the standard error's estimate, at least 1, not necessarily whole.
    """
    low, high = 0.0, 2000.0  # one degree of freedom and a share of .99 take 1,020
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if told_apart(middle, degrees) < power else (low, middle)
    return high


def told_apart(ratio: float, degrees: float) -> float:
    """Return the share of repetitions whose interval excludes 0, on the side of the true difference.

    That is the upper tail of the noncentral t distribution beyond Student's quantile.

    Args:
        ratio: True difference in standard errors, at least 0.
        degrees: Degrees of freedom of the standard error's estimate, at least 1.
    """
    bound, degrees = student_quantile(_UPPER, degrees), min(max(degrees, 1.0), _MAX_DEGREES)
    # Over the estimate's share of the truth, which is distributed as sqrt(chi-square / degrees).
    width = 9 / math.sqrt(2 * degrees)
    start, end = max(1 - width, 0.0), 1 + width
    estimate = start + (end - start) * (_NODES + 1) / 2
    logs = (degrees - 1) * np.log(estimate) - degrees * (estimate**2 - 1) / 2
    weights = _WEIGHTS * np.exp(logs - logs.max())
    passed = [0.5 * math.erfc((bound * one - ratio) / math.sqrt(2)) for one in estimate.tolist()]
    return float((weights * passed).sum() / weights.sum())


@lru_cache(maxsize=256)
def student_quantile(share: float, degrees: float) -> float:
    """Return the value below which a share of Student's t distribution lies.

    Args:
        share: In [0.5, 1).
        degrees: Degrees of freedom, at least 1, not necessarily whole.
    """
    degrees = min(max(degrees, 1.0), _MAX_DEGREES)
    low, high = 0.0, math.pi / 2
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + _share_between(middle, degrees) < share else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _share_between(angle: float, degrees: float) -> float:
    """Return the probability of t between 0 and sqrt(degrees) * tan(angle).

    With t = sqrt(degrees) * tan(angle) the density becomes cos(angle) ** (degrees - 1), up to a factor.
    """
    factor = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    # Beyond 12 standard deviations there is nothing, and a narrow peak is not missed between the nodes.
    angle = min(angle, 12 / math.sqrt(degrees)) if degrees > 100 else angle
    return factor * _cosine_integral(angle, degrees - 1)


def _cosine_integral(angle: float, power: float) -> float:
    """Return the integral of cos(x) ** power over x from 0 to an angle of at most pi / 2."""
    if power < 8:  # a broken power is not smooth at pi / 2, the less the smaller it is: by parts, from a larger one
        rest = math.pow(math.cos(angle), power + 1) * math.sin(angle)
        return ((power + 2) * _cosine_integral(angle, power + 2) - rest) / (power + 1)
    points = (_NODES + 1) / 2 * angle
    return float(angle / 2 * (_WEIGHTS * np.cos(points) ** power).sum())
