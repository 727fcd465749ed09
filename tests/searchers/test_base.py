import numpy as np
import pytest

from nasray.searchers import SEARCHERS, Evolution, RandomSearch
from nasray.searchers.base import best_of_niches
from nasray.searchers.testing import ToySpace, run_search
from nasray.spaces import Budget, NasrayError, ShuffleNetSpace, row_keys


def total(genes):
    return genes.sum(axis=1).astype(np.float64)


def test_a_predictor_keeps_the_best_of_many_candidates():
    space = ShuffleNetSpace()
    plain, guided = (RandomSearch(space, seed=0, **options) for options in ({}, {"predictor": total, "oversample": 20}))
    candidates = plain.ask(20 * 8).genes
    best = candidates[np.sort(np.argsort(-total(candidates), kind="stable")[:8])]
    assert guided.ask(8).genes.tolist() == best.tolist()
    assert guided.seen == set(row_keys(best).tolist()), "what nobody evaluates must stay new"


def test_what_a_predictor_passed_over_can_be_asked_for_later():
    space = ToySpace(widths=2)
    searcher = RandomSearch(space, seed=0, predictor=total, oversample=5)
    found = np.concatenate([proposal.genes for proposal in run_search(searcher, 100)])
    assert len(np.unique(found, axis=0)) == len(found) == 49
    assert total(found[:8]).mean() > total(found[-8:]).mean()


class InHalves(RandomSearch):
    """Scores of rows with an even first gene do not compare with those of the others."""

    def niches(self, genes):
        return genes[:, 0] % 2


class ByThirds:
    """Guesses that do not compare where the second gene differs; those of some niches are far above all others."""

    def bucket_of(self, genes):
        return genes[:, 1] % 3

    def __call__(self, genes):
        return total(genes) + 1_000 * (genes[:, 0] % 2) + 100 * (genes[:, 1] % 3)


@pytest.mark.parametrize("predictor", [total, ByThirds()])
def test_guesses_compare_inside_a_niche_alone(predictor):
    space = ShuffleNetSpace()
    plain, guided = (InHalves(space, seed=3, **options) for options in ({}, {"predictor": predictor, "oversample": 20}))
    candidates, kept = plain.ask(20 * 12).genes, guided.ask(12).genes
    thirds = getattr(predictor, "bucket_of", lambda genes: np.zeros(len(genes), dtype=np.int64))
    niche, of_kept = (thirds(rows) * 2 + rows[:, 0] % 2 for rows in (candidates, kept))
    assert sorted(of_kept) == sorted(niche[:12]), "as many of each niche as without a predictor"
    assert len(set(of_kept.tolist())) > 1
    for value in set(of_kept.tolist()):
        best = np.sort(predictor(candidates[niche == value]))[::-1][: (of_kept == value).sum()]
        assert np.sort(predictor(kept[of_kept == value]))[::-1].tolist() == best.tolist()


def test_of_equal_guesses_the_earlier_is_kept():
    guesses, niches = np.array([0.0, 2.0, 2.0, 1.0, 2.0, 5.0]), np.array([0, 1, 0, 1, 0, 2])
    assert best_of_niches(guesses, np.zeros(6, dtype=np.int64), 3).tolist() == [False, True, True, False, False, True]
    assert best_of_niches(guesses, niches, 3).tolist() == [False, True, True, False, True, False]
    assert best_of_niches(guesses, niches, 6).all()


def test_guesses_that_are_nan_come_last():
    def guesses(genes):
        return np.where(genes[:, 0] == 0, np.nan, -np.inf if genes.size == 0 else 0.0)

    searcher = RandomSearch(ShuffleNetSpace(), seed=0, predictor=guesses, oversample=4)
    assert (searcher.ask(32).genes[:, 0] != 0).all()


def test_the_budget_holds_for_candidates_of_a_predictor():
    space, budget = ShuffleNetSpace(), Budget(upper={"gmacs": 0.3})
    searcher = Evolution(space, seed=0, budget=budget, predictor=lambda genes: space.cost(genes)["gmacs"])
    for proposal in run_search(searcher, 120):
        assert (space.cost(proposal.genes)["gmacs"] <= 0.3).all()


@pytest.mark.parametrize("oversample", [0, 1001, 2.5, True])
def test_oversample_has_a_range(oversample):
    with pytest.raises(NasrayError, match="oversample is a whole number from 1 to 1,000"):
        RandomSearch(ToySpace(), predictor=total, oversample=oversample)


@pytest.mark.parametrize("name", [name for name in SEARCHERS if name.startswith("optuna")])
def test_optuna_refuses_a_predictor(name):
    with pytest.raises(NasrayError, match="would stay open in their study"):
        SEARCHERS[name](ToySpace(), predictor=total)


def test_everything_is_in_one_niche_by_default():
    assert RandomSearch(ToySpace()).niches(np.zeros((3, 4), dtype=np.int64)).tolist() == [0, 0, 0]
