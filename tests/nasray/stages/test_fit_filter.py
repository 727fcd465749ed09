"""The stage that fits a path filter, on architectures whose losses are a known function."""

import json

import numpy as np
import pytest

from nasray.cluster import RunFolder
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import FILTER
from nasray.loading import parse_plan
from nasray.options import make_part
from nasray.spaces import NasrayError
from nasray.spaces.buckets import Buckets
from nasray.stages import Site, planned_stages
from nasray.stages.run import check_stages, inputs_of
from tests.nasray.stages.evaluated import OFA_TINY, evaluated, worth

SMALL = {"dim": 16, "depth": 1, "heads": 2}


def plan_of(folders, *, space=OFA_TINY, seed=0, stages=None, **options):
    """A run with one stage that fits a filter, and the search that every run has."""
    own = {"kind": "fit-filter", "of": list(map(str, folders)), "num": 3, "network": SMALL, "fit": {"epochs": 20}}
    filter_options = {name: value for name, value in {**own, **options}.items() if value is not None}
    content = {
        "name": "fits", "space": space, "searcher": {"name": "random"}, "evaluator": {"name": "synflow"}, "seed": seed,
        "evaluations": 4, "stages": {"filter": filter_options, **(stages or {}), "search": {"kind": "search"}},
    }  # fmt: skip
    return parse_plan(content, "test")


def run_stage(plan, path, name="filter"):
    """The result of a stage, without Ray."""
    run = RunFolder(path)
    run.path.mkdir(exist_ok=True)
    return plan.stages[name].run(Site(run, name, plan.stages))


def checked(make):
    plan = make()
    check_stages(plan, {}, plan.resources)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("sample") / "run", num=600)


def test_a_filter_is_fitted_and_measured_on_what_it_has_not_learned(sample, tmp_path):
    folder, _ = sample
    plan = plan_of([folder])
    result = run_stage(plan, tmp_path / "run")
    assert plan.stages["filter"].is_done(Site(RunFolder(tmp_path / "run"), "filter", plan.stages))
    space = make_part(plan.experiment.space)
    path_filter = PathFilter.load(tmp_path / "run" / "filter" / FILTER, space)
    assert path_filter.buckets == Buckets.spanning(space, "gmacs", 3)
    measured = path_filter.measured
    assert (measured["num"], measured["metric"], len(measured["history"])) == (result["architectures"], "loss", 20)
    assert measured["held"] == pytest.approx(0.2 * measured["num"], abs=2)
    others = space.sample(600, np.random.default_rng(77))
    bucket, scores = path_filter.bucket_of(others), path_filter(others)
    for row in measured["buckets"]:
        assert row.keys() == {"bucket", "num", "kendall", "costs", "precision", "recall", "base_rate"}
        assert row["costs"].keys() == {"gmacs", "params_m", "layers"}
        inside = bucket == row["bucket"]
        if row["num"] >= 30:  # what it says of itself holds for architectures that no one has seen
            own = np.corrcoef(scores[inside].argsort().argsort(), -worth(space, others[inside]).argsort().argsort())
            assert row["kendall"]["low"] > 0.3 > row["base_rate"]
            assert own[0, 1] > 0.5 or len(own) < 30
    assert result["kendall"] > result["kendall_gmacs"] + 0.1
    assert result["epoch"] == 1 + np.argmin([epoch["holdout_loss"] for epoch in measured["history"]])


def test_the_same_seed_gives_the_same_bytes_and_a_finished_stage_is_left_as_it_is(sample, tmp_path):
    folder, _ = sample
    paths = [tmp_path / name / "filter" / FILTER for name in ("one", "two", "other")]
    plans = [plan_of([folder], seed=seed, fit={"epochs": 2}) for seed in (0, 0, 1)]
    results = [run_stage(plan, path.parent.parent) for plan, path in zip(plans, paths, strict=True)]
    one, two, other = (path.read_bytes() for path in paths)
    assert one == two != other
    paths[0].touch()
    before = paths[0].stat().st_mtime_ns
    assert run_stage(plans[0], paths[0].parent.parent) == results[0]
    assert paths[0].stat().st_mtime_ns == before


def test_a_metric_that_is_the_better_the_higher_ranks_the_other_way_round(sample, tmp_path):
    folder, _ = sample
    by_loss, by_score = tmp_path / "loss", tmp_path / "score"
    run_stage(plan_of([folder], fit={"epochs": 2}), by_loss)
    run_stage(plan_of([folder], metric="score", fit={"epochs": 2}), by_score)
    space = make_part(plan_of([folder]).experiment.space)
    rows = space.sample(50, np.random.default_rng(3))
    first, second = (PathFilter.load(path / "filter" / FILTER, space)(rows) for path in (by_loss, by_score))
    np.testing.assert_array_equal(first, second)  # the score of that run is minus its loss


def test_pretraining_and_fine_tuning_are_the_same_stage(sample, tmp_path):
    folder, _ = sample
    second, _ = evaluated(tmp_path / "second", num=120, seed=5)
    stages = {"again": {"kind": "fit-filter", "of": [str(second)], "start": "filter", "fit": {"epochs": 3}}}
    plan = plan_of([folder], stages=stages)
    assert [stage.takes for stage in planned_stages(plan)][1] == {"of": str(second), "start": "filter"}
    run_stage(plan, tmp_path / "run")
    run_stage(plan, tmp_path / "run", "again")
    space = make_part(plan.experiment.space)
    first, again = (PathFilter.load(tmp_path / "run" / name / FILTER, space) for name in ("filter", "again"))
    assert (again.buckets, again.options) == (first.buckets, first.options)
    assert again.measured["num"] < 125
    fresh = plan_of([second], fit={"epochs": 3})
    run_stage(fresh, tmp_path / "fresh")
    alone = PathFilter.load(tmp_path / "fresh" / "filter" / FILTER, space)
    rows = space.sample(300, np.random.default_rng(8))
    losses, bucket = worth(space, rows), first.bucket_of(rows)
    inside = bucket == np.bincount(bucket).argmax()
    good = [np.corrcoef(found(rows[inside]), -losses[inside])[0, 1] for found in (again, alone)]
    assert good[0] > good[1] + 0.1, "it goes on from what it knew"


def test_buckets_of_a_filter_that_counted_something_else_are_made_anew(sample, tmp_path):
    folder, _ = sample
    run_stage(plan_of([folder], fit={"epochs": 1}), tmp_path / "small")
    start = tmp_path / "small" / "filter" / FILTER
    larger = {**OFA_TINY, "image_hw": [128, 128]}
    stages = {"again": {"kind": "fit-filter", "of": [str(folder)], "start": str(start), "fit": {"epochs": 1}}}
    plan = plan_of([folder], space=larger, stages=stages)
    run_stage(plan, tmp_path / "run", "again")
    space = make_part(plan.experiment.space)
    assert PathFilter.load(tmp_path / "run" / "again" / FILTER, space).buckets == Buckets.spanning(space, "gmacs", 3)
    with pytest.raises(NasrayError, match="gmacs of backbone at 64x64; counted here: backbone at 128x128"):
        PathFilter.load(start, space)


def test_the_cost_of_the_buckets_is_that_of_the_filter_that_is_gone_on_with(sample, tmp_path):
    folder, _ = sample
    run_stage(plan_of([folder], by="params_m", fit={"epochs": 1}), tmp_path / "first")
    start = str(tmp_path / "first" / "filter" / FILTER)
    plan = plan_of([folder], network=None, num=None, start=start, fit={"epochs": 1})
    run_stage(plan, tmp_path / "second")
    space = make_part(plan.experiment.space)
    found = PathFilter.load(tmp_path / "second" / "filter" / FILTER, space)
    assert found.buckets == Buckets.spanning(space, "params_m", 3)
    text = plan.stages["filter"].plan(Site(RunFolder(tmp_path / "second"), "filter", plan.stages)).text
    assert text == f"the path filter of {start}, fitted further to loss, 1 epoch"


def test_of_an_architecture_that_several_evaluated_the_last_counts(sample, tmp_path):
    folder, rows = sample
    again, same = evaluated(tmp_path / "again", num=600, values=lambda space, rows: -worth(space, rows))
    np.testing.assert_array_equal(rows, same)
    plan = plan_of([folder, again], fit={"epochs": 1})
    run_stage(plan, tmp_path / "both")
    run_stage(plan_of([again], fit={"epochs": 1}), tmp_path / "last")
    both, last = ((tmp_path / name / "filter" / FILTER).read_bytes() for name in ("both", "last"))
    assert both == last
    takes = plan.references["filter"]
    site = Site(RunFolder(tmp_path / "both"), "filter", plan.stages)
    assert inputs_of(site, takes) != inputs_of(site, takes[1:]) != inputs_of(site, takes[:1])
    assert list(inputs_of(site, takes)) == ["of"]


def test_losses_that_are_none_are_left_out_and_said(tmp_path, capsys):
    def broken(space, rows):
        losses = worth(space, rows)
        losses[:7] = np.nan
        return losses

    folder, rows = evaluated(tmp_path / "sample", num=200, values=broken)
    result = run_stage(plan_of([folder], fit={"epochs": 1}), tmp_path / "run")
    assert result["architectures"] == len(rows) - 7
    assert "7 of" in capsys.readouterr().err


def test_mistakes_show_before_anything_is_written(sample, tmp_path):
    folder, _ = sample
    (tmp_path / "filter.pt").write_bytes(b"no filter")
    run_stage(plan_of([folder], fit={"epochs": 1}), tmp_path / "made")
    start, other = str(tmp_path / "made" / "filter" / FILTER), {**OFA_TINY, "size": "laptop"}
    for make, text in (
        (lambda: plan_of([]), "of is empty"),
        (lambda: plan_of([folder], start=start), "network is that of start"),
        (
            lambda: plan_of([folder], network={"dim": 10, "heads": 4}),
            "dim is a multiple of 2 and of the 4 heads; got 10",
        ),
        (lambda: plan_of([folder], network={"dims": 8}), "no option 'dims'|unknown|dims"),
        (lambda: plan_of([folder], by="latency"), "does not have that cost"),
        (lambda: plan_of([folder], metric="mAP"), "has no metric 'mAP'. It has: "),
        (lambda: plan_of([folder], space=other), "searched another space"),
        (lambda: plan_of([tmp_path / "nowhere"]), "is no run"),
        (lambda: plan_of([folder], network=None, num=None, start=str(tmp_path / "filter.pt")), "is no path filter"),
        (lambda: plan_of([folder], network=None, num=4, start=start), "has 3 buckets, not 4"),
        (
            lambda: plan_of([folder], network=None, by="params_m", start=start),
            "not of params_m. Leave by out",
        ),
        (lambda: plan_of([folder], network=None, start="sample"), "unknown stage 'sample'"),
    ):
        with pytest.raises(NasrayError, match=text) as caught:
            checked(make)
        assert "\n" not in str(caught.value)


def test_a_search_that_is_not_finished_is_refused(sample, tmp_path):
    folder, _ = evaluated(tmp_path / "sample", num=50)
    best = json.loads((folder / "best.json").read_text())
    (folder / "best.json").write_text(json.dumps({**best, "finished": False}))
    plan = plan_of([folder])
    with pytest.raises(NasrayError, match="is not finished"):
        check_stages(plan, {}, plan.resources)
