import pickle

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.searchers import GuidedEvolution, Objective
from nasray.searchers import guided as module
from nasray.searchers.surrogate import GaussianProcess
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import Budget, NasrayError, ShuffleNetSpace, row_keys

SPACE = ShuffleNetSpace()


def guided(**options):
    return GuidedEvolution(SPACE, evaluations=100, **{"seed": 0, "refit": 8, **options})


@pytest.fixture
def fits(monkeypatch):
    """The numbers of evaluations that predictors were fitted to."""
    found = []

    class Counted(GaussianProcess):
        def __init__(self, space, genes, values):
            found.append(len(genes))
            super().__init__(space, genes, values)

    monkeypatch.setattr(module, "GaussianProcess", Counted)
    return found


def test_what_is_left_out_follows_from_the_evaluations():
    searcher = GuidedEvolution(SPACE, evaluations=300)
    assert searcher.options() == {
        "population_size": 50, "initial": 50, "parents": 10, "mutation": 0.4, "crossover": 0.4,
        "mutations_per_child": 3, "refit": 12, "candidates": 50, "optimism": 2.0,
    }  # fmt: skip
    assert GuidedEvolution(SPACE, mutation=0.7).crossover == pytest.approx(0.3)
    assert GuidedEvolution(SPACE, crossover=0.3).mutation == 0.7
    assert GuidedEvolution(SPACE, evaluations=10).refit == 1


def test_it_is_evolution_until_the_first_fit():
    assert guided().ask(16).genes.tolist() == SPACE.sample(16, np.random.default_rng(0)).tolist()


def test_a_fit_is_made_after_every_so_many_evaluations(fits):
    run_search(guided(), 60, batch=4)
    assert fits == [16, 24, 32, 40, 48, 56]


def test_children_are_the_best_of_their_candidates():
    searcher = guided(candidates=7)
    run_search(searcher, 40)
    process = GaussianProcess(SPACE, searcher.known[:40], searcher.worth[:40])
    other = guided(candidates=1)
    other.load_state_dict(pickle.loads(pickle.dumps(searcher.state_dict())))
    other._use_fit_to(0)
    kinds = other._kinds(1)
    candidates = other._find(int(kinds[0]), 7, enough=1).genes
    means, deviations = process(candidates)
    assert searcher.ask(1).genes[0].tolist() == candidates[np.argmax(means + 2 * deviations)].tolist()
    assert not np.isin(row_keys(candidates), list(searcher.seen)).all(), "what nobody evaluates stays new"


def test_a_search_that_is_continued_makes_the_newest_fit_alone(fits):
    straight = guided()
    before = run_search(straight, 44, batch=4)
    state = pickle.dumps(straight.state_dict())
    made = len(fits)
    after = [proposal.genes for proposal in run_search(straight, 24, batch=4)]
    again = guided(seed=5)
    again.load_state_dict(pickle.loads(state))
    made_by_straight = fits[made:]
    del fits[:]
    assert np.concatenate([p.genes for p in run_search(again, 24, batch=4)]).tolist() == np.concatenate(after).tolist()
    assert fits == [40, *made_by_straight]
    assert pickle.dumps(again.state_dict()["known"]) == pickle.dumps(straight.state_dict()["known"])
    assert len(before) == 11


def test_a_run_that_was_killed_asks_for_the_same_again():
    def new(seed=3):
        searcher = GuidedEvolution(SPACE, seed=seed, initial=10)
        return OrderedSearch(searcher, evaluations=60, batch_size=4, in_flight=2)

    def run(search):
        search.run(lambda genes: toy_metrics(SPACE, genes), told.append)

    told = []
    run(new())
    whole, told = told, []
    killed = new()
    for batch in whole[:9]:
        killed.replay(batch.index, batch.proposal.genes, batch.metrics)
    run(killed)
    assert [batch.index for batch in told] == list(range(9, 15))
    for before, after in zip(whole[9:], told, strict=True):
        assert before.proposal.genes.tobytes() == after.proposal.genes.tobytes()
        assert before.proposal.parents.tobytes() == after.proposal.parents.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_has_no_value_does_no_harm(value):
    def measure(genes):
        scores = toy_metrics(SPACE, genes)["score"]
        return {"score": np.where(np.arange(len(genes)) % 3 == 0, value, scores)}

    searcher = guided()
    assert sum(len(proposal) for proposal in run_search(searcher, 60, metrics=measure)) == 60
    assert np.isfinite(searcher._guess(SPACE.sample(20, np.random.default_rng(0)))).all()


def test_nothing_but_nan_is_searched_to_the_end():
    def measure(genes):
        return {"score": np.full(len(genes), np.nan)}

    assert sum(len(proposal) for proposal in run_search(guided(), 40, metrics=measure)) == 40


def test_of_very_many_evaluations_the_best_and_the_latest_are_fitted_to(fits, monkeypatch):
    monkeypatch.setattr(module, "MAX_FITTED", 20)
    searcher = guided()
    run_search(searcher, 60)
    genes, values = searcher._fitted_to()
    assert max(fits) == len(genes) == 20
    worth = searcher.worth[: searcher.num_fitted]
    assert set(np.sort(worth)[-10:]) <= set(values.tolist())
    assert searcher.known[searcher.num_fitted - 1].tolist() == genes[-1].tolist()


def test_it_keeps_to_the_budget():
    budget = Budget(upper={"gmacs": 0.3})
    for proposal in run_search(guided(budget=budget), 80):
        assert (SPACE.cost(proposal.genes)["gmacs"] <= 0.3).all()


def test_it_finds_more_than_evolution_does_by_itself():
    def best(candidates):
        found = []
        for seed in range(5):
            searcher = guided(seed=seed, candidates=candidates)
            proposals = run_search(searcher, 60, batch=2)
            found.append(max(toy_metrics(SPACE, p.genes)["score"].max() for p in proposals))
        return np.mean(found)

    assert best(50) > best(1) + 0.1


@pytest.mark.parametrize(("options", "message"), [
    ({"predictor": lambda genes: genes.sum(axis=1)}, "a predictor of its own, and takes no other. Leave preselect"),
    ({"refit": 0}, "refit is a whole number from 1"),
    ({"candidates": 0}, "candidates is a whole number from 1 to 1,000"),
    ({"optimism": float("nan")}, "optimism is a number from 0 to 100"),
    ({"objectives": (Objective("score"), Objective("gmacs", "min"))}, "takes 1 to 1 objectives"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(NasrayError, match=message):
        guided(**options)


def test_a_tiny_space_is_searched_to_its_end():
    searcher = GuidedEvolution(ToySpace(widths=2), seed=0, evaluations=100)
    assert sum(len(proposal) for proposal in run_search(searcher, 100)) == 49
