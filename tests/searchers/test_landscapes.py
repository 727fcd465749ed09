"""Evolution by default, which `nasray.search` takes, beside random search, plain aging evolution, and Optuna's TPE;
`guided-evolution` beside aging evolution; and `pareto-evolution` by default beside random search.

A short version of `benchmarks/landscapes.py`, whose figures are in docs/benchmarks.md. Every seed has a landscape and a
search of its own; differences are taken seed by seed.
"""

import importlib.util
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SIZES = (50, 100, 300, 1000)
LANDSCAPES = ("cell-15625", "traps-10^6", "small-640")
QUICK = [*itertools.product(LANDSCAPES, SIZES[:3]), ("traps-10^6", 1000), ("blocks-10^12", 50), ("blocks-10^12", 300)]
FEW, ALL = 10, 20
"""Seeds of the default suite and of the slow one."""


@cache
def landscapes():
    spec = importlib.util.spec_from_file_location("landscapes", ROOT / "benchmarks" / "landscapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def reached(searcher, landscape, evaluations, seeds, several=False):
    found = [landscapes().reached(searcher, landscape, evaluations, seed, several=several) for seed in range(seeds)]
    return np.array(found)


def difference(other, landscape, evaluations, seeds, *, own="evolution", several=False):
    """How much more the default reaches, in standard deviations of the landscape: its mean, and half its interval.

    Of several objectives it is the share of a box that the front dominates.
    """
    apart = reached(own, landscape, evaluations, seeds, several) - reached(
        other, landscape, evaluations, seeds, several
    )
    return apart.mean(), 1.96 * apart.std(ddof=1) / len(apart) ** 0.5


@pytest.mark.parametrize("evaluations", SIZES)
@pytest.mark.parametrize("landscape", ["cell-15625", "traps-10^6", "blocks-10^12"])  # not one that is soon known whole
def test_the_default_beats_random_search(landscape, evaluations):
    mean, half = difference("random", landscape, evaluations, FEW)
    assert mean - half > 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.parametrize(("landscape", "evaluations"), QUICK)
def test_the_default_is_as_good_as_aging_evolution(landscape, evaluations):
    mean, half = difference("plain-aging", landscape, evaluations, FEW)
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"


def test_the_default_is_as_good_as_tpe():
    mean, half = difference("optuna-tpe", "cell-15625", 50, ALL)  # ten seeds differ by chance more than these two do
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.parametrize(("landscape", "evaluations"), [
    ("blocks-10^12", 100),
    pytest.param("layers", 100, marks=pytest.mark.slow),
    pytest.param("traps-10^6", 300, marks=pytest.mark.slow),
])  # fmt: skip
def test_guided_evolution_beats_aging_evolution(landscape, evaluations):
    mean, half = difference("aging-evolution", landscape, evaluations, FEW, own="guided-evolution")
    assert mean - half > 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", [100, 300])
@pytest.mark.parametrize("landscape", ["small-640", "cell-15625", "smooth-15625", "peaks-10^8"])
def test_guided_evolution_is_as_good_as_aging_evolution(landscape, evaluations):
    mean, half = difference("aging-evolution", landscape, evaluations, ALL, own="guided-evolution")
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"


def front_difference(landscape, evaluations, seeds):
    return difference("random", landscape, evaluations, seeds, own="pareto-evolution", several=True)


@pytest.mark.parametrize("evaluations", [50, 300])
@pytest.mark.parametrize("landscape", ["cell-15625", "traps-10^6", "blocks-10^12"])
def test_the_front_by_default_beats_random_search(landscape, evaluations):
    mean, half = front_difference(landscape, evaluations, FEW)
    assert mean - half > 0, f"{mean:.3f} +- {half:.3f}"


def test_the_front_of_few_evaluations_of_a_real_space_is_as_good_as_random_search():
    mean, half = front_difference("layers", 50, FEW)  # even: random samples cover this front well
    assert mean >= 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", SIZES)
@pytest.mark.parametrize("landscape", ["small-640", "smooth-15625", "peaks-10^8", "layers"])
def test_the_front_by_default_is_never_below_random_search(landscape, evaluations):
    mean, half = front_difference(landscape, evaluations, 30)
    assert mean >= 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", SIZES)
@pytest.mark.parametrize("landscape", LANDSCAPES)
@pytest.mark.parametrize("other", ["random", "plain-aging", "optuna-tpe"])
def test_the_default_is_as_good_as_others_over_all_seeds(other, landscape, evaluations):
    mean, half = difference(other, landscape, evaluations, ALL)
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"
