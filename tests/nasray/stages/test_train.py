"""The stage that trains: schedules in several stages, which paths of a supernet it trains, what it begins with."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.cluster import RunFolder, training
from nasray.experiment import describe_experiment, parse_experiment
from nasray.filters.filter import FilterOptions, PathFilter
from nasray.filters.pruned import Pruned, PrunedOperation, write_pruned
from nasray.loading import load_plan, parse_plan
from nasray.models.supernets.base import supernet_of
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.buckets import Buckets
from nasray.stages import check_stages, make_plan, planned_stages, resolve_recipes, train, write_recipes
from nasray.stages.base import Site
from nasray.training.folder import read_description
from nasray.training.loop import Loop
from nasray.training.paths import make_paths
from nasray.training.setup import checkpoint_digest

DETECT = """
backbone: basic-tiny
batch_size: 16
ema: 0.9
detector: {name: centernet, channels: 16}
augmentation: {square: 64}
loader: {processes: 0, cache: true}
optimizer: {name: adam, learning_rate: 0.001, weight_decay: 0}
schedule: {epochs: 1, milestones: [0.25, 0.75], warmup_iterations: 2}
resources: {workers: 1, gpus: 0, cpus: 1}
"""
CLASSIFY = """
task: classification
batch_size: 32
classifier: {width: 32, dropout: 0}
augmentation: {square: 32}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004}
schedule: {name: cosine, epochs: 1, milestones: [], warmup_iterations: 2}
resources: {workers: 1, gpus: 0, cpus: 1}
"""
SPACE = {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]}


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def content(tmp_path):
    """A function that makes the content of an experiment of some stages that train."""
    (tmp_path / "detect.yaml").write_text(DETECT)
    (tmp_path / "classify.yaml").write_text(CLASSIFY)

    def make(**stages):
        named = {name.replace("_", "-"): {"kind": "train", **options} for name, options in stages.items()}
        of = {name: {"of": "supernet"} for name, options in named.items() if "of" not in options}
        return {
            "name": "x", "evaluations": 4, "data": "shapes", "images": "shapes", "space": SPACE,
            "recipe": str(tmp_path / "detect.yaml"), "searcher": {"name": "random"}, "evaluator": {"name": "synflow"},
            "stages": {**{name: {**of.get(name, {}), **one} for name, one in named.items()},
                       "search": {"kind": "search"}},
        }  # fmt: skip

    return make


@pytest.fixture
def here(monkeypatch):
    """Trainings run in this process, without Ray."""
    monkeypatch.setattr(training, "training_session", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(training, "run_training", lambda loop, config, **_: loop(config, training.Worker()))


def site_in(folder, content):
    """The place of a run's stages."""
    experiment = parse_experiment(content, "test")
    plan = make_plan(experiment)
    run = RunFolder.open(folder) if folder.exists() else RunFolder.create(folder, describe_experiment(plan.experiment))
    recipes = resolve_recipes(plan)
    write_recipes(run, recipes)
    return Site(run, "", plan.stages, recipes)


def run_all(site, *names):
    for name in names:
        site.stages[name].run(site.at(name))


def kill_after(iteration, site, name):
    """Let the process end between a step of a stage and what follows it."""
    after_step = Loop._after_step

    def break_down(loop):
        if loop.iteration == iteration:
            raise KilledError
        return after_step(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "_after_step", break_down)
        with pytest.raises(KilledError):
            run_all(site, name)


def last(site, name):
    return Checkpoint.load(site.run.path / name / "checkpoints" / "last.pt")


def digest(checkpoint):
    """Of weights, moving average and optimizer."""
    training = {name: checkpoint.training[name] for name in ("weights", "updates", "optimizer")}
    return checkpoint_digest(dataclasses.replace(checkpoint, training=training))


def test_a_schedule_in_two_stages_is_the_whole_one(content, tmp_path, here, one_thread):
    """Also where the second one is killed before its first checkpoint, and the run is moved then."""
    site = site_in(tmp_path / "run", content(whole={}, first={"until": 0.5}, second={"continues": "first"}))
    run_all(site, "whole", "first")
    assert last(site, "first").iteration == 5
    kill_after(7, site, "second")
    assert not (site.run.path / "second/checkpoints/last.pt").exists()
    assert "continues: ../first/checkpoints/last.pt" in (site.run.path / "second/recipe.yaml").read_text()
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    site.run.path.rename(moved)
    site = dataclasses.replace(site, run=RunFolder.open(moved))
    run_all(site, "second")
    assert last(site, "whole").iteration == 10
    assert digest(last(site, "second")) == digest(last(site, "whole")) != digest(last(site, "first"))
    assert site.stages["second"].is_done(site.at("second"))


@pytest.mark.slow
def test_progressive_shrinking_is_five_stages(content, tmp_path, here, one_thread):
    """Tables A1 and A2 of DetOFA in small: after the largest network, depths, then widths, then expansions."""
    every = {"width": [100], "expand": [35]}
    stages = {
        "fullnet": {"within": {"depth": [2], **every}},
        "depths": {"weights": "fullnet", "within": every},
        "two_widths": {"weights": "depths", "within": {"width": [80, 100], "expand": [35]}, "epochs": 0.1},
        "widths": {"weights": "two-widths", "within": {"expand": [35]}},
        "two_expansions": {"weights": "widths", "within": {"expand": [25, 35]}, "epochs": 0.1, "sort_channels": True},
        "expansions": {"weights": "two-expansions"},
    }
    (tmp_path / "detect.yaml").write_text(DETECT.replace("epochs: 1", "epochs: 0.2"))
    site = site_in(tmp_path / "run", content(**stages))
    check_stages(make_plan(parse_experiment(content(**stages), "x")), site.recipes, None)
    run_all(site, *(name.replace("_", "-") for name in stages))
    assert [last(site, name.replace("_", "-")).iteration for name in stages] == [2, 2, 1, 2, 1, 2]
    drawn = {}
    for name in ("fullnet", "depths", "two-widths", "expansions"):
        description = read_description(site.run.path / name)
        paths = make_paths(description.recipe, description)
        drawn[name] = np.stack([paths.draw(step) for step in range(40)])
    assert len(np.unique(drawn["fullnet"], axis=0)) == 1
    assert set(np.unique(drawn["depths"])) == {0, 1, 2, 35, 100}
    assert set(np.unique(drawn["two-widths"])) == {0, 1, 2, 35, 80, 100}
    assert {20, 25, 35, 65} <= set(np.unique(drawn["expansions"]))


def prune(folder, space, cost):
    """A file of a pruning that forbids one width, by a filter with random weights."""
    folder.mkdir()
    buckets = Buckets.spanning(space, "gmacs", 2, count=cost)
    PathFilter(space, buckets, FilterOptions(16, 1, 2), cost=cost).save(folder / "filter.pt")
    operation = PrunedOperation((("c2.width", 80),), 0.0, 0.0, 0, "pruned")
    pruned = Pruned("gmacs", buckets.edges, (operation,), (-1e9, None), folder / "filter.pt", {})
    write_pruned(folder / "pruned.json", space, pruned)
    return folder / "pruned.json"


@pytest.mark.slow
def test_paths_of_a_pruned_space_go_on_in_a_copy_of_the_run(content, tmp_path, here, log_lines, one_thread):
    space = OFAResNetSpace("tiny", image_hw=(64, 64))
    experiment = content(first={"until": 0.2}) | {"costs": "detector"}
    plan = parse_plan(experiment, "x")
    site = site_in(tmp_path / "run", experiment)
    inside = prune(site.run.path / "prune", space, plan.parts.cost)  # as a stage of the run would leave it
    experiment["stages"]["supernet"] = {
        "kind": "train", "of": "supernet", "continues": "first", "pruned": str(inside), "draw": "uniform"
    }  # fmt: skip
    site = site_in(site.run.path, experiment)
    run_all(site, "first")
    kill_after(7, site, "supernet")
    text = (site.run.path / "supernet/recipe.yaml").read_text()
    assert "pruned: ../prune/pruned.json" in text
    assert "draw: uniform" in text
    moved = tmp_path / "moved"
    site.run.path.rename(moved)
    site = dataclasses.replace(site, run=RunFolder.open(moved))
    run_all(site, "supernet")
    assert last(site, "supernet").iteration == 10
    description = read_description(moved / "supernet")
    paths = make_paths(description.recipe, description)
    rows = np.stack([paths.draw(step) for step in range(300)])
    assert np.array_equal(paths.filter.cost(rows)["gmacs"], plan.parts.cost(rows)["gmacs"])
    column = [gene.name for gene in space.genes].index("c2.width")
    assert set(rows[:, column]) == {65, 100}
    assert all(line["acceptance"] == 1 for line in log_lines(moved / "supernet"))
    assert "acceptance" not in log_lines(moved / "first")[0]


@pytest.fixture
def log_lines():
    def read(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if "loss" in line]

    return read


def test_a_coupled_space_is_trained_coupled(content, tmp_path):
    stages = content(supernet={})
    stages["space"] = {**SPACE, "coupled": True}
    site = site_in(tmp_path / "run", stages)
    recipe = site.recipes["supernet"]
    description = site.stages["supernet"]._trainings(site.at("supernet"))[0]
    paths = make_paths(recipe, dataclasses.make_dataclass("D", ["architecture"])(description.architecture))
    for step in range(20):
        row = paths.draw(step)
        for stage in paths.space.stages:
            assert row[stage.start + 1] == (65, 80, 100)[row[stage.start]]


def test_a_teacher_of_a_stage(content, tmp_path, here, log_lines, one_thread):
    classify = str(tmp_path / "classify.yaml")
    within = {"depth": [2], "width": [100], "expand": [35]}
    stages = {
        "fullnet": {"recipe": classify, "within": within, "epochs": 0.2},
        "supernet": {"recipe": classify, "weights": "fullnet", "distil": "fullnet", "epochs": 0.2},
    }
    site = site_in(tmp_path / "run", content(**stages))
    run_all(site, "fullnet", "supernet")
    assert set(log_lines(site.run.path / "fullnet")[0]["losses"]) == {"classes"}
    assert set(log_lines(site.run.path / "supernet")[0]["losses"]) == {"classes", "teacher"}
    assert "teacher: ../fullnet/checkpoints/last.pt" in (site.run.path / "supernet/recipe.yaml").read_text()
    assert last(site, "fullnet").model.keys() == last(site, "supernet").model.keys()
    assert supernet_of(last(site, "supernet").network()) is not None


def test_trainings_before_a_searched_one_hold_out_too(content):
    experiment = content(first={}, second={"weights": "first"}, other={})
    experiment |= {"holdout": 12, "evaluator": {"name": "path", "supernet": "second"}}
    recipes = resolve_recipes(parse_plan(experiment, "x"))
    assert {name: recipe.holdout for name, recipe in recipes.items()} == {"first": 12, "second": 12, "other": 0}


@pytest.mark.parametrize(("stages", "message"), [
    ({"a": {"until": 3}}, "stages.a: until 3 is beyond the schedule's 1 epoch. Lower it"),
    ({"a": {"until": 0}}, "until: Input should be greater than 0"),
    ({"a": {}, "b": {"continues": "a"}}, "stage b: continues: stage a has 1 epoch behind it, and this training ends "
     "after 1. Set `until` of the former one lower"),
    ({"a": {"until": 0.5}, "b": {"continues": "a", "epochs": 3}}, "stage b: continues: stage a was trained with "
     "schedule.epochs 1.0, and this training has 3.0. Set it alike"),
    ({"a": {"until": 0.5}, "b": {"continues": "a", "weights": "a"}}, "leave out weights, or continues"),
    ({"a": {"until": 0.5}, "b": {"continues": "a", "sort_channels": True}}, "leave out sort_channels, or continues"),
    ({"a": {"of": "random-1", "within": {"width": [80]}}}, "within is about the paths of a supernet"),
    ({"a": {"of": "random-1", "draw": "genes"}}, "draw is about the paths of a supernet"),
    ({"a": {"within": {"widht": [80]}}}, "stage a: within: space 'ofa-resnet' has no gene 'widht'"),
    ({"a": {"within": {"width": [90]}}}, "stage a: within: no gene 'width' can be 90"),
    ({"a": {"pruned": "nowhere/pruned.json"}}, "no file at"),
    ({"a": {}, "b": {"pruned": "a"}}, "stage 'a' gives architectures and a checkpoint; stages.b.pruned needs a "
     "restriction: a file"),
    ({"a": {}, "b": {"distil": "a"}}, "stages.b: distil is of classification"),
    ({"a": {"sort_channels": True, "of": "supernet", "draw": "geens"}}, "'geens' is not one of genes, uniform"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_is_written(content, stages, message):
    def check():
        plan = parse_plan(content(**stages), "x")
        check_stages(plan, resolve_recipes(plan), plan.resources)

    with pytest.raises(NasrayError) as caught:
        check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_spaces_have_no_channels_to_sort(content):
    experiment = content(a={"sort_channels": True})
    experiment["space"] = {"name": "shufflenet", "size": "small", "image_hw": [64, 64]}
    plan = parse_plan(experiment, "x")
    with pytest.raises(NasrayError, match="sort_channels is of supernets with elastic channels"):
        check_stages(plan, resolve_recipes(plan), plan.resources)


def test_networks_scaled_to_the_budget_are_trained_beside_random_ones(content, tmp_path):
    stages = content(others={"of": ["resnet18@budget", "random-2", "basic-tiny"], "repeats": 2})
    site = site_in(tmp_path / "run", {**stages, "budget": {"gmacs": 0.01}})
    plan = parse_plan({**stages, "budget": {"gmacs": 0.01}}, "x")
    check_stages(plan, site.recipes, plan.resources)
    stage = plan.stages["others"]
    (planned,) = (each for each in planned_stages(plan) if each.name == "others")
    assert planned.work.trainings == 8
    scaled = plan.parts.named("resnet18@budget")
    assert stage.names(plan.stages) == {scaled.id: "resnet18@budget", ARCHITECTURES["basic-tiny"].id: "basic-tiny"}
    trained = [training.architecture for training in stage._trainings(site.at("others"))]
    assert trained[::2] == [scaled, *plan.parts.random_architectures(2, 1), ARCHITECTURES["basic-tiny"]]
    with pytest.raises(NasrayError, match=r"unknown stage or architecture 'resnet19@budget'.* one @budget, or a path"):
        parse_plan(content(others={"of": ["resnet19@budget"]}), "x")


def test_the_plan_says_what_is_trained(content):
    stages = content(a={"until": 0.5}, b={"continues": "a", "within": {"width": [80, 100]}, "draw": "genes"})
    planned = {each.name: each for each in planned_stages(parse_plan(stages, "x"))}
    assert planned["a"].work.text.endswith("1 epoch of which it ends after 0.5")
    assert planned["b"].work.text.endswith("1 epoch; paths with width 80/100")
    assert planned["b"].takes == {"of": "supernet", "continues": "a"}
    assert load_plan("detnas-300m-tiny", ["--stages.supernet-train.draw", "genes"]).stages["supernet-train"].draw


def test_work_is_epochs_and_of_a_training_that_goes_on_what_the_one_before_left(content, tmp_path, monkeypatch):
    several = {"of": ["random-3"], "repeats": 2}
    stages = content(a={"until": 0.25}, b={"continues": "a"}, c=several, d={"of": "c"})
    site = site_in(tmp_path / "run", stages)
    first, second, third, fourth = (site.stages[name].effort(site.at(name)) for name in "abcd")
    assert [effort.total for effort in (first, second, third, fourth)] == [0.25, 0.75, 6, 1]
    assert first.like == second.like
    assert len({first.like, third.like, fourth.like}) == 3, "a supernet, six trainings at a time, one"
    monkeypatch.setattr(train, "num_places", lambda group: 1)  # here they follow one another
    assert len({site.stages[name].effort(site.at(name)).like for name in "cd"}) == 1
    for folder, epoch in (("b", 0.5), ("c/1-x/seed-0", 1), ("c/1-x/seed-1", 0.5)):
        (site.run.path / folder).mkdir(parents=True)
        (site.run.path / folder / "recipe.yaml").touch()
        (site.run.path / folder / "log.jsonl").write_text(f'{{"epoch": {epoch}}}\n')
    assert [site.stages[name].effort(site.at(name)).done for name in "abcd"] == [0, 0.25, 1.5, 0]
    elsewhere = site_in(tmp_path / "other", content(b={"continues": str(tmp_path / "x.pt")}))
    assert elsewhere.stages["b"].effort(elsewhere.at("b")) is None
