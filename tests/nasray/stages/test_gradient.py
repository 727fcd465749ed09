"""The stage that searches by gradient: what is refused, who wins, and that a killed search ends as one that was not."""

import dataclasses
import functools
import json
import math
import time
from contextlib import nullcontext

import pytest

from nasray.architectures import slots
from nasray.checkpoint import Checkpoint
from nasray.cluster import RunFolder
from nasray.cluster.halving import read_decisions
from nasray.cluster.training import Worker
from nasray.configuration import read_mapping
from nasray.data import open_data
from nasray.experiment import describe_experiment
from nasray.finding import find_part
from nasray.loading import load_plan, parse_plan, plan_of_run
from nasray.models.supernets.base import supernet_of
from nasray.spaces import NasrayError
from nasray.stages import (
    check_stages,
    planned_stages,
    resolve_recipes,
    run_stages,
    site_of,
    winner_stages,
    write_recipes,
)  # fmt: skip
from nasray.stages.gradient import Outcome, seed_folder, stopped_after
from nasray.subnets import has_supernet
from nasray.training import jobs, setup
from nasray.training.folder import last_checkpoint, read_description
from nasray.training.loop import Validation
from nasray.training.preparing import try_out
from tests.nasray.stages.test_run import kill_when, last_iteration, start

RECIPE = """
backbone: basic-tiny
batch_size: 4
evaluate_every: 0.5
log_every: 1
detector: {name: fcos, channels: 8}
augmentation: {short_side: [64], long_side: 64}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004, clip: 10}
schedule: {name: cosine, epochs: 1, milestones: [], warmup_iterations: 1}
resources: {workers: 1, gpus: 0, cpus: 1}
"""
SPACE = {"name": "fad", "channels": 4, "in_channels": 8, "cells": 1, "operations": "rf-5", "image_hw": [64, 64]}


@pytest.fixture
def content(tmp_path):
    """Two seeds of which one goes on after a third of the iterations; then the derived head is trained."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return {
        "name": "fad", "data": "shapes", "holdout": 152, "recipe": str(tmp_path / "recipe.yaml"), "space": SPACE,
        "stages": {
            "search": {"kind": "gradient", "seeds": 2, "alpha": {"learning_rate": 0.01}, "halving": {"rungs": [0.5]}},
            "train": {"kind": "train", "of": "search"},
        },
    }  # fmt: skip


def of(content, **changes):
    """The content with options of the stage `search` changed; None leaves one out."""
    own = {**content["stages"]["search"], **changes}
    own = {name: value for name, value in own.items() if value is not None}
    return {**content, "stages": {**content["stages"], "search": own}}


# ---- plans -------------------------------------------------------------------------------------------------------


def test_a_plan_needs_neither_searcher_nor_evaluator(content):
    plan = parse_plan(content, "test")
    assert plan.parts.searching is None
    assert plan.experiment.searcher is plan.experiment.evaluator is None
    search, train = planned_stages(plan)
    assert (search.kind, search.folder, search.gives) == ("gradient", ".", ("architectures", "checkpoint"))
    assert search.work.trainings == 2
    assert search.work.text.endswith("1 epoch; after 0.5 the best 50% of the seeds go on")
    assert (train.takes, train.work.trainings) == ({"of": "search"}, 1)
    assert winner_stages(plan) == ["train"]
    for ask in (lambda: plan.parts.searcher, lambda: plan.parts.evaluator):
        with pytest.raises(NasrayError, match=r"fad has no searcher and no evaluator: none of its stages is of kind"):
            ask()
    with pytest.raises(NasrayError, match="stage search of fad is of kind gradient, not search"):
        plan.search  # noqa: B018


def test_images_are_held_out_of_the_search_alone_and_the_recipe_keeps_its_weights(content):
    recipes = resolve_recipes(parse_plan(content, "test"))
    assert (recipes["search"].holdout, recipes["train"].holdout) == (152, 0)
    assert (recipes["search"].alpha.learning_rate, recipes["train"].alpha.learning_rate) == (0.01, None)
    assert resolve_recipes(parse_plan(of(content, alpha=None), "test"))["search"].alpha.learning_rate == 3e-4
    voc = resolve_recipes(load_plan("fad-voc"))
    assert [recipe.weights.rpartition("/")[2] for recipe in voc.values()] == ["resnet50-imagenet.pth"] * 2
    assert [recipe.data for recipe in voc.values()] == ["voc.yaml", "coco.yaml"]
    assert voc["search"].alpha == dataclasses.replace(voc["search"].alpha, learning_rate=3e-4, betas=(0.5, 0.999))


@pytest.mark.parametrize(("changes", "message"), [
    ({"evaluations": 10}, "evaluations is of stages of kind search, and there is none: search (gradient), train"),
    ({"searcher": {"name": "random"}}, "searcher is of stages of kind search"),
    ({"evaluator": {"name": "entropy"}}, "evaluator is of stages of kind search"),
    ({"minimize": ["gmacs"]}, "minimize is of stages of kind search"),
    ({"supernet": {"sharde": False}}, "supernet 'fad' has no option 'sharde'; did you mean 'shared'?"),
    ({"space": {"name": "bottleneck"}}, "there is no supernet of space 'bottleneck'"),
    ({"seeds": 1}, "halving compares seeds, and there is one"),
    ({"halving": {"rungs": []}}, "rungs are epochs that ascend"),
    ({"halving": {"rungs": [0.5], "keep": 0}}, "keep"),
    ({"warm_up": 1}, "stage 'gradient' has no option 'warm_up'"),
    ({"alpha": {"rate": 1}}, "has no option 'rate'"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_when_it_is_planned(content, changes, message):
    own = {name: value for name, value in changes.items() if name in ("seeds", "halving", "warm_up", "alpha")}
    with pytest.raises(NasrayError) as caught:
        parse_plan({**of(content, **own), **{key: changes[key] for key in changes.keys() - own.keys()}}, "test")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("changes", "message"), [
    ({"rungs": [1.0]}, "halving.rungs: 1 is not before the end after 1 epoch"),
    ({"rungs": [0.3]}, "halving.rungs: there is no validation after 0.3 epochs; there is one every 0.5"),
])  # fmt: skip
def test_rungs_are_validations_before_the_end(content, changes, message):
    with pytest.raises(NasrayError, match=message):
        resolve_recipes(parse_plan(of(content, halving=changes), "test"))


def test_work_is_the_epochs_of_all_seeds_fewer_after_a_rung(content, tmp_path):
    plan, run = begun(content, tmp_path / "run")
    site = site_of(run, plan)
    assert plan.stages["search"].effort(site).total == 2 * 0.5 + 1 * 0.5
    (run.path / "seeds" / "1").mkdir(parents=True)
    (run.path / "seeds" / "1" / "log.jsonl").write_text('{"epoch": 0.25}\n')
    assert plan.stages["search"].effort(site).done == 0.25
    plan, run = begun(of(content, halving=None), tmp_path / "whole")
    assert plan.stages["search"].effort(site_of(run, plan)).total == 2


def test_options_of_the_supernet_are_of_stages_that_train_one(content):
    with pytest.raises(NasrayError, match="supernet is of stages that train one, and there is none"):
        parse_plan({"name": "x", "supernet": {"shared": False}}, "test")
    plan = parse_plan({**content, "supernet": {"shared": False, "decouple": True}}, "test")
    architecture = plan.stages["search"].supernet
    assert architecture.spec["supernet"] == {"shared": False}, "what is a default makes no difference"
    assert parse_plan({**content, "supernet": {"shared": True}}, "test").stages["search"].supernet.spec == {
        "space": "fad", "groups": 2, "channels": 4, "cells": 1, "operations": "rf-5",
    }  # fmt: skip
    described = try_out(resolve_recipes(plan)["search"], architecture)
    network = setup.fresh_network(described.recipe, described)
    streams = supernet_of(network).cells["box"].edges[0].mixture.streams
    assert {type(stream).__name__ for stream in streams.values()} == {"SeparateStream"}


def test_a_search_needs_images_that_are_held_out(content):
    plan = parse_plan({**content, "holdout": 0}, "test")
    with pytest.raises(NasrayError, match=r"stage search: alpha moves on images that .*: set holdout, such as to half"):
        check_stages(plan, resolve_recipes(plan), plan.resources)


def test_shipped_experiments_are_planned():
    tiny = dict.fromkeys(("fad-tiny", "fad-tiny-retinanet", "fad-tiny-mask"), 2)
    for name, seeds in {"fad-voc": 4, "fad-laptop": 3, **tiny}.items():
        planned = planned_stages(load_plan(name))
        assert [(each.name, each.kind) for each in planned[:2]] == [("search", "gradient"), ("train", "train")]
        assert planned[0].work.trainings == seeds

    for name in ("fad-random", "fad-laptop-evolution"):
        planned = {each.name: each for each in planned_stages(load_plan(name))}
        assert planned["search"].takes == {"evaluator.supernet": "supernet"}
        assert planned["train"].takes == {"of": "search"}


# ---- who wins ----------------------------------------------------------------------------------------------------


def outcome(seed, mean_ap, collapse=None, stopped_after=None):
    return Outcome(seed, {}, mean_ap, collapse, stopped_after)


def test_the_highest_map_wins_unless_its_search_has_collapsed_or_was_stopped():
    found = [
        outcome(0, 0.9, collapse="none has 0.60 of an average edge"),
        outcome(1, 0.2),
        outcome(2, 0.3),
        outcome(3, 0.3),
        outcome(4, 0.8, stopped_after=2.0),
        outcome(5, 0.95, collapse="a is on 12 of 12 edges", stopped_after=2.0),
        outcome(6, math.nan),
    ]
    assert [each.seed for each in sorted(found, key=lambda each: each.rank)] == [2, 3, 1, 6, 4, 0, 5]


# ---- as a run ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """A session that is killed."""


def first_weight(network):
    """A validation that takes no time, and says which network it was given."""
    return Validation({"mAP": float(next(network.parameters()).flatten()[0].abs())}, {})


@pytest.fixture
def in_turn(monkeypatch):
    """Trainings in this process, several in turn, up to a validation each; killed after some of these."""
    places, deadline = {"num": 1}, {"validations": math.inf}

    def run_jobs(given, folder, *, group):
        del group
        left = [job for job in given if job.result(folder / job.label) is None]
        running = {}
        while left or running:
            while left and len(running) < places["num"]:
                job = left.pop()
                running[job.label] = job.train(folder / job.label, Worker())
            for label in list(running):
                if next(running[label], None) is None:
                    del running[label]
                    continue
                deadline["validations"] -= 1
                if not deadline["validations"]:
                    for training in running.values():
                        training.close()
                    raise Killed
        return {job.label: dict(job.result(folder / job.label)) for job in given}

    monkeypatch.setattr(jobs, "run_jobs", run_jobs)
    monkeypatch.setattr(setup, "open_data", functools.cache(open_data))
    monkeypatch.setattr(setup, "make_validation", lambda *_: first_weight)

    def finish(recipe, folder, architecture):
        jobs.train_here(recipe, folder, architecture)
        return json.loads((folder / "summary.json").read_text())

    monkeypatch.setattr("nasray.stages.train.finish_training", finish)
    return places, deadline


def begun(content, folder):
    plan = parse_plan(content, "test")
    run = RunFolder.create(folder, describe_experiment(plan.experiment))
    write_recipes(run, resolve_recipes(plan))
    return plan, run


def kept(folder):
    files = ("best.json", "halving.json", "seeds/0/rungs.json", "seeds/1/rungs.json")
    return {name: (folder / name).read_bytes() for name in files}


def searched(plan, run):
    """Run the stage `search` alone, as `run_stages` does."""
    site = site_of(run, plan)
    return plan.stages["search"].run(site)


def test_a_search_ends_with_a_derived_head_for_each_seed_however_it_is_interrupted(content, tmp_path, in_turn):
    places, deadline = in_turn
    plan, run = begun(content, tmp_path / "whole")
    result = searched(plan, run)
    best = run.read_best()
    assert best["finished"]
    assert best["evaluations"] == len(best["best"]) == 2
    assert best["cost_scope"]["scope"] == "head"
    assert best["choices"] == ["standard-1", "standard-2", "separable-1", "separable-2", "none"]
    winner, other = best["best"]
    assert result == {"id": winner["id"], "mAP": winner["metrics"]["mAP"], "seed": winner["seed"]}
    assert (winner["stopped_after"], other["stopped_after"]) == (None, 0.5)
    assert winner["costs"]["gmacs"] > 0
    assert [len(edge) for edge in winner["shares"]["box"]] == [5] * 9
    assert stopped_after(run.path, other["seed"]) == 0.5
    (decision,) = read_decisions(run.path)
    assert decision["left"] == [f"seeds/{winner['seed']}"]
    # Each seed has its own weights, and the same images held out.
    recipes = [read_description(seed_folder(run.path, seed)).recipe for seed in (0, 1)]
    assert [recipe.seed for recipe in recipes] == [0, 1]
    assert {recipe.split_seed for recipe in recipes} == {0}
    # What it gives: the checkpoint of the winner, its head to whoever names the run.
    site = site_of(run, plan)
    checkpoint = Checkpoint.load(site.checkpoint("search"))
    assert site.checkpoint("search") == last_checkpoint(seed_folder(run.path, winner["seed"]))
    assert checkpoint.metrics["mAP"] == winner["metrics"]["mAP"]
    network = checkpoint.network()
    derived = supernet_of(network).space.to_architecture(supernet_of(network).derive())
    assert derived.id == winner["id"] == find_part(str(run.path), "head").id
    assert not has_supernet(run.path)
    assert plan_of_run(run).experiment == plan.experiment
    # Two at a time; killed after the first validation of all, then after the last before the end.
    places["num"], deadline["validations"] = 2, 1
    plan, run = begun(content, tmp_path / "killed")
    with pytest.raises(Killed):
        searched(plan, run)
    deadline["validations"] = 2
    with pytest.raises(Killed):
        searched(plan, run)
    assert not plan.stages["search"].is_done(site_of(run, plan))
    deadline["validations"] = math.inf
    searched(plan, run)
    assert kept(run.path) == kept(tmp_path / "whole")
    begin = time.monotonic()
    assert searched(plan, run) == result
    assert time.monotonic() - begin < 5, "what is done is not done again"


@pytest.mark.slow
def test_the_derived_head_is_trained(content, tmp_path, in_turn, monkeypatch):
    one = of(content, seeds=1, halving=None)
    one["stages"] = {**one["stages"], "train": {"kind": "train", "of": "search", "weights": "search"}}
    plan, run = begun(one, tmp_path / "run")
    site = site_of(run, plan)
    monkeypatch.setattr("nasray.stages.run.ray_session", lambda resources: nullcontext())
    done = run_stages(plan, run, plan.resources)
    assert list(done["stages"]) == ["search", "train"]
    description = read_description(site.at("train").folder)
    assert slots(description.architecture)["head"].id == done["best"][0]["id"]
    assert description.recipe.weights.endswith("seeds/0/checkpoints/last.pt")
    assert description.recipe.holdout == 0


# ---- the experiment as a user runs it ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fad_tiny_killed_in_each_stage_ends_with_the_same_bytes(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    process = start(["search", "fad-tiny", "--folder", whole])
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output
    process = start(["search", "fad-tiny", "--folder", folder])
    kill_when(process, lambda: last_iteration(seed_folder(folder, 0)) >= 20, seconds=900)
    process = start(["resume", folder])
    kill_when(process, lambda: last_iteration(folder / "train") >= 20, seconds=900)
    process = start(["resume", folder])
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output
    for name in ("best.json", "halving.json", "train/summary.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    stages = read_mapping(folder / "stages.json")
    assert [record["sessions"] for record in stages.values()] == [2, 2]
