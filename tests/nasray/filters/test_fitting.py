import numpy as np
import pytest

from nasray.filters.filter import PathFilter
from nasray.filters.fitting import divide, fit_filter, measure_filter
from nasray.filters.options import FilterOptions, FitOptions
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.buckets import Buckets

TINY = OFAResNetSpace("tiny")
SMALL = FilterOptions(dim=32, depth=1, heads=2)


def worth(rows):
    """A loss that cost alone does not tell: late blocks count more than early ones, and wide ones less than deep."""
    blocks = TINY.tokens(rows).ids
    return -(blocks * np.linspace(-0.5, 1.0, blocks.shape[1])).sum(axis=1) / 20


@pytest.fixture(scope="module")
def problem():
    rows = TINY.sample(1_200, np.random.default_rng(0))
    gmacs = TINY.cost(rows)["gmacs"]
    return rows, worth(rows), Buckets.equal("gmacs", float(gmacs.min()), float(gmacs.max()), 5)


def test_a_fitted_filter_ranks_what_it_has_not_seen(problem):
    rows, losses, buckets = problem
    path_filter = PathFilter(TINY, buckets, SMALL)
    history = fit_filter(path_filter, rows[:800], losses[:800], FitOptions(epochs=30))
    assert len(history) == 30
    assert history[-1]["loss"] < history[0]["loss"]
    measured = measure_filter(path_filter, rows[800:], losses[800:])
    full = [row for row in measured if row["num"] >= 50]
    assert len(full) >= 2
    for row in full:
        assert row["kendall"]["low"] > 0.5
        assert row["precision"]["value"] > 0.6 > row["base_rate"] + 0.2
        assert row["precision"]["low"] <= row["precision"]["value"] <= row["precision"]["high"]


def test_the_weights_of_the_best_epoch_are_kept(problem):
    rows, losses, buckets = problem
    path_filter = PathFilter(TINY, buckets, SMALL)
    options = FitOptions(epochs=12, learning_rate=0.03)
    history = fit_filter(path_filter, rows[:100], losses[:100], options, seed=1)
    best = int(np.argmin([epoch["holdout_loss"] for epoch in history]))
    again = PathFilter(TINY, buckets, SMALL)
    fit_filter(again, rows[:100], losses[:100], FitOptions(epochs=best + 1, learning_rate=0.03), seed=1)
    np.testing.assert_array_equal(path_filter(rows), again(rows))


def test_the_same_seed_gives_the_same_filter(problem):
    rows, losses, buckets = problem
    found = []
    for seed in (0, 0, 1):
        path_filter = PathFilter(TINY, buckets, SMALL)
        fit_filter(path_filter, rows[:200], losses[:200], FitOptions(epochs=2), seed=seed)
        found.append(path_filter(rows))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_division_is_the_same_share_of_every_bucket():
    bucket = np.repeat([0, 1, 3], [10, 50, 5])
    learned, held = divide(bucket, 0.2, np.random.default_rng(0))
    assert np.bincount(bucket[held]).tolist() == [2, 10, 0, 1]
    assert sorted([*learned, *held]) == list(range(65))


def test_precision_and_recall_follow_from_thresholds(problem):
    rows, _, buckets = problem

    class Known(PathFilter):
        def __call__(self, population):
            return -worth(population)

    known = Known(TINY, buckets, SMALL)
    rows = rows[known.bucket_of(rows) == 1][:80]
    losses = worth(rows)
    perfect = measure_filter(known, rows, losses)[1]
    assert perfect["kendall"]["value"] == 1.0
    assert perfect["precision"]["value"] == perfect["recall"]["value"] == 1.0
    half = float(np.median(-losses))  # twice as many are taken for the worst as are
    wide = measure_filter(known, rows, losses, thresholds=np.full(5, half))[1]
    assert wide["recall"]["value"] == 1.0
    assert wide["precision"]["value"] == pytest.approx(0.5, abs=0.05)
    none = measure_filter(known, rows, losses, thresholds=np.full(5, -np.inf))[1]
    assert none["precision"]["value"] is None
    assert none["recall"]["value"] == 0.0


def test_too_few_architectures_and_losses_that_are_none_are_refused(problem):
    rows, losses, buckets = problem
    path_filter = PathFilter(TINY, buckets, SMALL)
    with pytest.raises(NasrayError, match="3 architectures in 3 buckets are too few"):
        fit_filter(path_filter, rows[:3], losses[:3])
    with pytest.raises(NasrayError, match="1 losses are not finite"):
        fit_filter(path_filter, rows[:50], np.where(np.arange(50) == 3, np.nan, losses[:50]))


def test_pairs_of_different_buckets_count_where_they_are_asked_for(problem):
    """Where all of a bucket are equally good there is nothing to learn inside it."""
    rows, _, buckets = problem
    bucket = buckets.of(TINY.cost(rows)["gmacs"])
    ends = np.concatenate([np.flatnonzero(bucket == value)[:60] for value in (1, 3)])
    far = np.where(bucket[ends] == 1, 10.0, 0.0)  # inside a bucket all are equal
    found = {}
    for bounded in (True, False):
        path_filter = PathFilter(TINY, buckets, SMALL)
        fit_filter(path_filter, rows[ends], far, FitOptions(epochs=20, bounded=bounded))
        scores = path_filter(rows[ends])
        found[bounded] = scores[far == 0.0].mean() - scores[far == 10.0].mean()
    assert found[False] > 1.0 > abs(found[True])
