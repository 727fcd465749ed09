"""The stage that prunes, and searches of what it leaves."""

import json

import numpy as np
import pytest

from nasray.cluster import RunFolder
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import FILTER, PRUNED, read_pruned
from nasray.filters.pruning import acceptance
from nasray.loading import parse_plan
from nasray.options import make_part
from nasray.spaces import NasrayError, RestrictedSpace
from nasray.stages import Site, planned_stages
from nasray.stages.run import check_stages, inputs_of, refuse_other_inputs
from tests.nasray.stages.evaluated import OFA_TINY, evaluated

STAGED = {"name": "basic", "image_hw": [64, 64], "max_depth": 3}


def plan_of(folder, *, space=OFA_TINY, search=None, **options):
    """A run that fits a filter, prunes by it, and searches what is left."""
    fit = {"kind": "fit-filter", "of": [str(folder)], "num": 3, "network": {"dim": 16, "depth": 1, "heads": 2},
           "fit": {"epochs": 3}}  # fmt: skip
    prune = {"kind": "prune", "filter": "filter", "samples": 10, "draws": 400, **options}
    content = {
        "name": "prunes", "space": space, "searcher": {"name": "random"}, "evaluator": {"name": "synflow"},
        "evaluations": 20,
        "stages": {"filter": fit, "prune": prune, "search": {"kind": "search", "pruned": "prune", **(search or {})}},
    }  # fmt: skip
    return parse_plan(content, "test")


def run_stages(plan, path, *names):
    """The result of the last of some stages, without Ray."""
    run = RunFolder(path)
    run.path.mkdir(exist_ok=True)
    return [plan.stages[name].run(Site(run, name, plan.stages)) for name in names][-1]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run of which the first two stages are done: its plan, its folder, what pruning returned."""
    root = tmp_path_factory.mktemp("pruned")
    plan = plan_of(evaluated(root / "sample")[0])
    return plan, root / "run", run_stages(plan, root / "run", "filter", "prune")


def test_what_is_pruned_is_kept_with_its_filter(pruned):
    plan, folder, result = pruned
    space = make_part(plan.experiment.space)
    found = read_pruned(folder / "prune" / PRUNED, space)
    assert (folder / "prune" / FILTER).read_bytes() == (folder / "filter" / FILTER).read_bytes()
    states = [operation.state for operation in found.operations]
    assert len(states) == len(space.operations()) == result["operations"]
    assert result["pruned"] == states.count("pruned") == len(found.forbidden) > 0.2 * len(states)
    path_filter = PathFilter.load(found.path_filter, space)
    before, left = found.measured["settings"]["before"], found.measured["settings"]["left"]
    assert sum(before) == result["settings_before"] == space.num_architectures
    assert sum(left) == result["settings_left"] == found.restricted(space).num_architectures
    assert all(0 < few <= many for few, many in zip(left, before, strict=True))
    fresh = acceptance(found.restricted(space), path_filter, found.thresholds, num=4_000, seed=99)
    for bucket, (row, own) in enumerate(zip(fresh, found.measured["acceptance"], strict=True)):
        assert own["low"] <= own["value"] <= own["high"]
        budget = path_filter.buckets.budget(bucket)
        rows = found.restricted(space).sample_within(4_000, budget, np.random.default_rng(bucket))
        if len(np.unique(path_filter(rows))) > 100:  # else what is equal to the threshold is many paths
            assert row["value"] == pytest.approx(0.75, abs=0.07)
    assert fresh[0]["value"] == pytest.approx(0.75, abs=0.07)
    assert plan.stages["prune"].is_done(Site(RunFolder(folder), "prune", plan.stages))


def test_it_is_done_once_and_the_same_each_time(pruned, tmp_path):
    plan, folder, result = pruned
    path = folder / "prune" / PRUNED
    before, content = path.stat().st_mtime_ns, path.read_bytes()
    assert run_stages(plan, folder, "prune") == result
    assert path.stat().st_mtime_ns == before
    path.unlink()  # as if it had been killed before the last file was there
    assert run_stages(plan, folder, "prune") == result
    assert path.read_bytes() == content


def test_a_search_of_what_is_left_has_no_pruned_operation(pruned):
    plan, folder, _ = pruned
    site = Site(RunFolder(folder), "search", plan.stages)
    parts = plan.search.parts_at(site)
    assert isinstance(parts.space, RestrictedSpace)
    assert parts.searcher.space is parts.space
    assert plan.search.parts.space is parts.space.space, "what is counted and checked before is the whole space"
    rows = parts.searcher.ask(500).genes
    assert parts.space.is_valid(rows).all()
    assert not parts.space.is_valid(plan.search.parts.searcher.ask(500).genes).all()
    takes = plan.references["search"]
    assert [(each.option, each.value) for each in takes] == [("pruned", "prune")]
    inputs = inputs_of(site, takes)
    path = folder / "prune" / PRUNED
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    try:
        with pytest.raises(NasrayError, match="stage search was begun with another pruned"):
            refuse_other_inputs(site, inputs, inputs_of(site, takes))
    finally:
        path.write_bytes(content)


def test_it_is_planned_without_data(pruned):
    plan, _, _ = pruned
    _, prune, search = planned_stages(plan)
    assert prune.gives == ("filter", "restriction")
    assert prune.work.text == "score-all pruning: 10% of all, then 30% of each bucket; 25% of paths passed over"
    assert search.takes == {"pruned": "prune"}
    assert "operations pruned by prune left out" in search.work.text


def test_a_pruning_of_another_run_is_taken_by_its_file(pruned, tmp_path):
    plan, folder, _ = pruned
    content = {
        "name": "alone", "space": OFA_TINY, "searcher": {"name": "random"}, "evaluator": {"name": "synflow"},
        "evaluations": 20, "stages": {"search": {"kind": "search", "pruned": str(folder / "prune" / PRUNED)}},
    }  # fmt: skip
    alone = parse_plan(content, "test")
    check_stages(alone, {}, alone.resources)
    site = Site(RunFolder(tmp_path), "search", alone.stages)
    found = alone.search.parts_at(site).space
    assert found.forbidden == plan.search.parts_at(Site(RunFolder(folder), "search", plan.stages)).space.forbidden


def test_mistakes_show_before_anything_is_written(pruned, tmp_path):
    _, folder, _ = pruned
    path = folder / "prune" / PRUNED
    (tmp_path / "bad.json").write_text(json.dumps({"format": 1}))
    only = {"kind": "search"}

    def of_file(name, space=OFA_TINY):
        content = {
            "name": "alone", "space": space, "searcher": {"name": "random"}, "evaluator": {"name": "synflow"},
            "evaluations": 20, "stages": {"search": {**only, "pruned": str(name)}},
        }  # fmt: skip
        return parse_plan(content, "test")

    for make, text in (
        (lambda: plan_of(tmp_path, strategy="best"), "'best' is not one of flops, score-bucket, score-all"),
        (lambda: plan_of(tmp_path, worst=1.5), "less than or equal to 1"),
        (lambda: plan_of(tmp_path, filter="prune"), "stage 'prune' does not come before 'prune'"),
        (
            lambda: plan_of(tmp_path, search={"pruned": "filter"}),
            "stage 'filter' gives a filter; .*needs a restriction",
        ),
        (lambda: of_file(tmp_path / "bad.json"), "is not as nasray wrote it"),
        (lambda: of_file(tmp_path / "none.json"), "no file at"),
        (lambda: of_file(path, {**OFA_TINY, "size": "laptop"}), "pruned another space"),
    ):
        with pytest.raises(NasrayError, match=text) as caught:
            checked(make)
        assert "\n" not in str(caught.value)


def checked(make):
    plan = make()
    check_stages(plan, {}, plan.resources)


def test_a_space_whose_operations_cannot_be_listed_is_refused(tmp_path):
    plan = plan_of(tmp_path, space=STAGED)
    site = Site(RunFolder(tmp_path), "prune", plan.stages)
    with pytest.raises(NasrayError, match=r"operations cannot be pruned: the genes .* too many settings") as caught:
        plan.stages["prune"].check(site)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("least", [1, 5_000])
def test_every_bucket_keeps_architectures(tmp_path, least):
    """Everything shall go: what stays is what a bucket needs."""
    plan = plan_of(evaluated(tmp_path / "sample", num=200)[0], worst=1.0, least=least)
    result = run_stages(plan, tmp_path / "run", "filter", "prune")
    space = make_part(plan.experiment.space)
    found = read_pruned(tmp_path / "run" / "prune" / PRUNED, space)
    assert result["spared"] > 0
    assert all(threshold is not None for threshold in found.thresholds)
    left, path_filter = found.restricted(space), PathFilter.load(found.path_filter, space)
    for bucket, count in enumerate(found.measured["settings"]["left"]):
        assert count >= least
        assert len(left.sample_within(1, path_filter.buckets.budget(bucket), np.random.default_rng(0))) == 1
    assert min(found.measured["settings"]["left"]) < 50 * least, "and not much more"
