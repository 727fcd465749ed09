import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.spaces import Budget

COSTS = {"gmacs": np.array([1.0, 2.0, 3.0, np.nan]), "params_m": np.array([5.0, 5.0, 1.0, 5.0])}


def test_bounds_are_inclusive_and_nan_is_refused():
    assert Budget(upper={"gmacs": 2.0}).admits(COSTS, 4).tolist() == [True, True, False, False]
    assert Budget(lower={"gmacs": 2.0}).admits(COSTS, 4).tolist() == [False, True, True, False]
    assert Budget(upper={"gmacs": 3.0}, lower={"params_m": 2.0}).admits(COSTS, 4).tolist() == [True, True, False, False]


def test_violations_are_relative_to_the_bound():
    budget = Budget(upper={"gmacs": 2.0}, lower={"params_m": 4.0, "gmacs": 2.0})
    np.testing.assert_allclose(
        budget.violations(COSTS), [[0, 0, 0.5], [0, 0, 0], [0.5, 0.75, 0], [np.inf, 0, np.inf]], rtol=1e-12
    )
    assert budget.names == ["gmacs", "params_m"]


def test_no_bounds_admit_everything():
    assert Budget().admits({}, 3).tolist() == [True, True, True]
    assert Budget().violations(COSTS).shape == (4, 0)
    assert Budget().names == []
    assert str(Budget()) == "none"


def test_text_shows_the_bounds():
    assert str(Budget(upper={"gmacs": 91.0}, lower={"layers": 10})) == "gmacs <= 91, layers >= 10"


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_bounds_need_not_be_positive(bound):
    violations = Budget(upper={"x": bound}).violations({"x": np.array([bound - 1, bound, bound + 1])})[:, 0]
    assert violations[:2].tolist() == [0.0, 0.0]
    assert violations[2] > 0


@given(st.floats(0.1, 1e6), st.lists(st.floats(0, 1e6), max_size=8))
def test_admitted_is_what_violates_nothing(bound, values):
    costs = {"x": np.array(values)}
    for budget in (Budget(upper={"x": bound}), Budget(lower={"x": bound})):
        assert (budget.admits(costs, len(values)) == ~budget.violations(costs).any(axis=1)).all()


def test_joined_budgets_have_the_tighter_bounds():
    one = Budget(upper={"gmacs": 5.0, "layers": 9.0}, lower={"gmacs": 1.0})
    other = Budget(upper={"gmacs": 4.0}, lower={"gmacs": 0.5, "params_m": 2.0})
    assert one.joined(other) == Budget({"gmacs": 4.0, "layers": 9.0}, {"gmacs": 1.0, "params_m": 2.0})
    assert one.joined(Budget()) == one
    assert one.joined(Budget(lower={"gmacs": 5.0})) == Budget({"gmacs": 5.0, "layers": 9.0}, {"gmacs": 5.0})
    assert one.joined(Budget(lower={"gmacs": 5.5})) is None
