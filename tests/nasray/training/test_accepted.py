import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import distributed

from nasray.counting import CountedOptions, cost_of_detector
from nasray.filters.filter import FilterOptions, PathFilter
from nasray.filters.pruned import Pruned, forbidden_of, restricted, write_pruned
from nasray.filters.pruning import acceptance, path_thresholds, prune_operations
from nasray.models.supernets.sampling import BLOCK
from nasray.spaces import NasrayError, OFAResNetSpace, ShuffleNetSpace
from nasray.spaces.buckets import Buckets
from nasray.spaces.profile import profile_space
from nasray.training import accepted
from nasray.training.accepted import AcceptedPaths

TINY = OFAResNetSpace("tiny", image_hw=(64, 64))
COUNTED = CountedOptions(detector={"name": "centernet", "channels": 16}, classes=3)
DRAWS = ("genes", "uniform", "buckets")


def pruned_in(folder, space=TINY, cost=None):
    """A pruning by a filter with random weights, whose scores differ from path to path; its file."""
    ends = profile_space(space, cost=cost).costs["gmacs"]
    buckets = Buckets.equal("gmacs", ends.minimum, ends.maximum, 5)
    path_filter = PathFilter(space, buckets, FilterOptions(16, 1, 2), seed=1, cost=cost)
    path_filter.save(folder / "filter.pt")
    operations = tuple(prune_operations(space, path_filter, samples=10))
    left = restricted(space, forbidden_of(operations))
    thresholds = tuple(path_thresholds(left, path_filter, share=0.25, num=1_000))
    pruned = Pruned("gmacs", buckets.edges, operations, thresholds, folder / "filter.pt", {})
    write_pruned(folder / "pruned.json", space, pruned)
    return str(folder / "pruned.json")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return pruned_in(tmp_path_factory.mktemp("pruned"))


@pytest.mark.parametrize("draw", DRAWS)
def test_paths_are_allowed_and_above_their_thresholds(pruned, draw):
    sampler = AcceptedPaths(TINY, pruned=pruned, draw=draw)
    rows = np.concatenate([sampler.block(number).rows for number in range(4)])
    assert sampler.space.num_architectures < TINY.num_architectures
    assert sampler.space.is_valid(rows).all()
    assert (sampler.margins(rows) >= 0).all()
    shares = [sampler.acceptance(number * BLOCK) for number in range(4)]
    assert np.mean(shares) == pytest.approx(0.75, abs=0.07)  # of genes, whose paths are other ones, about so
    buckets = sampler.filter.bucket_of(rows)
    if draw == "buckets":
        assert np.bincount(buckets, minlength=5) / len(rows) == pytest.approx([0.2] * 5, abs=0.05)


def test_three_in_four_are_accepted_in_every_bucket(pruned):
    """The thresholds are quantiles of 1,000 paths of a bucket; these are others."""
    sampler = AcceptedPaths(TINY, pruned=pruned)
    for bucket in range(5):
        budget = sampler.filter.buckets.budget(bucket)
        rows = sampler.space.sample_within(5_000, budget, np.random.default_rng([9, bucket]))
        assert (sampler.margins(rows) >= 0).mean() == pytest.approx(0.75, abs=0.05)


def test_a_path_depends_on_seed_and_iteration_alone(pruned):
    expected = np.stack([AcceptedPaths(TINY, pruned=pruned, seed=5).draw(step) for step in (0, 255, 256, 700)])
    sampler = AcceptedPaths(TINY, pruned=pruned, seed=5)
    for place, step in ((3, 700), (0, 0), (2, 256), (1, 255)):
        assert np.array_equal(sampler.draw(step), expected[place])
    assert not np.array_equal(AcceptedPaths(TINY, pruned=pruned, seed=6).draw(0), expected[0])
    code = (
        "import sys\nfrom nasray.spaces import OFAResNetSpace\n"
        "from nasray.training.accepted import AcceptedPaths\n"
        "space = OFAResNetSpace('tiny', image_hw=(64, 64))\n"
        "print(AcceptedPaths(space, pruned=sys.argv[1], seed=5).draw(700).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code, pruned], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(expected[3].tolist())


def test_in_vain_the_best_path_is_taken_that_is_allowed(pruned, monkeypatch):
    monkeypatch.setattr(accepted, "TRIES", 4)
    sampler = AcceptedPaths(TINY, pruned=pruned)
    sampler.thresholds = np.full(5, 1e9)
    rows, share = sampler.block(0)
    assert share == 1 / 4
    assert sampler.space.is_valid(rows).all()
    monkeypatch.setattr(accepted, "TRIES", 1)
    first, share = sampler.block(0)
    assert share == 1
    assert (sampler.filter(rows) - sampler.filter(first)).mean() > 0
    assert (sampler.margins(rows) >= sampler.margins(first)).all()


def test_buckets_may_be_of_whole_detectors(tmp_path):
    cost = cost_of_detector(COUNTED, TINY)
    path = pruned_in(tmp_path, cost=cost)
    sampler = AcceptedPaths(TINY, pruned=path, counted=COUNTED)
    rows = sampler.block(0).rows
    assert (sampler.margins(rows) >= 0).all()
    assert np.array_equal(sampler.filter.bucket_of(rows), sampler.filter.buckets.of(cost(rows)["gmacs"]))
    with pytest.raises(NasrayError, match="counted needs detector and classes"):
        AcceptedPaths(TINY, pruned=path, counted=CountedOptions())


def test_what_does_not_fit_is_refused(pruned, tmp_path):
    with pytest.raises(NasrayError, match="pruned another space"):
        AcceptedPaths(ShuffleNetSpace("small"), pruned=pruned)
    with pytest.raises(NasrayError, match=r"none.json"):
        AcceptedPaths(TINY, pruned=str(tmp_path / "none.json"))


def draw_in_a_worker(folder, files, rank):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    sampler = AcceptedPaths(TINY, pruned=files[rank])
    paths = np.stack([sampler.draw(step) for step in (0, 1, 300)])
    np.save(folder / f"{rank}.npy", paths)
    own = np.stack([sampler.block(step // BLOCK).rows[step % BLOCK] for step in (0, 1, 300)])
    np.save(folder / f"own-{rank}.npy", own)


def test_workers_whose_scores_differ_train_the_paths_of_the_first(pruned, tmp_path):
    """As scores do in their last digits on other processors; here the second one has other thresholds."""
    shutil.copytree(Path(pruned).parent, tmp_path / "other")
    content = json.loads(Path(pruned).read_text())
    content["thresholds"] = [value + 0.1 for value in content["thresholds"]]
    (tmp_path / "other" / "pruned.json").write_text(json.dumps(content))
    files = (pruned, str(tmp_path / "other" / "pruned.json"))
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=draw_in_a_worker, args=(tmp_path, files, rank)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    first, second, own = (np.load(tmp_path / f"{name}.npy") for name in ("0", "1", "own-1"))
    assert np.array_equal(first, second)
    assert not np.array_equal(second, own)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pruning_of_the_released_space_holds_in_every_bucket_and_every_draw(tmp_path):
    """80,000 fresh paths of each bucket, whose share differs by .002 by chance, and 100,000 of a training."""
    space = OFAResNetSpace()
    path_filter = PathFilter(space, Buckets.spanning(space, "gmacs", 5), FilterOptions(16, 1, 2), seed=1)
    path_filter.save(tmp_path / "filter.pt")
    operations = tuple(prune_operations(space, path_filter, samples=100))
    left = restricted(space, forbidden_of(operations))
    thresholds = tuple(path_thresholds(left, path_filter, num=100_000))
    pruned = Pruned("gmacs", path_filter.buckets.edges, operations, thresholds, tmp_path / "filter.pt", {})
    write_pruned(tmp_path / "pruned.json", space, pruned)
    for row in acceptance(left, path_filter, thresholds, num=80_000):
        assert row["num"] == 80_000
        assert row["value"] == pytest.approx(0.75, abs=0.01)
    sampler = AcceptedPaths(space, pruned=str(tmp_path / "pruned.json"))
    rows = np.concatenate([sampler.block(number).rows for number in range(-(-100_000 // BLOCK))])
    assert len(rows) >= 100_000
    column = {gene.name: place for place, gene in enumerate(space.genes)}
    assert len(forbidden_of(operations)) > 75, "of 378"
    for operation in forbidden_of(operations):
        assert not np.logical_and.reduce([rows[:, column[name]] == value for name, value in operation]).any()
