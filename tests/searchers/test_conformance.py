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

MAKE = {
    "random": SEARCHERS["random"],
    "evolution": partial(SEARCHERS["evolution"], population_size=8, mutation=0.5, crossover=0.3),
    "coarse-to-fine": partial(SEARCHERS["coarse-to-fine"], population_size=8, fine_after=10, keep=4),
    "pareto-evolution": partial(SEARCHERS["pareto-evolution"], population_size=8),
    "optuna-tpe": SEARCHERS["optuna-tpe"],
    "optuna-nsga2": partial(SEARCHERS["optuna-nsga2"], population_size=6),
}
SPACE = {"toy": ToySpace(), **{family: make() for family, make in SPACES.items()}}

# Optuna takes 50 ms for one suggestion in a space of 33 genes; one such space has to do by default.
PAIRS = [
    pytest.param(
        searcher,
        space,
        marks=[pytest.mark.slow] if searcher.startswith("optuna") and space not in ("toy", "basic") else [],
    )
    for searcher in MAKE
    for space in SPACE
]


def test_every_searcher_is_tested():
    assert list(MAKE) == list(SEARCHERS)


@pytest.mark.parametrize(("searcher", "space"), PAIRS)
def test_searcher(searcher, space):
    num = 6 if searcher == "optuna-tpe" else 8 if searcher == "optuna-nsga2" else 24
    for check in SEARCHER_CHECKS:
        check(MAKE[searcher], SPACE[space], num)


@pytest.mark.parametrize("searcher", MAKE)
def test_tiny_space(searcher):
    check_tiny_space(MAKE[searcher])


@pytest.mark.parametrize("searcher", MAKE)
def test_fresh_process(searcher):
    check_fresh_process(MAKE[searcher], num=24)


def test_check_searcher_runs_every_check():
    check_searcher(RandomSearch, num=12)


class Forgetful(Evolution):
    def _admissible(self, candidates, most):
        return np.arange(len(candidates))[:most]


class UsesTheGlobalGenerator(RandomSearch):
    def _propose(self, num):
        genes, parents = super()._propose(num)
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
