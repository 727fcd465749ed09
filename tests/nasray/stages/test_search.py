"""A search that takes up what another one found: another stage of the run, or another run."""

import json

import numpy as np
import pytest

from nasray.cluster import Resources, RunFolder, ray_session
from nasray.experiment import describe_experiment, parse_experiment
from nasray.parts import make_parts
from nasray.registry import SEARCHERS
from nasray.searchers import Evolution
from nasray.searching import resume_experiment, search_experiment
from nasray.spaces import NasrayError
from nasray.stages import check_stages, make_plan, planned_stages, site_of
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
    assert len(listed_rows(experiment)) == 40
    of_second = listed_rows(two_searches(**{**alone, "searcher": {"name": "listed", "of": str(folder)}}))
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
    rows = listed_rows(
        two_searches(searcher={"name": "listed", "of": str(run.path)}, stages={"search": {"kind": "search"}})
    )
    found = make_parts(experiment).space.ids(rows)
    assert sorted(found) == sorted(history.ids)
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
