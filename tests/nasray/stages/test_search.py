"""Searches that take up what another one found, in the run or in another, or are pre-selected by a path filter."""

import json

import numpy as np
import pytest

from nasray.cli import main
from nasray.cluster import Resources, RunFolder, ray_session
from nasray.experiment import describe_experiment, parse_experiment
from nasray.filters.filter import FilterOptions, PathFilter
from nasray.parts import make_parts
from nasray.registry import SEARCHERS
from nasray.searchers import Evolution, RandomSearch, pareto_front
from nasray.searching import resume_experiment, search_experiment
from nasray.spaces import BasicSpace, NasrayError, OFAResNetSpace
from nasray.spaces.buckets import Buckets
from nasray.stages import check_stages, make_plan, planned_stages, site_of, without
from nasray.stages.run import inputs_of, refuse_other_inputs
from nasray.stages.search import listed_rows

SPACE = {"name": "basic", "image_hw": [64, 64], "max_depth": 3}
MEASURE = {
    "kind": "search", "searcher": {"name": "listed", "of": "predict", "top": 6}, "evaluations": 6, "batch_size": 2,
    "evaluator": {"name": "entropy", "image_hw": [64, 64]},
}  # fmt: skip


def two_searches(**changes):
    """An experiment whose second search measures anew what its first one found."""
    content = {
        "name": "twice", "evaluations": 40, "batch_size": 8, "space": SPACE, "budget": {"layers": 30},
        "searcher": {"name": "evolution"}, "evaluator": {"name": "log-width"},
        "stages": {"predict": {"kind": "search"}, "search": MEASURE},
    }  # fmt: skip
    return parse_experiment({**content, **changes}, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Such a run, from its beginning to its end."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with ray_session(Resources(local_cpus=2)):
        return folder, search_experiment(make_plan(two_searches()), folder)


def test_the_best_of_the_first_search_are_measured_again(finished):
    folder, done = finished
    first, second = RunFolder(folder / "predict").read_history(), RunFolder(folder).read_history()
    best = np.argsort(-first.metrics["score"], kind="stable")[:6]
    assert second.ids == [first.ids[place] for place in best]
    assert done["evaluations"] == 6
    assert not done["ended_early"]
    scores = second.metrics["score"]
    assert done["best"][0]["id"] == second.ids[scores.argmax()]
    assert (scores != first.metrics["score"][best]).all(), "by its own evaluator"
    assert list(json.loads((folder / "stages.json").read_text())["search"]["inputs"]) == ["searcher.of"]


def test_a_search_that_takes_up_another_goes_on_where_it_was(finished):
    folder, done = finished
    run = RunFolder(folder)
    parts = {path: path.read_bytes() for path in run.history.glob("*.parquet")}
    assert len(parts) == 3
    for path in [folder / "best.json", *sorted(parts)[1:]]:
        path.unlink()
    again = resume_experiment(folder, from_history=True)
    assert again["best"] == done["best"]
    assert {path: path.read_bytes() for path in run.history.glob("*.parquet")} == parts


def test_another_history_under_a_search_is_noticed(finished):
    folder, _ = finished
    plan = make_plan(two_searches())
    site, takes = site_of(RunFolder(folder), plan), plan.references["search"]
    before = json.loads((folder / "stages.json").read_text())["search"]["inputs"]
    refuse_other_inputs(site, before, inputs_of(site, takes))
    part = sorted((folder / "predict" / "history").glob("*.parquet"))[-1]
    content = part.read_bytes()
    part.write_bytes(content + b"more")
    try:
        with pytest.raises(NasrayError, match=r"stage search was begun with another searcher\.of"):
            refuse_other_inputs(site, before, inputs_of(site, takes))
    finally:
        part.write_bytes(content)


def test_another_run_is_taken_up_by_its_folder(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.chdir(folder.parent)
    alone = {"searcher": {"name": "listed", "of": "run/predict"}, "stages": {"search": {"kind": "search"}}}
    plan = make_plan(two_searches(**alone))
    experiment = plan.experiment
    assert experiment.searcher.of == str(folder / "predict")
    within = make_plan(two_searches(stages={"search": {**MEASURE, "searcher": alone["searcher"]}}))
    assert within.experiment.stages["search"].searcher.of == str(folder / "predict")
    check_stages(plan, {}, plan.resources)
    assert len(listed_rows(experiment)[0]) == 40
    of_second, _ = listed_rows(two_searches(**{**alone, "searcher": {"name": "listed", "of": str(folder)}}))
    assert make_parts(experiment).space.ids(of_second)[0] == RunFolder(folder).read_best()["best"][0]["id"]
    other = make_plan(two_searches(**alone, space={**SPACE, "max_depth": 2}))
    with pytest.raises(NasrayError, match=r"searched another space \(name 'basic', .*Set space as it is there"):
        check_stages(other, {}, other.resources)
    (folder / "predict" / "best.json").unlink()
    with pytest.raises(NasrayError, match=r"is not finished\. Finish it with `nasray resume` first"):
        check_stages(plan, {}, plan.resources)


class TwoNiches(Evolution):
    """Compare architectures within two niches."""

    def niches(self, genes):
        return genes.sum(axis=1) % 2


def test_a_stage_with_a_seed_of_its_own_draws_other_architectures():
    random = {"kind": "search", "searcher": {"name": "random"}, "evaluations": 40}
    stages = {"first": random, "same": random, "other": {**random, "seed": 7}, "search": {"kind": "search"}}
    plan = make_plan(two_searches(stages=stages))
    first, same, other = (
        plan.stages[name].parts.searcher.ask(40).genes.tolist() for name in ("first", "same", "other")
    )
    assert first == same
    assert not any(row in first for row in other)
    alone = make_parts(two_searches(stages={}, seed=7, searcher={"name": "random"})).searcher.ask(40).genes
    assert other == alone.tolist()


def test_niches_give_their_best_in_turn(finished, tmp_path, monkeypatch):
    folder, _ = finished
    monkeypatch.setitem(SEARCHERS, "two-niches", TwoNiches)
    experiment = two_searches(searcher={"name": "two-niches"}, stages={"search": {"kind": "search"}})
    run = RunFolder.create(tmp_path / "run", describe_experiment(experiment))
    for part in (folder / "predict" / "history").glob("*.parquet"):
        (run.history / part.name).write_bytes(part.read_bytes())
    history = run.read_history()
    kinds = history.genes.sum(axis=1) % 2
    scores = dict(zip(history.ids, history.metrics["score"], strict=True))
    kind_of = dict(zip(history.ids, kinds.tolist(), strict=True))
    rows, niches = listed_rows(
        two_searches(searcher={"name": "listed", "of": str(run.path)}, stages={"search": {"kind": "search"}})
    )
    found = make_parts(experiment).space.ids(rows)
    assert sorted(found) == sorted(history.ids)
    assert niches.tolist() == [kind_of[key] for key in found]
    pairs = 2 * min(np.bincount(kinds, minlength=2))
    assert pairs >= 4
    for kind in (0, 1):
        own = [key for key in found if kind_of[key] == kind]
        assert [scores[key] for key in own] == sorted((scores[key] for key in own), reverse=True)
    for place in range(0, pairs, 2):
        assert {kind_of[key] for key in found[place : place + 2]} == {0, 1}


def test_it_is_planned_and_refused_by_its_references():
    (first, second) = planned_stages(make_plan(two_searches()))
    assert second.takes == {"searcher.of": "predict"}
    assert second.work.text == "6 evaluations by listed, entropy"
    assert first.gives == ("architectures", "history")
    misspelled = {"predict": {"kind": "search"}, "search": {**MEASURE, "searcher": {"name": "listed", "of": "predcit"}}}
    with pytest.raises(NasrayError, match=r"stages\.search\.searcher\.of: unknown stage 'predcit'; did you mean"):
        make_plan(two_searches(stages=misspelled))
    later = {"search": {**MEASURE, "searcher": {"name": "listed", "of": "later"}}, "later": {"kind": "search"}}
    with pytest.raises(NasrayError, match=r"stages\.search\.searcher\.of: stage 'later' does not come before 'search'"):
        make_plan(two_searches(stages=later))
    with pytest.raises(NasrayError, match=r"searcher 'listed' has no list\. Set of to a stage"):
        make_plan(two_searches(searcher={"name": "listed"}))


def test_the_best_of_every_bucket_are_measured_again(tmp_path, capsys):
    """Predicted by a path filter in every bucket, then measured; the run's best is the front."""
    space = OFAResNetSpace("tiny", image_hw=(64, 64))
    buckets = Buckets.spanning(space, "gmacs", 4)
    for seed, name in enumerate(("predict.pt", "measure.pt")):
        PathFilter(space, buckets, FilterOptions(dim=16, depth=1, heads=2), seed=seed).save(tmp_path / name)
    predict = {
        "kind": "search",
        "searcher": {"name": "bucket-evolution", "num": 4, "population_size": 6},
        "evaluator": {"name": "filter", "filter": str(tmp_path / "predict.pt")},
        "evaluations": 200,
        "batch_size": 20,
        "minimize": [],
    }
    content = {
        "name": "by-buckets",
        "space": {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]},
        "searcher": {"name": "listed", "of": "predict", "per_bucket": 3},
        "evaluator": {"name": "filter", "filter": str(tmp_path / "measure.pt")},
        "evaluations": 12,
        "batch_size": 4,
        "minimize": ["gmacs"],
        "stages": {"predict": predict, "search": {"kind": "search"}},
    }
    folder = tmp_path / "run"
    with ray_session(Resources(local_cpus=2)):
        done = search_experiment(make_plan(parse_experiment(content, "test")), folder)
    best = RunFolder(folder / "predict").read_entries()
    assert np.bincount(buckets.of([entry.costs["gmacs"] for entry in best])).tolist() == [10] * 4
    first, second = RunFolder(folder / "predict").read_history(), RunFolder(folder).read_history()
    niches, scores = buckets.of(first.costs["gmacs"]), first.metrics["score"]
    assert np.bincount(niches).tolist() == [50] * 4
    for niche in range(4):
        own = np.flatnonzero(niches == niche)
        wanted = own[np.argsort(-scores[own], kind="stable")[:3]]
        assert {first.ids[place] for place in wanted} <= set(second.ids)
    assert buckets.of(second.costs["gmacs"]).tolist()[:4] != [0] * 4, "the buckets come in turn"
    front = pareto_front(np.stack([second.metrics["score"], -second.costs["gmacs"]], axis=1))
    assert {entry["id"] for entry in done["best"]} == {second.ids[place] for place in np.flatnonzero(front)}
    capsys.readouterr()
    assert main(["front", str(folder), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["front"]) == front.sum()


# ---- pre-selection ------------------------------------------------------------------------------------------------


def preselected(**changes):
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


@pytest.mark.slow
def test_a_search_asks_for_what_its_filter_takes_for_the_best(path_filter, tmp_path):
    made, path = path_filter
    plan = make_plan(preselected(preselect={"filter": str(path), "candidates": 6}))
    with ray_session(Resources(local_cpus=2)):
        search_experiment(plan, tmp_path / "run")
    asked = RunFolder(tmp_path / "run").read_history().genes
    guided = RandomSearch(plan.parts.space, seed=0, predictor=made, oversample=6)
    assert asked.tolist() == np.concatenate([guided.ask(4).genes for _ in range(3)]).tolist()
    sampled = RunFolder(tmp_path / "run" / "sample").read_history().genes
    plain = RandomSearch(plan.parts.space, seed=0)
    assert sampled.tolist() == np.concatenate([plain.ask(4).genes for _ in range(2)]).tolist(), "of `search` alone"
    inputs = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert list(inputs["search"]["inputs"]) == ["preselect.filter"]
    assert not inputs["sample"]["inputs"]
    assert resume_experiment(tmp_path / "run")["evaluations"] == 12


def test_a_stage_has_a_filter_of_its_own(path_filter):
    _, path = path_filter
    stages = {"sample": {"kind": "search", "preselect": {"filter": str(path)}}, "search": {"kind": "search"}}
    plan = make_plan(preselected(stages=stages))
    sample, search = planned_stages(plan)
    assert (sample.takes, search.takes) == ({"preselect.filter": str(path)}, {})
    assert plan.stages["sample"].parts.searcher.oversample == 10
    assert plan.parts.searcher.predictor is None
    assert plan.references["sample"][0].key == "stages.sample.preselect.filter"


def test_files_are_kept_by_their_absolute_paths(path_filter, monkeypatch):
    _, path = path_filter
    monkeypatch.chdir(path.parent)
    stages = {"sample": {"kind": "search", "preselect": {"filter": "./filter.pt"}}, "search": {"kind": "search"}}
    kept = make_plan(preselected(preselect={"filter": "filter.pt"}, stages=stages)).experiment
    assert kept.preselect.filter == kept.stages["sample"].preselect.filter == str(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"preselect": {"filter": "filtre"}}, r"preselect\.filter: unknown stage 'filtre'\. Before it there are: sample"),
    ({"preselect": {"filter": "sample"}}, r"stage 'sample' gives .* preselect\.filter needs a filter: a file"),
    ({"preselect": {"filter": "a.pt"}, "searcher": {"name": "optuna-tpe"}}, "Optuna's samplers take no predictor"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(NasrayError, match=message):
        make_plan(preselected(**changes))


@pytest.mark.parametrize(("preselect", "message"), [
    ({"candidates": 3}, "preselect.filter"),
    ({"filter": "a.pt", "candidates": 0}, "preselect.candidates: .*1"),
    ({"filter": "a.pt", "candidate": 3}, "candidate"),
])  # fmt: skip
def test_options_have_ranges(preselect, message):
    with pytest.raises(NasrayError, match=message):
        preselected(preselect=preselect)


def test_a_missing_file_and_one_of_another_space_are_found_before_anything_starts(path_filter, tmp_path):
    _, path = path_filter
    gone = make_plan(preselected(preselect={"filter": str(tmp_path / "gone.pt")}))
    with pytest.raises(NasrayError, match=r"stage search: no file at .*gone\.pt"):
        check_stages(gone, {}, Resources())
    other = make_plan(preselected(preselect={"filter": str(path)}, space={"name": "bottleneck", "image_hw": [64, 64]}))
    with pytest.raises(NasrayError, match="was fitted on another space"):
        check_stages(other, {}, Resources())


def test_it_is_left_out_with_the_stage_of_its_filter(path_filter, capsys):
    _, path = path_filter
    top = make_plan(preselected(preselect={"filter": str(path)}))
    names = {**top.references, "search": tuple(_of_stage(each) for each in top.references["search"])}
    left = without(_referring(top, names), ["sample"])
    assert left.experiment.preselect is None
    stages = {"sample": {"kind": "search"}, "search": {"kind": "search", "preselect": {"filter": str(path)}}}
    own = make_plan(preselected(stages=stages))
    names = {**own.references, "search": tuple(_of_stage(each) for each in own.references["search"])}
    left = without(_referring(own, names), ["sample"])
    assert left.experiment.stages["search"].preselect is None
    said = capsys.readouterr().err
    assert said == "preselect was by sample: left out\nstages.search.preselect was sample: left out\n"


def _of_stage(reference):
    """The same reference, to the stage `sample`."""
    return reference.__class__(reference.option, reference.what, "sample", reference.key)


def _referring(plan, names):
    return plan.__class__(plan.experiment, plan.parts, plan.stages, names)
