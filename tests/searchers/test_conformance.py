from functools import partial

import numpy as np
import pytest

from nasray.searchers import SEARCHERS, Evolution, RandomSearch
from nasray.searchers.testing import (
    SEARCHER_CHECKS,
    ToySpace,
    check_fresh_process,
    check_proposals,
    check_same_seed,
    check_save_and_load,
    check_searcher,
    check_tiny_space,
)
from nasray.spaces import SPACES


def listed(space, *, seed=0, **options):
    return SEARCHERS["listed"](space, rows=space.sample(2000, np.random.default_rng(seed)), seed=seed, **options)


def by_first_cost(name, space, *, cost=None, **options):
    """A search by thirds of whatever is counted; where that is the same for all, by edges around it."""
    count = cost or space.cost
    known, values = next(iter(count(space.sample(99, np.random.default_rng(0))).items()))
    edges = np.quantile(values, np.linspace(0, 1, 4)) if np.ptp(values) else np.arange(3.0)
    division = {"num": 3} if space.family == "toy" and known == "gmacs" else {"edges": edges}
    return SEARCHERS[name](space, by=known, cost=cost, **division, **options)


def toy_guesses(genes):
    return -genes.sum(axis=1).astype(np.float64)


MAKE = {
    "random": SEARCHERS["random"],
    "evolution": partial(SEARCHERS["evolution"], population_size=8, mutation=0.5, crossover=0.3),
    "aging-evolution": partial(SEARCHERS["aging-evolution"], population_size=8, tournament=3),
    "guided-evolution": partial(SEARCHERS["guided-evolution"], population_size=8, initial=6, refit=3, candidates=5),
    "coarse-to-fine": partial(SEARCHERS["coarse-to-fine"], population_size=8, fine_after=10, keep=4),
    "pareto-evolution": partial(SEARCHERS["pareto-evolution"], population_size=8),
    "optuna-tpe": SEARCHERS["optuna-tpe"],
    "optuna-nsga2": partial(SEARCHERS["optuna-nsga2"], population_size=6),
    "optuna-gp": partial(SEARCHERS["optuna-gp"], initial=4),
    "listed": listed,
    "buckets": partial(by_first_cost, "buckets"),
    "bucket-evolution": partial(by_first_cost, "bucket-evolution", population_size=4, initial=3),
}
SPACE = {"toy": ToySpace(), **{family: make() for family, make in SPACES.items()}}

# Optuna takes 50 ms for one suggestion in a space of 33 genes, and a Gaussian process more: one such space, or none,
# has to do by default.
QUICK = {"optuna-tpe": ("toy", "basic"), "optuna-nsga2": ("toy", "basic"), "optuna-gp": ()}
PAIRS = [
    pytest.param(
        searcher,
        space,
        marks=[pytest.mark.slow] if searcher.startswith("optuna") and space not in QUICK[searcher] else [],
    )
    for searcher in MAKE
    for space in SPACE
]


def test_every_searcher_is_tested():
    assert list(MAKE) == list(SEARCHERS)


@pytest.mark.parametrize(("searcher", "space"), PAIRS)
def test_searcher(searcher, space):
    num = {"optuna-tpe": 6, "optuna-nsga2": 8, "optuna-gp": 6}.get(searcher, 24)
    for check in SEARCHER_CHECKS:
        check(MAKE[searcher], SPACE[space], num)


@pytest.mark.parametrize("searcher", [name for name in MAKE if not name.startswith(("optuna", "guided"))])
def test_searcher_with_a_predictor(searcher):
    for check in SEARCHER_CHECKS:
        check(partial(MAKE[searcher], predictor=toy_guesses, oversample=4), SPACE["toy"], 12)
    check_tiny_space(partial(MAKE[searcher], predictor=toy_guesses, oversample=4))


@pytest.mark.parametrize("searcher", [name for name in MAKE if name != "optuna-gp"])
def test_tiny_space(searcher):
    check_tiny_space(MAKE[searcher])


@pytest.mark.slow
def test_tiny_space_by_a_gaussian_process():
    check_tiny_space(MAKE["optuna-gp"])


def test_searches_by_a_gaussian_process_are_continued():
    check_save_and_load(partial(MAKE["optuna-gp"], initial=2), SPACE["toy"], 6)


# Those that a function of this file makes cannot be pickled.
@pytest.mark.parametrize("searcher", [name for name in MAKE if name != "listed" and "bucket" not in name])
def test_fresh_process(searcher):
    check_fresh_process(MAKE[searcher], num=6 if searcher == "optuna-gp" else 24)


@pytest.mark.parametrize("searcher", ["buckets", "bucket-evolution"])
def test_buckets_in_a_fresh_process(searcher):
    check_fresh_process(partial(SEARCHERS[searcher], num=3), num=24)


def test_check_searcher_runs_every_check():
    check_searcher(RandomSearch, num=12)


class Forgetful(Evolution):
    def _admissible(self, candidates, most):
        return np.arange(len(candidates))[:most]


class UsesTheGlobalGenerator(RandomSearch):
    def _candidates(self, kind, num):
        genes, parents = super()._candidates(kind, num)
        return genes[np.random.permutation(len(genes))], parents  # noqa: NPY002


class SavesTooLittle(Evolution):
    def _state(self):
        state = super()._state()
        state.pop("values")
        state.pop("genes")
        state.pop("numbers")
        return state


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (Forgetful, check_proposals, "twice|outside of the budget"),
        (UsesTheGlobalGenerator, check_same_seed, "the same seed"),
        (partial(SavesTooLittle, initial=0), check_save_and_load, "save and load"),
    ],
)
def test_checks_find_broken_searchers(make, check, message):
    with pytest.raises(AssertionError, match=message):
        check(make, ToySpace(), 24)
