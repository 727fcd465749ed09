"""Searches whose searcher is handed a path filter: by the option `preselect`, of a stage's or of a file."""

import json

import numpy as np
import pytest

from nasray.cluster import Resources, RunFolder, ray_session
from nasray.experiment import parse_experiment
from nasray.filters.filter import FilterOptions, PathFilter
from nasray.searchers import RandomSearch
from nasray.searching import resume_experiment, search_experiment
from nasray.spaces import BasicSpace, NasrayError
from nasray.spaces.buckets import Buckets
from nasray.stages import check_stages, make_plan, planned_stages, without

SPACE = {"name": "basic", "image_hw": [64, 64], "max_depth": 3}


def experiment(**changes):
    """A random search of 12 that a path filter pre-selects, after a search of another name."""
    content = {
        "name": "guided", "evaluations": 12, "batch_size": 4, "in_flight": 1, "space": SPACE,
        "searcher": {"name": "random"}, "evaluator": {"name": "log-width"},
        "stages": {"sample": {"kind": "search", "evaluations": 8}, "search": {"kind": "search"}},
    }  # fmt: skip
    return parse_experiment({**content, **changes}, "test")


@pytest.fixture(scope="module")
def path_filter(tmp_path_factory):
    """A path filter of three buckets, in a file."""
    space = BasicSpace(image_hw=(64, 64), max_depth=3)
    edges = np.quantile(space.cost(space.sample(500, np.random.default_rng(0)))["gmacs"], [0, 0.3, 0.6, 1]).tolist()
    made = PathFilter(space, Buckets("gmacs", tuple(edges)), FilterOptions(dim=16, depth=1, heads=2), seed=1)
    path = tmp_path_factory.mktemp("filter") / "filter.pt"
    made.save(path)
    return made, path


def test_a_search_asks_for_what_its_filter_takes_for_the_best(path_filter, tmp_path):
    made, path = path_filter
    plan = make_plan(experiment(preselect={"filter": str(path), "candidates": 6}))
    with ray_session(Resources(local_cpus=2)):
        search_experiment(plan, tmp_path / "run")
    asked = RunFolder(tmp_path / "run").read_history().genes
    guided = RandomSearch(plan.parts.space, seed=0, predictor=made, oversample=6)
    assert asked.tolist() == np.concatenate([guided.ask(4).genes for _ in range(3)]).tolist()
    sampled = RunFolder(tmp_path / "run" / "sample").read_history().genes
    assert sampled.tolist() == RandomSearch(plan.parts.space, seed=0).ask(8).genes.tolist(), "of `search` alone"
    inputs = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert list(inputs["search"]["inputs"]) == ["preselect.filter"]
    assert not inputs["sample"]["inputs"]
    assert resume_experiment(tmp_path / "run")["evaluations"] == 12


def test_a_stage_has_a_filter_of_its_own(path_filter):
    _, path = path_filter
    stages = {"sample": {"kind": "search", "preselect": {"filter": str(path)}}, "search": {"kind": "search"}}
    plan = make_plan(experiment(stages=stages))
    sample, search = planned_stages(plan)
    assert (sample.takes, search.takes) == ({"preselect.filter": str(path)}, {})
    assert plan.stages["sample"].parts.searcher.oversample == 10
    assert plan.parts.searcher.predictor is None
    assert plan.references["sample"][0].key == "stages.sample.preselect.filter"


def test_files_are_kept_by_their_absolute_paths(path_filter, monkeypatch):
    _, path = path_filter
    monkeypatch.chdir(path.parent)
    stages = {"sample": {"kind": "search", "preselect": {"filter": "./filter.pt"}}, "search": {"kind": "search"}}
    kept = make_plan(experiment(preselect={"filter": "filter.pt"}, stages=stages)).experiment
    assert kept.preselect.filter == kept.stages["sample"].preselect.filter == str(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"preselect": {"filter": "filtre"}}, r"preselect\.filter: unknown stage 'filtre'\. Before it there are: sample"),
    ({"preselect": {"filter": "sample"}}, r"stage 'sample' gives .* preselect\.filter needs a filter: a file"),
    ({"preselect": {"filter": "a.pt"}, "searcher": {"name": "optuna-tpe"}}, "Optuna's samplers take no predictor"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(NasrayError, match=message):
        make_plan(experiment(**changes))


@pytest.mark.parametrize(("preselect", "message"), [
    ({"candidates": 3}, "preselect.filter"),
    ({"filter": "a.pt", "candidates": 0}, "preselect.candidates: .*1"),
    ({"filter": "a.pt", "candidate": 3}, "candidate"),
])  # fmt: skip
def test_options_have_ranges(preselect, message):
    with pytest.raises(NasrayError, match=message):
        experiment(preselect=preselect)


def test_a_missing_file_and_one_of_another_space_are_found_before_anything_starts(path_filter, tmp_path):
    _, path = path_filter
    gone = make_plan(experiment(preselect={"filter": str(tmp_path / "gone.pt")}))
    with pytest.raises(NasrayError, match=r"stage search: no file at .*gone\.pt"):
        check_stages(gone, {}, Resources())
    other = make_plan(experiment(preselect={"filter": str(path)}, space={"name": "bottleneck", "image_hw": [64, 64]}))
    with pytest.raises(NasrayError, match="was fitted on another space"):
        check_stages(other, {}, Resources())


def test_it_is_left_out_with_the_stage_of_its_filter(path_filter, capsys):
    _, path = path_filter
    top = make_plan(experiment(preselect={"filter": str(path)}))
    names = {**top.references, "search": tuple(_of_stage(each) for each in top.references["search"])}
    left = without(_referring(top, names), ["sample"])
    assert left.experiment.preselect is None
    stages = {"sample": {"kind": "search"}, "search": {"kind": "search", "preselect": {"filter": str(path)}}}
    own = make_plan(experiment(stages=stages))
    names = {**own.references, "search": tuple(_of_stage(each) for each in own.references["search"])}
    left = without(_referring(own, names), ["sample"])
    assert left.experiment.stages["search"].preselect is None
    said = capsys.readouterr().err
    assert said == "preselect was by sample: left out\nstages.search.preselect was sample: left out\n"


def _of_stage(reference):
    """The same reference, to the stage `sample`."""
    return reference.__class__(reference.option, reference.what, "sample", reference.key)


def _referring(plan, names):
    return plan.__class__(plan.experiment, plan.search, plan.stages, names)
