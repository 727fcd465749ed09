import numpy as np
import pytest

from nasray.filters.filter import PathFilter
from nasray.filters.options import FilterOptions
from nasray.filters.pruned import forbidden_of, restricted
from nasray.filters.pruning import path_thresholds, prune_operations
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.buckets import Buckets
from nasray.spaces.windows import count_within

TINY = OFAResNetSpace("tiny")
LARGE = OFAResNetSpace()


def a_filter(space, num=5):
    gmacs = space.cost(space.sample(4_000, np.random.default_rng(0)))["gmacs"]
    return PathFilter(space, Buckets.equal("gmacs", gmacs.min(), gmacs.max(), num), FilterOptions(16, 1, 2))


def test_operations_of_the_released_space():
    """Layers times depths that have them, times three widths and three expansions: 81, 81, 135 and 81."""
    operations = LARGE.operations()
    stages = [sum(operation[0][0].startswith(f"c{level}.") for operation in operations) for level in (2, 3, 4, 5)]
    assert (stages, len(operations), len(set(operations))) == ([81, 81, 135, 81], 378, 378)


@pytest.mark.parametrize("strategy", ["flops", "score-bucket", "score-all"])
def test_no_path_uses_a_pruned_operation(strategy):
    path_filter = a_filter(LARGE)
    operations = prune_operations(LARGE, path_filter, strategy=strategy, samples=10)
    forbidden = forbidden_of(operations)
    assert len(operations) == 378
    share = len(forbidden) / 378
    assert 0.2 < share < 0.4
    space = restricted(LARGE, forbidden)
    assert space.num_architectures < LARGE.num_architectures
    rows = space.sample(20_000, np.random.default_rng(0))
    column = {gene.name: place for place, gene in enumerate(LARGE.genes)}
    for operation in forbidden:
        uses = np.logical_and.reduce([rows[:, column[name]] == value for name, value in operation])
        assert not uses.any()
    assert all(set(np.unique(rows[:, place])) == {0, 1, 2} for place in LARGE.lasting_genes)


def test_strategies_take_what_they_say():
    path_filter = a_filter(TINY)
    by_bucket = prune_operations(TINY, path_filter, strategy="score-bucket", worst_per_bucket=0.3, samples=20)
    for bucket in {one.bucket for one in by_bucket}:
        inside = sorted((one for one in by_bucket if one.bucket == bucket), key=lambda one: one.score)
        worst = inside[: round(0.3 * len(inside))]
        assert all(one.state == "kept" for one in inside[len(worst) :])
        assert all(one.state in ("pruned", "spared") for one in worst)
    whole = prune_operations(TINY, path_filter, strategy="score-all", worst=0.1, worst_per_bucket=0.0, samples=20)
    ranked = sorted(whole, key=lambda one: one.score)
    assert all(one.state != "kept" for one in ranked[: round(0.1 * len(ranked))])
    assert all(one.state == "kept" for one in ranked[round(0.1 * len(ranked)) :])
    random = [prune_operations(TINY, path_filter, strategy="flops", samples=20, seed=seed) for seed in (0, 0, 1)]
    assert random[0] == random[1]
    assert forbidden_of(random[0]) != forbidden_of(random[2])


def test_depths_and_groups_keep_a_choice_whatever_is_asked_for():
    path_filter = a_filter(TINY)
    operations = prune_operations(TINY, path_filter, strategy="score-all", worst=1.0, samples=5)
    assert any(one.state == "spared" for one in operations)
    rows = restricted(TINY, forbidden_of(operations)).sample(2_000, np.random.default_rng(0))
    assert all(set(np.unique(rows[:, place])) == {0, 1, 2} for place in TINY.lasting_genes)


def test_a_quarter_of_fresh_paths_is_below_the_thresholds():
    path_filter = a_filter(TINY, num=3)
    space = restricted(TINY, forbidden_of(prune_operations(TINY, path_filter, samples=10)))
    thresholds = path_thresholds(space, path_filter, share=0.25, num=2_000)
    for bucket, threshold in enumerate(thresholds):
        rows = space.sample_within(4_000, path_filter.buckets.budget(bucket), np.random.default_rng(99))
        if threshold is None:
            assert not len(rows)
        else:
            assert (path_filter(rows) >= threshold).mean() == pytest.approx(0.75, abs=0.04)


def test_an_unknown_strategy_is_refused():
    with pytest.raises(NasrayError, match="strategy is flops, score-bucket or score-all; got 'best'"):
        prune_operations(TINY, a_filter(TINY), strategy="best", samples=1)


def test_every_bucket_and_every_resolution_keeps_architectures():
    space = OFAResNetSpace("tiny", image_hw=(128, 128), resolutions=((64, 64), (96, 96), (128, 128)))
    path_filter = a_filter(space, 3)
    operations = prune_operations(space, path_filter, samples=5, least=1_000)
    assert all(name != "resolution" for one in operations for name, _ in one.operation)
    left = restricted(space, forbidden_of(operations))
    assert left.num_architectures < space.num_architectures
    for bucket in range(3):
        budget = path_filter.buckets.budget(bucket)
        assert count_within(left, budget) >= min(1_000, count_within(space, budget))
    assert set(left.sample(200, np.random.default_rng(0))[:, -1]) == {64, 96, 128}
