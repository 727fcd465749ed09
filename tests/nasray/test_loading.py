"""Whatever comes from outside is checked as a whole by one door, and its parts are made once."""

import dataclasses

import pytest

from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment, parse_experiment
from nasray.loading import known_plan, load_plan, parse_plan, plan_of_run
from nasray.spaces import BottleneckSpace, NasrayError
from nasray.stages import check_stages, make_plan, resolve_recipes

UNFIT = {"name": "x", "searcher": {"name": "coarse-to-fine"}, "minimize": ["gmacs"]}


def test_parts_are_made_once_on_the_way_to_a_search(monkeypatch):
    made = []
    construct = BottleneckSpace.__init__
    monkeypatch.setattr(
        BottleneckSpace, "__init__", lambda space, **options: (made.append(space), construct(space, **options))[1]
    )
    plan = load_plan("maedet-tiny", ["--budget.gmacs", "40"])
    check_stages(plan, resolve_recipes(plan), plan.resources)
    assert made == [plan.parts.space]
    assert plan.stages["search"].parts is plan.parts
    assert plan.parts.searcher.space is plan.parts.evaluator.space is plan.parts.space
    assert not plan.parts.searcher.seen, "a search begins with a fresh searcher"


def test_a_stage_with_a_searcher_of_its_own_shares_the_space():
    stages = {
        "sample": {"kind": "search", "searcher": {"name": "random"}, "evaluations": 20},
        "search": {"kind": "search"},
    }
    plan = parse_plan({"name": "x", "evaluations": 300, "stages": stages}, "test")
    sample = plan.stages["sample"]
    assert sample.parts.space is plan.parts.space
    assert (sample.parts.searcher.evaluations, plan.parts.searcher.evaluations) == (20, 300)
    assert type(sample.parts.searcher) is not type(plan.parts.searcher)


@pytest.mark.parametrize("door", ["file", "command line", "content", "run"])
def test_every_door_refuses_what_does_not_go_together(door, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("minimize: [gmacs]\n" if door == "file" else "name: x\n")
    plain = parse_experiment({"name": "x"}, "test")
    broken = describe_experiment(dataclasses.replace(plain, minimize=("gmacs",)))
    run = RunFolder.create(tmp_path / "run", broken)
    doors = {
        "file": (lambda: load_plan(str(path)), str(path)),
        "command line": (lambda: load_plan(str(path), ["--minimize", "gmacs"]), str(path)),
        "content": (lambda: parse_plan(UNFIT, "mine"), "mine"),
        "run": (lambda: plan_of_run(run), str(run.path)),
    }
    load, source = doors[door]
    with pytest.raises(NasrayError) as refusal:
        load()
    assert str(refusal.value).startswith(f"{source}: ")
    assert "takes 1 to 1 objectives, got 2: score, gmacs" in str(refusal.value)
    assert known_plan(run) is None


def test_a_mistake_in_a_stage_names_the_stage():
    stages = {"sample": {"kind": "search", "minimize": ["gmacs"]}, "search": {"kind": "search"}}
    with pytest.raises(NasrayError, match=r"^test: stages.sample: .*takes 1 to 1 objectives"):
        parse_plan({"name": "x", "stages": stages}, "test")


def test_a_plan_is_what_a_run_keeps(tmp_path):
    plan = load_plan("detnas-300m-tiny", ["--evaluator.supernet", "weights/x.pt", "--holdout", "0"])
    assert plan.experiment.evaluator.supernet.startswith("/"), "a run may be continued from elsewhere"
    run = RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment))
    assert plan_of_run(run).experiment == plan.experiment == make_plan(plan.experiment).experiment
