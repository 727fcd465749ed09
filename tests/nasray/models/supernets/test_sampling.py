import subprocess
import sys

import numpy as np
import pytest

from nasray.models.supernets import DETNAS_WINDOWS, UniformPaths, WindowedPaths, sampling
from nasray.spaces import NasrayError, ShuffleNetSpace

SPACE = ShuffleNetSpace("small")


def draws(sampler, num):
    return np.stack([sampler.draw(iteration) for iteration in range(num)])


def windowed(**options):
    return WindowedPaths(SPACE, seed=1, windows=DETNAS_WINDOWS, cost=lambda space: space.classifier_cost, **options)


def test_uniform_paths():
    paths = draws(UniformPaths(SPACE, seed=0), 4000)
    for choice in range(4):
        assert (paths == choice).mean(axis=0) == pytest.approx(np.full(20, 0.25), abs=0.035)
    assert len(np.unique(paths, axis=0)) == len(paths)


def test_a_path_depends_on_seed_and_iteration_alone():
    sampler = windowed()
    expected = draws(sampler, 5)
    assert np.array_equal(sampler.draw(3), expected[3])
    assert not np.array_equal(draws(UniformPaths(SPACE, seed=1), 5), draws(UniformPaths(SPACE, seed=2), 5))
    code = (
        "from nasray.models.supernets import *\nfrom nasray.spaces import *\nspace = ShuffleNetSpace('small')\n"
        "sampler = WindowedPaths(space, seed=1, windows=DETNAS_WINDOWS, cost=lambda space: space.classifier_cost)\n"
        "print(sampler.draw(4).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(expected[4].tolist())


def test_windows_are_equally_frequent_and_seldom_missed():
    assert DETNAS_WINDOWS[0] == (0.29, 0.30)
    assert DETNAS_WINDOWS[-1] == (0.35, 0.36)
    gmacs = SPACE.classifier_cost(draws(windowed(), 2100))["gmacs"]
    inside = (gmacs >= 0.29) & (gmacs <= 0.36)
    assert inside.mean() > 0.995  # the first window is missed by 0.42 % of its draws
    shares = np.histogram(gmacs[inside], bins=np.linspace(0.29, 0.36, 8))[0] / len(gmacs)
    assert shares == pytest.approx(np.full(7, 1 / 7), abs=0.03)


def test_shares_of_the_windows_among_uniform_paths():
    gmacs = SPACE.classifier_cost(SPACE.sample(40_000, np.random.default_rng(0)))["gmacs"]
    shares = [((gmacs >= low) & (gmacs <= high)).mean() for low, high in DETNAS_WINDOWS]
    # exact, from all 4^20 sums of the released look-up table
    exact = [0.010871, 0.064398, 0.195001, 0.318140, 0.271569, 0.114517, 0.022662]
    assert shares == pytest.approx(exact, abs=0.008)


def test_in_vain_any_path_is_taken(monkeypatch):
    monkeypatch.setattr(sampling, "TRIES", 1)
    paths = draws(windowed(), 400)
    gmacs = SPACE.classifier_cost(paths)["gmacs"]
    assert len(np.unique(paths, axis=0)) == 400
    assert (gmacs < 0.29).mean() + (gmacs > 0.36).mean() < 0.05
    assert np.histogram(gmacs, bins=np.linspace(0.29, 0.36, 8))[0][3] > 80  # as uniform paths have it: 0.318


def test_windows_of_other_costs():
    sampler = WindowedPaths(SPACE, seed=0, windows=[(60, 70)], cost_name="layers")
    layers = SPACE.cost(draws(sampler, 200))["layers"]
    assert ((layers >= 60) & (layers <= 70)).mean() > 0.95


def test_what_cannot_be_hit_is_refused():
    with pytest.raises(NasrayError, match=r"none of 20000 random paths has gmacs from 0.5 to 0.6: theirs lie"):
        WindowedPaths(SPACE, seed=0, windows=[(0.5, 0.6)])
    for windows in ([(0.3, 0.2)], []):
        with pytest.raises(ValueError, match="pairs of a least and a most value, at least one"):
            WindowedPaths(SPACE, seed=0, windows=windows)


def test_windows_count_for_images_of_their_own_size():
    small = WindowedPaths(SPACE, windows=[(0.0, 1.0)], image_hw=(112, 112))
    paths = SPACE.sample(3, np.random.default_rng(0))
    assert small.cost(paths)["gmacs"] == pytest.approx(SPACE.cost(paths, (112, 112))["gmacs"])
    assert (small.cost(paths)["gmacs"] < 0.5 * SPACE.cost(paths)["gmacs"]).all()
