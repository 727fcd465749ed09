import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.searchers import Objective, ParetoEvolution, crowding_distances, front_numbers, pareto_front
from nasray.searchers.testing import ToySpace, run_search

# Few values, so that ties and equal points are frequent.
VALUE = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0])


@st.composite
def points(draw, most=12):
    num_objectives = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(VALUE, min_size=num_objectives, max_size=num_objectives), max_size=most))
    return np.array(rows, dtype=np.float64).reshape(len(rows), num_objectives)


def dominates(first, second):
    return (first >= second).all() and (first > second).any()


def brute_front(values):
    return np.array([not any(dominates(other, value) for other in values) for value in values], dtype=bool)


def brute_fronts(values):
    numbers, left, number = np.full(len(values), -1), np.arange(len(values)), 0
    while len(left):
        on_front = brute_front(values[left])
        numbers[left[on_front]] = number
        left, number = left[~on_front], number + 1
    return numbers


@given(points())
def test_front_is_what_nothing_dominates(values):
    assert pareto_front(values).tolist() == brute_front(values).tolist()


@given(points())
def test_front_numbers_peel_front_after_front(values):
    assert front_numbers(values).tolist() == brute_fronts(values).tolist()


@given(points(), st.integers(0, 12))
def test_front_numbers_stop_when_there_are_enough(values, enough):
    exact = brute_fronts(values)
    numbers = front_numbers(values, enough=enough)
    last = numbers.max(initial=0)
    assert (numbers == np.minimum(exact, last)).all()
    assert (numbers < last).sum() < max(enough, 1) or last == exact.max(initial=0) or (exact < last).sum() >= enough


def test_large_random_fronts():
    values = np.random.default_rng(0).integers(30, size=(300, 2)).astype(float)
    assert (front_numbers(values) == brute_fronts(values)).all()


def test_crowding_by_hand():
    values = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding_distances(values), [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4, np.inf])
    moved = np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])
    np.testing.assert_allclose(crowding_distances(moved), [np.inf, 2.0, np.inf])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.empty((0, 2)), []),
        ([[1.0, 2.0]], [np.inf]),
        ([[1.0], [1.0], [1.0]], [np.inf, 0.0, np.inf]),
        ([[-np.inf], [-np.inf], [0.0]], [np.inf, 0.0, np.inf]),
        ([[-np.inf], [-np.inf], [-np.inf]], [np.inf, 0.0, np.inf]),
    ],
)
def test_crowding_without_a_scale(values, expected):
    assert crowding_distances(np.array(values)).tolist() == expected


def test_survivors_are_the_best_fronts():
    objectives = (Objective("score"), Objective("gmacs", "min"))  # the second is a cost of the space

    def total_width(genes):
        return {"score": (genes[:, 0] + genes[:, 2]).astype(np.float64)}

    searcher = ParetoEvolution(ToySpace(), population_size=40, objectives=objectives, seed=0)
    proposals = run_search(searcher, 400, batch=20, metrics=total_width)
    genes = np.concatenate([proposal.genes for proposal in proposals])
    values = searcher.objective_values(genes, total_width(genes))
    held = searcher.objective_values(searcher.population(), total_width(searcher.population()))
    assert len(held) == 40
    # Every total width from 0 to 16 at as many gmacs: kinds of 0. The ends, being the least crowded, are never lost.
    assert set(held[pareto_front(held)].sum(axis=1)) == {0.0}
    assert {0.0, 16.0} <= set(held[:, 0])
    # Survivors stand in the order of their fronts, and the fronts are those of everything that was told.
    numbers = front_numbers(held)
    assert (np.diff(numbers) >= 0).all()
    assert (pareto_front(np.concatenate([values, held]))[len(values) :] == (numbers == 0)).all()
