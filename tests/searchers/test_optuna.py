import numpy as np
import pytest
from optuna.trial import TrialState

from nasray.searchers import Objective, OptunaNSGA2, OptunaTPE
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import Budget, InfeasibleError

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
    searcher.max_tries = 30
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
    searcher.max_tries = 20
    proposal = searcher.ask(16)
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
    searcher.max_tries = 15
    with pytest.raises(InfeasibleError, match=r"gmacs >= 1000.*the nearest has gmacs=48"):
        searcher.ask(1)
