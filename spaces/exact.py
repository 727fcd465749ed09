"""Logarithms and arc cosines, correctly rounded: the same bits on every processor.

Those of the C library differ in the last place between processors (with and without fused multiply-add) and between
libraries, numpy's vectorized ones between instruction sets. A search compares scores, so that one such bit may change
everything after it. Here they are computed in whole numbers, in units of 2^-128, and rounded once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BITS = 128
_ONE = 1 << _BITS


def log_table(size: int) -> NDArray[np.float64]:
    """Return the natural logarithms of 0 (minus infinity) to size - 1."""
    return np.array([-math.inf, *(total / _ONE for total in _whole_logs(size))])


def log(x: float) -> float:
    """Return the natural logarithm of a positive, finite number.

    Raises:
        ValueError: for any other number.
    """
    if not 0 < x < math.inf:
        raise ValueError(f"a logarithm needs a positive, finite number, got {x}")
    fraction, exponent = math.frexp(x)
    whole = int(math.ldexp(fraction, 53))
    head = whole >> 45  # in [128, 256)
    logs = _whole_logs(257)
    # x = head / 256 * (whole / (head << 45)) * 2^exponent, where the middle factor is just above 1.
    rest = _twice_artanh(whole - (head << 45), whole + (head << 45))
    return (logs[head - 1] + rest + (exponent - 8) * logs[1]) / _ONE


def arccos(x: float) -> float:
    """Return the angle in [0, pi] whose cosine is x.

    Raises:
        ValueError: for x outside of [-1, 1].
    """
    if not -1 <= x <= 1:
        raise ValueError(f"an arc cosine needs a number in [-1, 1], got {x}")
    if x < 0:
        return (_arctan(_ONE) * 4 - _angle(-x)) / _ONE
    return _angle(x) / _ONE


def _angle(x: float) -> int:
    """Return the arc cosine of x in [0, 1] in units of 2^-128: twice the arc tangent of sqrt((1 - x) / (1 + x))."""
    above, below = x.as_integer_ratio()
    return 2 * _arctan(math.isqrt(((below - above) << 2 * _BITS) // (below + above)))


def _arctan(tangent: int) -> int:
    """Return the angle of a tangent in [0, 1], both in units of 2^-128."""
    halvings = 4
    for _ in range(halvings):  # tan(a / 2) = tan(a) / (1 + sqrt(1 + tan(a)^2))
        tangent = (tangent << _BITS) // (_ONE + math.isqrt((_ONE << _BITS) + tangent * tangent))
    square, power, divisor, total = tangent * tangent, tangent, 1, 0
    while power:
        total += power // divisor if divisor % 4 == 1 else -(power // divisor)
        power, divisor = (power * square) >> 2 * _BITS, divisor + 2
    return total << halvings


def _twice_artanh(above: int, below: int) -> int:
    """Return log((1 + r) / (1 - r)) for r = above / below, in units of 2^-128."""
    power, above_squared, below_squared = (above << _BITS + 1) // below, above * above, below * below
    total, divisor = power, 1
    while power:
        power, divisor = power * above_squared // below_squared, divisor + 2
        total += power // divisor
    return total


@lru_cache(maxsize=8)
def _whole_logs(size: int) -> list[int]:
    """Return the logarithms of 1 to size - 1 in units of 2^-128; powers of two are exact multiples of that of 2."""
    logs = [0, _twice_artanh(1, 3)]
    for n in range(3, size):
        even = n % 2 == 0
        logs.append(logs[1] + logs[n // 2 - 1] if even else logs[-1] + _twice_artanh(1, 2 * n - 1))
    return logs[: max(size - 1, 0)]
