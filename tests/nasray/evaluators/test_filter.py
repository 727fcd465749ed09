import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from nasray.cluster import OrderedSearch
from nasray.evaluators import EVALUATORS, FilterEvaluator
from nasray.experiment import parse_experiment
from nasray.filters.filter import FilterOptions, PathFilter
from nasray.models.detector_cost import DetectorCost
from nasray.parts import make_parts, why_unfit
from nasray.searchers import BucketEvolution, BucketSampling, RandomSearch
from nasray.searchers.testing import ToySpace
from nasray.spaces import Budget, Gene, NasrayError, OFAResNetSpace, RestrictedSpace, Space, forbid_values
from nasray.spaces.buckets import Buckets

TINY = OFAResNetSpace("tiny", image_hw=(64, 64))
SMALL = FilterOptions(dim=16, depth=1, heads=2)
ROWS = TINY.sample(40, np.random.default_rng(0))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A path filter with the weights that it began with."""
    path = tmp_path_factory.mktemp("filters") / "filter.pt"
    PathFilter(TINY, Buckets.spanning(TINY, "gmacs", 5), SMALL, seed=4).save(path)
    return path


def test_scores_are_the_filters(path):
    evaluator = FilterEvaluator(TINY, str(path))
    assert evaluator._loaded is None
    metrics = evaluator(ROWS)
    assert list(metrics) == ["score"]
    np.testing.assert_array_equal(metrics["score"], PathFilter.load(path, TINY)(ROWS))
    fresh = pickle.loads(pickle.dumps(evaluator))
    assert fresh._loaded is None
    np.testing.assert_array_equal(fresh(ROWS)["score"], metrics["score"])
    restricted = RestrictedSpace(TINY, forbid_values(TINY, {"width": [65, 80]}))
    inside = restricted.sample(9, np.random.default_rng(0))
    np.testing.assert_array_equal(FilterEvaluator(restricted, str(path))(inside)["score"], evaluator(inside)["score"])


def test_buckets_are_of_the_cost_that_the_run_counts(tmp_path):
    """The same backbones are in other buckets, and have other scores, where a whole detector is counted."""
    cost = DetectorCost(TINY, "centernet", num_classes=3)
    buckets = Buckets.spanning(TINY, "gmacs", 5, count=cost)
    PathFilter(TINY, buckets, SMALL, cost=cost).save(tmp_path / "filter.pt")
    content = {
        "name": "predict",
        "evaluations": 9,
        "space": {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]},
        "searcher": {"name": "bucket-evolution"},
        "evaluator": {"name": "filter", "filter": str(tmp_path / "filter.pt")},
        "costs": "detector",
        "counted": {"detector": {"name": "centernet"}, "classes": 3},
    }
    parts = make_parts(parse_experiment(content, "test"))
    np.testing.assert_array_equal(parts.evaluator.loaded.bucket_of(ROWS), buckets.of(cost(ROWS)["gmacs"]))
    parts.evaluator.check_search(parts.searcher)
    expected = PathFilter.load(tmp_path / "filter.pt", TINY, cost=cost)(ROWS)
    np.testing.assert_array_equal(parts.evaluator(ROWS)["score"], expected)
    with pytest.raises(NasrayError, match="counted here: backbone"):
        FilterEvaluator(TINY, str(tmp_path / "filter.pt")).check()


def test_evolution_by_the_filter_finds_what_it_scores_high(path):
    evaluator, best = FilterEvaluator(TINY, str(path)), []
    for search in (BucketSampling, BucketEvolution):
        searcher = search(TINY, seed=0, evaluations=300)
        evaluator.check_search(searcher)
        ordered, told = OrderedSearch(searcher, evaluations=300, batch_size=20, in_flight=1), []
        ordered.run(evaluator, lambda batch, told=told: told.append((batch.proposal.genes, batch.metrics["score"])))
        niches, scores = (
            searcher.niches(np.concatenate([genes for genes, _ in told])),
            np.concatenate([s for _, s in told]),
        )
        best.append([scores[niches == niche].max() for niche in range(5)])
    assert np.mean(best[1]) > np.mean(best[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 4}, "those of path filter .* gmacs with edges .* Set searcher.num"),
        ({"by": "params_m"}, "buckets are of params_m with edges"),
        ({"edges": (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)}, "a filter's scores compare in its own buckets alone"),
    ],
)
def test_a_search_in_other_buckets_is_refused(path, options, message):
    with pytest.raises(NasrayError, match=message) as caught:
        FilterEvaluator(TINY, str(path)).check_search(BucketSampling(TINY, **options))
    assert "\n" not in str(caught.value)


def test_a_search_over_several_buckets_is_told_so(path, capsys):
    evaluator = FilterEvaluator(TINY, str(path))
    edges = evaluator.loaded.buckets.edges
    evaluator.check_search(RandomSearch(TINY, budget=Budget({"gmacs": edges[2] - 1e-6}, {"gmacs": edges[1]})))
    assert capsys.readouterr().err == ""
    evaluator.check_search(RandomSearch(TINY, budget=Budget({"gmacs": edges[2]})))
    assert "this search compares those of 3 buckets" in capsys.readouterr().err


def test_what_does_not_go_together_is_refused(path, tmp_path):
    with pytest.raises(NasrayError, match="was fitted on another space"):
        FilterEvaluator(OFAResNetSpace("laptop"), str(path)).check()
    with pytest.raises(NasrayError, match="has buckets of the gmacs of"):
        FilterEvaluator(TINY, str(path), cost=lambda rows: {"size": rows.sum(axis=1)}).check()
    torch.save({"format": 1}, tmp_path / "other.pt")
    with pytest.raises(NasrayError, match="is no path filter"):
        FilterEvaluator(TINY, str(tmp_path / "other.pt")).check()

    class Costless(Space):
        family = "costless"
        genes = (Gene("x", (0, 1)),)

    assert why_unfit(EVALUATORS.part("filter"), Costless()) == "needs a space with costs, of which its buckets are"
    assert why_unfit(EVALUATORS.part("filter"), ToySpace()) is None


def test_an_experiment_with_a_filter_is_read_without_torch():
    code = (
        "import sys; from nasray.experiment import parse_experiment; from nasray.parts import make_parts;"
        "make_parts(parse_experiment({'name': 'x', 'evaluations': 9, 'space': {'name': 'ofa-resnet'},"
        "'searcher': {'name': 'bucket-evolution'}, 'evaluator': {'name': 'filter', 'filter': 'filter.pt'}}, 'x'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
