"""Plans: references between stages, what is refused, what each stage takes and gives."""

import dataclasses

import pytest

from nasray.loading import load_plan, parse_plan
from nasray.spaces import NasrayError
from nasray.stages import check_stages, planned_stages, resolve_recipes, winner_stages, without

TINY = "detnas-300m-tiny"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--stages.trian.top", "2"], "unknown stage 'trian'; did you mean 'train'?"),
    (["--stages.train.topp", "2"], "stage 'train' has no option 'topp'; did you mean 'top'? It has: kind, of, top"),
    (["--stages.train.kind", "tran"], "unknown stage 'tran'; did you mean 'train'? There are: train, search"),
    (["--stages.train.of", "serch"], "stages.train.of: unknown stage or architecture 'serch'; did you mean 'search'?"),
    (["--stages.train.weights", "pretrian"], "train.weights: unknown stage 'pretrian'; did you mean 'pretrain'?"),
    (["--stages.pretrain.weights", "train"], "stages.pretrain.weights: stage 'train' does not come before 'pretrain'"),
    (["--stages.train.weights", "search"], "stage 'search' gives architectures and a history; stages.train.weights "
     "needs a checkpoint: supernet-pretrain or supernet-train or pretrain"),
    (["--evaluator.supernet", "search"], "evaluator.supernet: stage 'search' does not come before"),
    (["--stages.supernet-train.top", "2"], "a supernet is trained once and alone"),
    (["--stages.train.top", "0"], "top"),
    (["--stages.train.of", "[]"], "of is empty"),
])  # fmt: skip
def test_references_and_options_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(NasrayError) as caught:
        load_plan(TINY, arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_experiment_has_a_stage_that_searches():
    with pytest.raises(NasrayError, match="stages has none named 'search'"):
        parse_plan({"name": "x", "stages": {"first": {"kind": "search"}}}, "x.yaml")
    with pytest.raises(NasrayError, match="a stage is named by letters"):
        parse_plan({"name": "x", "stages": {"search": {"kind": "search"}, "history": {"kind": "search"}}}, "x")
    with pytest.raises(NasrayError, match=r"stage needs the key kind. There are: train, search"):
        parse_plan({"name": "x", "stages": {"search": {}}}, "x.yaml")


def test_a_plan_says_what_every_stage_takes_and_gives():
    planned = {each.name: each for each in planned_stages(load_plan(TINY))}
    assert planned["train"].takes == {"of": "search", "weights": "pretrain"}
    assert planned["search"].takes == {"evaluator.supernet": "supernet-train"}
    assert planned["search"].gives == ("architectures", "history")
    assert (planned["search"].work.trials, planned["search"].folder) == (12, ".")
    assert planned["baselines"].work.trainings == 2
    alone = planned_stages(load_plan("maedet-tiny"))
    assert [each.name for each in alone] == ["search"]
    assert alone[0].work.trials == 16


def test_stages_can_be_left_out(capsys):
    plan = load_plan(TINY)
    assert list(without(plan, ["baselines", "baselines-pretrain"]).stages)[-1] == "train"
    with pytest.raises(NasrayError, match=r"--without supernet-train: evaluator.supernet refers to it"):
        without(plan, ["supernet-train"])
    with pytest.raises(NasrayError, match=r"--without search: stages.pretrain.of refers to it. Leave pretrain out too"):
        without(plan, ["search"])
    capsys.readouterr()
    scratch = without(plan, ["supernet-pretrain"])
    assert capsys.readouterr().err == "stages.supernet-train.weights was supernet-pretrain: left out\n"
    assert "supernet-pretrain" not in scratch.stages
    assert scratch.experiment.stages["supernet-train"].weights is None
    assert resolve_recipes(scratch)["supernet-train"].weights is None
    with pytest.raises(NasrayError, match="unknown stage 'baseline'; did you mean 'baselines'"):
        without(plan, ["baseline"])


def test_shipped_experiments_of_msnas_load():
    for name in ("msnas-tiny", "msnas-r34", "msnas-r18-fpn-style", "msnas-r18-unconstrained", "msnas-r18-norandom"):
        plan = load_plan(name)
        assert list(plan.stages)[:3] == ["supernet", "search", "train"]
        assert plan.parts.evaluator.finetune.iterations in (10, 100)
        assert resolve_recipes(plan)["supernet"].space["utilization"] == plan.parts.space.utilization
    assert load_plan("msnas-r18-nofinetune").parts.evaluator.finetune is None
    assert resolve_recipes(load_plan("msnas-mask-r50"))["train"].detector.name == "mask-rcnn"
    tiny = load_plan("msnas-tiny")
    check_stages(tiny, resolve_recipes(tiny), tiny.resources)


def test_a_window_that_no_encoder_meets_is_refused_before_the_first_stage():
    plan = load_plan("msnas-tiny", ["--budget.min-gmacs", "0.0001", "--budget.gmacs", "0.0002"])
    with pytest.raises(NasrayError, match=r"no architecture of space 'msnas' meets the budget \(gmacs <= 0.0002"):
        check_stages(plan, resolve_recipes(plan), plan.resources)


def test_shipped_experiments_with_stages_load():
    for name in (TINY, "detnas-300m", "detnas-1.3g", "detnas-300m-scratch", "clsnas-300m", "detnas-laptop"):
        loaded = load_plan(name)
        assert winner_stages(loaded) == ["pretrain", "train"]
        assert "baselines" in loaded.stages
        assert resolve_recipes(loaded).keys() == loaded.stages.keys() - {"search"}
    for name in ("detnas-300m", "detnas-laptop"):
        plain, filtered = load_plan(name), load_plan(f"{name}-filtered")
        assert list(filtered.stages)[2:5] == ["sample", "filter", "search"]
        assert [reference.key for reference in filtered.references["search"]][-1] == "preselect.filter"
        assert filtered.stages["sample"].parts.searcher.predictor is None
        assert filtered.parts.searcher.oversample == 10
        left = without(filtered, ["sample", "filter"]).experiment
        assert dataclasses.replace(left, name=plain.experiment.name) == plain.experiment
    tiny = load_plan(TINY)
    check_stages(tiny, resolve_recipes(tiny), tiny.resources)
