"""Correct rounding: against `decimal` with forty digits, and exact values."""

import math
from decimal import Context, Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nasray.spaces import Gene, exact

DIGITS = Context(prec=40)


def test_log_table_is_rounded_correctly():
    table = exact.log_table(3000)
    assert len(table) == 3000
    assert table[0] == -math.inf
    assert table[1:].tolist() == [float(DIGITS.ln(n)) for n in range(1, 3000)]
    for size in (1, 2, 3):
        assert exact.log_table(size).tolist() == table[:size].tolist()


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
@example(1.0)
@example(math.nextafter(1, 0))
@example(math.nextafter(1, 2))
@example(5e-324)
def test_log_is_rounded_correctly(x):
    assert exact.log(x) == float(DIGITS.ln(Decimal(x)))


@given(st.floats(min_value=-1, max_value=1))
@example(math.nextafter(1, 0))
def test_arccos_is_that_of_the_c_library_to_the_last_place_or_the_one_before(x):
    assert abs(exact.arccos(x) - math.acos(x)) <= math.ulp(math.acos(x))


def test_angles_that_are_known():
    assert exact.arccos(1.0) == 0
    assert exact.arccos(-1.0) == math.pi
    assert exact.arccos(0.0) == math.pi / 2
    assert exact.arccos(0.5) == 1.0471975511965977462  # pi / 3, rounded once


@pytest.mark.parametrize("x", [0.0, -1.0, math.inf, math.nan])
def test_no_logarithm(x):
    with pytest.raises(ValueError, match="positive, finite"):
        exact.log(x)


@pytest.mark.parametrize("x", [1.0000001, -2.0, math.nan])
def test_no_arc_cosine(x):
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        exact.arccos(x)


def test_logarithmic_genes_are_drawn_by_comparisons_alone(monkeypatch):
    gene = Gene("width", tuple(range(8, 521, 8)), log=True)
    drawn = gene.draw(10_000, np.random.default_rng(0))
    expected = np.exp(np.random.default_rng(0).uniform(0.0, math.log(66.0), 10_000)).astype(np.int64).clip(1, 65) * 8
    assert drawn.tolist() == expected.tolist()
    for name in ("exp", "log", "exp2", "log2"):
        monkeypatch.delattr(np, name)
    assert gene.draw(10_000, np.random.default_rng(0)).tolist() == drawn.tolist()
