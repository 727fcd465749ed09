import subprocess
import sys
import threading

import numpy as np
import pytest

from nasray.models.supernets import DETNAS_WINDOWS, UniformPaths, WindowedPaths, sampling
from nasray.models.supernets.sampling import BLOCK, Block, BlockPaths, BucketPaths, GenePaths
from nasray.spaces import BasicSpace, NasrayError, OFAResNetSpace, RestrictedSpace, ShuffleNetSpace, forbid_values
from nasray.spaces.buckets import Buckets

SPACE = ShuffleNetSpace("small")
OFA = OFAResNetSpace()


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


# ---- gene by gene, and by buckets --------------------------------------------------------------------------------


def test_gene_by_gene_is_as_once_for_all_draws():
    """Shares of five equal intervals of multiply-adds at 224 among 200,000 draws of its sampler."""
    rows = GenePaths(OFA).rows(100_000, np.random.default_rng(0))
    assert OFA.is_valid(rows).all()
    buckets = Buckets("gmacs", (0.9622, 2.2681, 3.5740, 4.8799, 6.1858, 7.4916))
    gmacs = OFA.classifier_cost(rows)["gmacs"]
    shares = np.bincount(buckets.of(gmacs), minlength=5) / len(rows)
    assert shares == pytest.approx([0.149, 0.704, 0.145, 0.0023, 0], abs=0.005)
    for stage in OFA.stages:
        for column in (stage.start, stage.start + 1):
            counts = np.unique(rows[:, column], return_counts=True)[1] / len(rows)
            assert counts == pytest.approx([1 / 3] * 3, abs=0.01)


def test_gene_by_gene_within_a_restriction():
    space = RestrictedSpace(OFA, forbid_values(OFA, {"width": [80, 100], "expand": [35]}))
    rows = GenePaths(space).rows(5_000, np.random.default_rng(0))
    assert space.is_valid(rows).all()
    assert {tuple(np.unique(rows[:, stage.start])) for stage in OFA.stages} == {(0, 1, 2)}
    assert {tuple(np.unique(rows[:, stage.start + 1])) for stage in OFA.stages} == {(80, 100)}


def test_gene_by_gene_needs_groups_that_can_be_listed():
    with pytest.raises(NasrayError, match=r"paths 'genes' .* too many settings. Take --paths.name uniform"):
        GenePaths(BasicSpace())


def test_every_bucket_is_drawn_as_often_and_uniformly_within():
    sampler = BucketPaths(OFAResNetSpace("tiny"), num=4)
    rows = sampler.rows(4_000, np.random.default_rng(0))
    gmacs = sampler.space.cost(rows)["gmacs"]
    assert np.bincount(sampler.buckets.of(gmacs)) / len(rows) == pytest.approx([0.25] * 4, abs=0.03)
    plain = sampler.space.sample(200_000, np.random.default_rng(1))
    inside = sampler.buckets.of(sampler.space.cost(plain)["gmacs"]) == 0
    expected = np.bincount(plain[inside][:, 3], minlength=3) / inside.sum()  # depths of C2
    found = (
        np.bincount(rows[sampler.buckets.of(gmacs) == 0][:, 3], minlength=3) / (sampler.buckets.of(gmacs) == 0).sum()
    )
    assert found == pytest.approx(expected, abs=0.06)


def test_buckets_that_a_restriction_empties_are_left_out():
    tiny = OFAResNetSpace("tiny")
    space = RestrictedSpace(tiny, forbid_values(tiny, {"width": [65], "expand": [20]}))
    sampler = BucketPaths(space)
    assert sampler.buckets == BucketPaths(tiny).buckets
    assert sampler.inhabited == [0]
    assert space.is_valid(draws(sampler, 50)).all()
    with pytest.raises(NasrayError, match="buckets of seconds: space 'ofa-resnet' does not have that cost"):
        BucketPaths(tiny, cost_name="seconds")


@pytest.mark.parametrize("kind", [GenePaths, BucketPaths])
def test_other_samplers_depend_on_seed_and_iteration_alone(kind):
    tiny = OFAResNetSpace("tiny")
    expected = draws(kind(tiny, seed=3), 6)
    assert np.array_equal(kind(tiny, seed=3).draw(5), expected[5])
    assert not np.array_equal(draws(kind(tiny, seed=4), 6), expected)


def test_windows_of_a_restricted_space():
    space = RestrictedSpace(OFA, forbid_values(OFA, {"width": [65]}))
    sampler = WindowedPaths(space, windows=[(0.2, 3.0)], image_hw=(112, 112))
    assert space.is_valid(draws(sampler, 5)).all()


class CountedBlocks(BlockPaths):
    """Paths whose one gene is the step, and which note who drew them."""

    def __init__(self):
        self.drawn = []

    def block(self, number):
        if number == 3:
            raise NasrayError("no block 3")
        self.drawn.append((number, threading.current_thread() is threading.main_thread()))
        return Block(np.arange(BLOCK)[:, None] + number * BLOCK)


def test_a_thread_draws_the_next_block():
    sampler = CountedBlocks()
    sampler.ahead = True
    steps = [0, 1, BLOCK, BLOCK + 1, 0]  # the last as in a training that goes on from an earlier checkpoint
    assert [sampler.draw(step)[0] for step in steps] == steps
    assert sampler.draw(2 * BLOCK)[0] == 2 * BLOCK
    with pytest.raises(NasrayError, match="no block 3"):
        sampler.draw(3 * BLOCK)
    assert [number for number, _ in sampler.drawn] == [0, 1, 2, 0, 1, 2]
    assert not any(is_main for _, is_main in sampler.drawn)


def test_without_a_device_of_its_own_a_training_draws_when_it_must():
    sampler = CountedBlocks()
    assert sampler.draw(BLOCK)[0] == BLOCK
    assert sampler.drawn == [(1, True)]
