"""Evolution by default, which `nasray.search` takes, beside random search, plain aging evolution, and Optuna's TPE.

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
QUICK = [*itertools.product(LANDSCAPES, SIZES[:3]), ("traps-10^6", 1000)]
FEW, ALL = 10, 20
"""Seeds of the default suite and of the slow one."""


@cache
def landscapes():
    spec = importlib.util.spec_from_file_location("landscapes", ROOT / "benchmarks" / "landscapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def reached(searcher, landscape, evaluations, seeds):
    found = [landscapes().reached(searcher, landscape, evaluations, seed, several=False) for seed in range(seeds)]
    return np.array(found)


def difference(other, landscape, evaluations, seeds):
    """How much more the default reaches, in standard deviations of the landscape: its mean, and half its interval."""
    own = reached("evolution", landscape, evaluations, seeds)
    apart = own - reached(other, landscape, evaluations, seeds)
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
    mean, half = difference("optuna-tpe", "cell-15625", 50, FEW)
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("evaluations", SIZES)
@pytest.mark.parametrize("landscape", LANDSCAPES)
@pytest.mark.parametrize("other", ["random", "plain-aging", "optuna-tpe"])
def test_the_default_is_as_good_as_others_over_all_seeds(other, landscape, evaluations):
    mean, half = difference(other, landscape, evaluations, ALL)
    assert mean + half >= 0, f"{mean:.3f} +- {half:.3f}"
