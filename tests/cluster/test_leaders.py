from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.leaders import NUM_BEST, Entry, Leaders, best_within, in_turn, leaders
from nasray.cluster.recorder import Recorder
from nasray.searchers import Objective, RandomSearch, pareto_front
from nasray.spaces import Architecture, Budget, Costs, Gene, NasrayError, Population, Space

VALUES = st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 1.0, 2.0])


class Priced(Space):
    """Two genes, with a cost."""

    family = "priced"
    genes = (Gene("x", tuple(range(16))), Gene("y", tuple(range(16))))

    def cost(self, population: Population) -> Costs:
        return {"price": population[:, 0] + 1.0}


def entry(score: float, **costs: float) -> Entry:
    return Entry(Architecture.create("priced", {"score": score}), 3, {"score": score}, costs)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=1, min_side=1, max_side=40), elements=VALUES))
def test_the_best_by_one_objective_are_those_of_a_sort_and_the_earlier_of_equals(column):
    wanted = sorted(range(len(column)), key=lambda place: (-column[place], place))[:NUM_BEST]
    assert leaders(column[:, None]).tolist() == wanted
    backwards = np.arange(len(column))[::-1]  # the last row was evaluated first
    wanted = sorted(range(len(column)), key=lambda place: (-column[place], -place))[:NUM_BEST]
    assert leaders(column[:, None], backwards).tolist() == wanted


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(2, 3)), elements=VALUES))
def test_of_several_objectives_they_are_the_front_by_brute_force(values):
    found = leaders(values).tolist()
    dominated = [any((b >= a).all() and (b > a).any() for b in values) for a in values]
    assert sorted(found) == [place for place, worse in enumerate(dominated) if not worse]
    assert found == sorted(found, key=lambda place: (-values[place, 0], place))


def test_the_best_of_every_niche_lead():
    values, niches = np.arange(60.0)[:, None], np.repeat([7, 2, 5], 20)
    assert leaders(values, niches=niches).tolist() == [*range(59, 49, -1), *range(39, 29, -1), *range(19, 9, -1)]
    both = np.stack([np.arange(4.0), [1.0, 0.0, 1.0, 0.0]], axis=1)
    assert leaders(both, niches=np.array([0, 0, 1, 1])).tolist() == [3, 2, 1, 0]


def test_in_turn_every_niche_gives_its_next_best():
    values, niches = np.array([[1.0], [9.0], [8.0], [2.0], [7.0], [-np.inf]]), np.array([4, 0, 0, 4, 0, 4])
    assert in_turn(values, niches).tolist() == [1, 3, 2, 0, 4, 5]
    assert in_turn(values, np.zeros(6, dtype=np.int64)).tolist() == [1, 2, 4, 3, 0, 5]


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(2, 3)), elements=VALUES))
def test_in_turn_of_several_objectives_the_front_comes_before_the_rest(values):
    found, front = in_turn(values, np.zeros(len(values), dtype=np.int64)), pareto_front(values)
    assert sorted(found.tolist()) == list(range(len(values)))
    assert front[found[: front.sum()]].all()


@pytest.mark.parametrize("minimize", [False, True])
def test_batch_by_batch_they_are_those_of_the_whole_history(minimize):
    objectives = (Objective("score"), Objective("price", "min")) if minimize else (Objective("score"),)
    searcher = RandomSearch(Priced(), objectives=objectives, seed=4)
    rng = np.random.default_rng(0)
    genes = searcher.space.sample(200, rng)
    scores = np.round(rng.normal(size=200), 1)
    scores[::17] = np.nan
    kept = Leaders(searcher)
    for start in range(0, 200, 30):
        rows = slice(start, min(start + 30, 200))
        kept.add(genes[rows], searcher.cost(genes[rows]), {"score": scores[rows]})
    whole = leaders(searcher.objective_values(genes, {"score": scores}))
    assert [kept.entry(place).evaluation for place in range(len(kept))] == whole.tolist()
    assert [kept.entry(place).id for place in range(len(kept))] == [searcher.space.ids(genes)[i] for i in whole]


def test_an_entry_is_the_same_after_json_and_in_the_run_folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run", {})
    search = OrderedSearch(RandomSearch(Priced(), seed=0), evaluations=20, batch_size=20, in_flight=1)
    recorder = Recorder(folder, search)
    search.fill()
    (batch,) = search.receive(0, {"score": np.r_[np.nan, np.arange(19.0)]})
    recorder.write(batch, {"batch": 0, "started": 0.0, "seconds": 1.0, "host": "a", "process": 1})
    search.tell(batch)
    recorder.finish()
    entries = folder.read_entries()
    assert [e.metrics["score"] for e in entries] == [18.0, 17.0, 16.0, 15.0, 14.0, 13.0, 12.0, 11.0, 10.0, 9.0]
    assert [e.evaluation for e in entries] == list(range(19, 9, -1))
    for found in entries:
        assert Entry.from_json(json.loads(json.dumps(found.to_json()))) == found
        assert found.figures == {**found.metrics, **found.costs}


def test_the_best_within_a_budget_is_the_first_that_meets_all_its_bounds():
    entries = [entry(9, gmacs=30.0, layers=5.0), entry(8, gmacs=20.0, layers=9.0), entry(7, gmacs=10.0, layers=4.0)]
    assert best_within(entries, Budget()) == entries[0]
    assert best_within(entries, Budget({"gmacs": 20.0})) == entries[1]
    assert best_within(entries, Budget({"gmacs": 20.0, "layers": 8.0})) == entries[2]
    assert best_within(entries, Budget({"gmacs": 20.0}, {"gmacs": 15.0})) == entries[1]
    with pytest.raises(NasrayError, match=r"none of the 3 best .* within gmacs <= 9: they have gmacs 10 to 30"):
        best_within(entries, Budget({"gmacs": 9.0}))
    with pytest.raises(NasrayError, match=r"on price: this run has no such cost. It has: gmacs, layers"):
        best_within(entries, Budget({"price": 9.0}))


def test_a_search_that_ended_early_says_so_when_it_is_finished(tmp_path, capsys):
    searcher = RandomSearch(Priced(), budget=Budget({"price": 1.0}), seed=0)
    search = OrderedSearch(searcher, evaluations=100, batch_size=50, in_flight=1)
    recorder = Recorder(RunFolder.create(tmp_path / "run", {}), search)
    search.fill()
    while not search.is_finished:
        index = search.num_batches_told
        for batch in search.receive(index, {"score": np.zeros(len(search.pending[index].genes))}):
            search.tell(batch)
    assert "ended early" not in capsys.readouterr().err
    recorder.finish()
    assert "ended early at 16 of 100 evaluations" in capsys.readouterr().err
