import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.searchers import (
    SEARCHERS,
    CoarseToFineEvolution,
    Evolution,
    Objective,
    OptunaNSGA2,
    ParetoEvolution,
    default_batches,
)
from nasray.searchers.testing import ToySpace, run_search

SIZES = [1, 2, 5, 20, 50, 100, 300, 1000, 10_000, 100_000, 10_000_000]


@pytest.mark.parametrize("evaluations", SIZES)
def test_little_of_a_search_is_asked_for_before_anything_is_told(evaluations):
    batch_size, in_flight = default_batches(evaluations)
    assert 1 <= batch_size <= 1024
    assert batch_size * in_flight <= max(evaluations / 20, 2)
    if evaluations >= 100:
        assert evaluations / batch_size <= 10_000, "a trial of Ray Tune costs tens of milliseconds"


@pytest.mark.parametrize("evaluations", SIZES)
@pytest.mark.parametrize("name", ["evolution", "coarse-to-fine", "pareto-evolution"])
def test_sizes_of_an_evolution_follow_the_evaluations(name, evaluations):
    options = SEARCHERS[name](ToySpace(), evaluations=evaluations).options()
    least = 2 if name == "pareto-evolution" else 1  # here of one objective
    assert least <= options["parents"] < options["population_size"] <= max(evaluations / 5, 8)
    assert options["initial"] <= max(evaluations / 5, 2)
    if 300 <= evaluations <= 1000:  # DetNAS's settings, which beat others there
        assert (options["population_size"], options["parents"], options["initial"]) == (50, 10, 50)


def test_of_few_evaluations_the_best_alone_breeds_and_not_the_ends_of_a_front_alone():
    assert Evolution(ToySpace(), evaluations=50).num_parents == 1
    assert Evolution(ToySpace(), evaluations=100).num_parents == 3
    both = (Objective("score"), Objective("gmacs", "min"))
    searcher = ParetoEvolution(ToySpace(), evaluations=50, objectives=both, seed=0)
    assert searcher.num_parents == 3
    run_search(searcher, 24)
    breeding = searcher.values[: searcher.num_parents]
    ends = {int(column.argmax()) for column in searcher.values.T}
    assert len(np.unique(breeding, axis=0)) > len(ends) == 2, "one between the ends breeds as well"


def test_an_ordered_search_tells_its_searcher_the_evaluations():
    searcher = CoarseToFineEvolution(ToySpace())
    OrderedSearch(searcher, evaluations=60, batch_size=1, in_flight=1)
    assert (searcher.population_size, searcher.fine_after) == (10, 30)
    own = Evolution(ToySpace(), evaluations=300)
    OrderedSearch(own, evaluations=60, batch_size=1, in_flight=1)
    assert own.population_size == 50


def test_what_is_given_stays():
    given = {
        "population_size": 7,
        "parents": 7,
        "mutation": 0.3,
        "crossover": 0.2,
        "mutations_per_child": 3,
        "initial": 0,
    }
    assert Evolution(ToySpace(), evaluations=10_000, **given).options() == given
    assert OptunaNSGA2(ToySpace(), population_size=9).options() == {"population_size": 9}


@pytest.mark.parametrize(
    ("given", "shares"),
    [({}, (0.5, 0.5)), ({"mutation": 0.8}, (0.8, 0.2)), ({"crossover": 0.3}, (0.7, 0.3)), ({"mutation": 1.0}, (1, 0))],
)
def test_a_share_that_is_left_out_is_what_the_other_leaves(given, shares):
    searcher = Evolution(ToySpace(), **given)
    assert (searcher.mutation, searcher.crossover) == pytest.approx(shares)


def test_coarse_to_fine_mutates_unless_told_otherwise():
    assert CoarseToFineEvolution(ToySpace()).options()["mutation"] == 1.0
    assert CoarseToFineEvolution(ToySpace(), crossover=0.5).options()["mutation"] == 0.5
