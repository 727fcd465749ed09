import numpy as np
import pytest
from optuna.trial import FixedTrial, TrialState

from nasray.searchers import Objective, OptunaGP, OptunaNSGA2, OptunaTPE
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import BasicSpace, Budget, InfeasibleError, NasrayError, ShuffleNetSpace

MAKE = pytest.mark.parametrize("make", [OptunaTPE, OptunaNSGA2])


@MAKE
def test_constraints_are_told(make):
    space = ToySpace()
    searcher = make(space, budget=Budget(upper={"gmacs": 12.0}, lower={"gmacs": 4.0}), seed=0)
    proposals = run_search(searcher, 16)
    asked = {tuple(row) for proposal in proposals for row in proposal.genes.tolist()}
    refused = 0
    for trial in searcher.study.trials:
        row = space.repair(np.array([[trial.params[gene.name] for gene in space.genes]]))
        gmacs = space.cost(row)["gmacs"][0]
        expected = [max(gmacs / 12.0 - 1.0, 0.0), max(1.0 - gmacs / 4.0, 0.0)]
        assert list(trial.constraints.values()) == pytest.approx(expected)
        if any(expected):
            refused += 1
            assert tuple(row[0].tolist()) not in asked
    assert refused > 0


@MAKE
def test_known_duplicates_are_told_their_values_and_not_asked_for(make):
    space = ToySpace(widths=2)
    searcher = make(space, seed=0)
    proposals = run_search(searcher, 30)
    genes = np.concatenate([proposal.genes for proposal in proposals])
    assert len(np.unique(genes, axis=0)) == len(genes)
    completed = [trial for trial in searcher.study.trials if trial.state == TrialState.COMPLETE]
    assert len(completed) > len(genes), "no duplicate was suggested, so that this test shows nothing"
    for trial in completed:
        row = space.repair(np.array([[trial.params[gene.name] for gene in space.genes]]))
        assert trial.value == toy_metrics(space, row)["score"][0]


@MAKE
def test_pending_duplicates_fail(make):
    searcher = make(ToySpace(widths=1), seed=0)
    proposal = searcher.ask(16)
    assert len(proposal) == 16
    states = [trial.state for trial in searcher.study.trials]
    assert states.count(TrialState.RUNNING) == len(proposal)
    assert states.count(TrialState.FAIL) == len(states) - len(proposal)


@MAKE
def test_several_directions(make):
    objectives = (Objective("score"), Objective("gmacs", "min"))
    searcher = make(ToySpace(), objectives=objectives, seed=0)
    genes = searcher.ask(4).genes
    searcher.tell(genes, {"score": np.array([1.0, np.nan, 3.0, np.inf])})
    told = np.array([trial.values for trial in searcher.study.trials if trial.state == TrialState.COMPLETE])
    assert told[:, 0].tolist() == [1.0, -1e300, 3.0, 1e300]
    assert told[:, 1].tolist() == (-searcher.space.cost(genes)["gmacs"]).tolist()


@MAKE
def test_an_infeasible_budget_says_what_was_nearest(make):
    searcher = make(ToySpace(), budget=Budget(lower={"gmacs": 1000.0}), seed=0)
    searcher.max_tries = 60
    with pytest.raises(InfeasibleError, match=r"gmacs >= 1000.*the nearest has gmacs=48"):
        searcher.ask(1)


@MAKE
def test_duplicates_are_bounded_and_a_small_space_is_found_whole(make):
    """A sampler that is left alone suggests six trials for every new architecture here."""
    space = ToySpace(widths=3)
    searcher = make(space, seed=0)
    proposals = run_search(searcher, 1000, batch=10)
    genes = np.concatenate([proposal.genes for proposal in proposals])
    assert len(np.unique(genes, axis=0)) == len(genes) == 100
    assert searcher.shortfall.startswith("all 100 architectures of the space")
    assert len(searcher.study.trials) <= 2 * 100 + 2 * 10 + 1
    told = {trial.number for trial in searcher.study.trials if trial.state == TrialState.COMPLETE}
    assert len(told) >= 100, "what filled a batch is not told to the sampler"


@MAKE
def test_a_tight_budget_costs_a_bounded_number_of_trials(make):
    space = BasicSpace()
    budget = Budget(upper={"gmacs": 20.0, "layers": 61}, lower={"gmacs": 19.9, "layers": 61})
    searcher = make(space, budget=budget, seed=0)
    genes = np.concatenate([proposal.genes for proposal in run_search(searcher, 8, batch=4)])
    assert len(np.unique(genes, axis=0)) == 8
    assert budget.admits(space.cost(genes), 8).all()
    assert len(searcher.study.trials) <= 2 * (4 + 4 * 4 + 16 + 4 + 2)
    feasible = [trial for trial in searcher.study.trials if not any(trial.constraints.values())]
    assert len(feasible) == 8


def test_a_filled_row_is_the_trial_that_the_sampler_hears_of():
    for space in (BasicSpace(), ShuffleNetSpace(), ToySpace()):
        searcher = OptunaNSGA2(space, seed=0)
        rows = space.sample(20, np.random.default_rng(0))
        for row in rows:
            searcher._teach(row)
        for row, trial in zip(rows, searcher.study.trials, strict=True):
            assert trial.state == TrialState.RUNNING
            assert space.suggest(FixedTrial(trial.params)).tolist() == row.tolist()


def test_a_gaussian_process_learns():
    searcher = OptunaGP(ToySpace(), initial=6, seed=0)
    proposals = run_search(searcher, 16, batch=1)
    scores = np.concatenate([toy_metrics(searcher.space, proposal.genes)["score"] for proposal in proposals])
    assert scores[-6:].mean() > scores[:6].mean() + 0.3


def test_a_gaussian_process_hears_the_worst_value_of_what_has_none():
    searcher = OptunaGP(ToySpace(), budget=Budget(upper={"gmacs": 20.0}), initial=20, seed=0)
    searcher.tell(searcher.ask(3).genes, {"score": np.array([-2.0, -1.0, 4.0])})
    searcher.tell(searcher.ask(2).genes, {"score": np.array([np.nan, -np.inf])})
    searcher.ask(3)
    told = [trial.value for trial in searcher.study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(set(told)) in ([-2.0, -1.0, 4.0], [-2.0, -1.0, 0.0, 4.0])  # 0 before anything was told
    assert told.count(-2.0) >= 3


def test_a_gaussian_process_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("nasray.searchers.optuna.find_spec", lambda name: None if name == "scipy" else name)
    with pytest.raises(NasrayError, match="pip install scipy"):
        OptunaGP(ToySpace())


def test_first_samples_of_a_gaussian_process_follow_the_evaluations():
    initials = [OptunaGP(ToySpace(), evaluations=num).options()["initial"] for num in (10, 60, 1000)]
    assert initials == [4, 6, 10]
    with pytest.raises(NasrayError, match="initial >= 2"):
        OptunaGP(ToySpace(), initial=1)
