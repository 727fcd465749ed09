import numpy as np
import pytest

from nasray.searchers import Listed
from nasray.searchers.testing import ToySpace
from nasray.spaces import Budget, InfeasibleError, NasrayError

ROWS = [[3, 1, 2, 0], [1, 0, 0, 0], [3, 1, 2, 0], [8, 2, 8, 2], [2, 2, 1, 1]]


def test_the_list_is_asked_for_in_order_each_row_once():
    searcher = Listed(ToySpace(), rows=ROWS)
    assert searcher.ask(2).genes.tolist() == [ROWS[0], ROWS[1]]
    assert searcher.ask(3).genes.tolist() == [ROWS[3], ROWS[4]]
    assert searcher.shortfall == "nothing is left to propose"
    assert len(searcher.ask(1)) == 0


def test_rows_over_the_budget_are_passed_over():
    searcher = Listed(ToySpace(), rows=np.array(ROWS), budget=Budget(upper={"gmacs": 10.0}))
    assert searcher.ask(9).genes.tolist() == [ROWS[0], ROWS[1], ROWS[4]]


def test_the_top_of_the_list():
    assert Listed(ToySpace(), rows=ROWS, top=3).ask(9).genes.tolist() == [ROWS[0], ROWS[1]]


def test_the_best_of_each_niche():
    niches = [0, 0, 1, 0, 1]
    assert Listed(ToySpace(), rows=ROWS, niches=niches, per_bucket=1).ask(9).genes.tolist() == [ROWS[0]]  # twice there
    each = Listed(ToySpace(), rows=ROWS, niches=niches, per_bucket=2)
    assert each.ask(9).genes.tolist() == [ROWS[0], ROWS[1], ROWS[4]]
    assert Listed(ToySpace(), rows=ROWS, niches=niches, per_bucket=2, top=2).ask(9).genes.tolist() == ROWS[:2]
    assert Listed(ToySpace(), rows=ROWS, per_bucket=2).ask(9).genes.tolist() == ROWS[:2], "all are one niche"


def test_a_list_outside_of_the_budget_is_infeasible():
    searcher = Listed(ToySpace(), rows=ROWS, budget=Budget(upper={"gmacs": 0.5}))
    for act in (searcher.check_feasible, lambda: searcher.ask(1)):
        with pytest.raises(InfeasibleError, match="none of the 5 architectures of the list"):
            act()


def test_before_there_is_a_list_the_space_must_meet_the_budget():
    searcher = Listed(ToySpace(), of="before", top=2, budget=Budget(upper={"gmacs": 10.0}))
    searcher.check_feasible()
    with pytest.raises(NasrayError, match="searcher 'listed' has no rows of 'before'"):
        searcher.ask(1)
    with pytest.raises(InfeasibleError):
        Listed(ToySpace(), of="before", budget=Budget(upper={"gmacs": -1.0})).check_feasible()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has no list. Set of to a stage"),
        ({"rows": []}, "have 4 genes each; got no row"),
        ({"rows": [[1, 2, 3]]}, "have 4 genes each; got rows of 3"),
        ({"rows": [ROWS[0], [0, 1, 0, 0]]}, r"row 1 is no architecture .* \[0, 1, 0, 0\]"),
        ({"rows": ROWS, "top": 0}, "top is a whole number from 1"),
        ({"of": "before", "per_bucket": 0}, "per_bucket is a whole number from 1"),
        ({"of": "before", "top": 0}, "top is a whole number from 1"),
    ],
)
def test_senseless_lists_are_refused(options, message):
    with pytest.raises(NasrayError, match=message):
        Listed(ToySpace(), **options)
