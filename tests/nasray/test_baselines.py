from __future__ import annotations

import dataclasses

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.baselines import comparison_recipes, missing_trainings, train_alike
from nasray.comparison import compare, groups_of_folders, groups_of_run
from nasray.experiment import describe_experiment
from nasray.loading import load_plan, parse_plan, plan_of_run
from nasray.spaces import NasrayError
from nasray.stages import without
from nasray.stages.plan import resolve_recipes
from nasray.training import jobs
from nasray.training.jobs import StagedTraining
from tests.nasray.reports.common import RECIPE, write_run, write_training


@pytest.fixture
def plan():
    """A space of tiny networks with a budget, and nothing that is trained before or after the search."""
    whole = load_plan("detnas-300m-tiny", ["--evaluator.name", "synflow"])
    return without(whole, [name for name in whole.stages if name != "search"])


@pytest.fixture
def run(tmp_path, plan):
    score = lambda genes: genes.sum(axis=1) / 20  # noqa: E731
    return write_run(tmp_path / "run", plan.parts.searcher, 24, describe_experiment(plan.experiment), evaluator=score)


def winner(run):
    return run.read_entries()[0].architecture


def finish(run, training, value=0.4):
    write_training(run.path / "compare" / training.label / "train", training.architecture, value, seed=training.seed)


def test_only_what_is_missing_is_trained(run):
    write_training(run.path / "train", winner(run), 0.5, seed=7)
    named = {"resnet18": ARCHITECTURES["resnet18"]}
    missing = missing_trainings(run, 7, named, 3, 2, seed=0)
    assert [(training.label.split("/")[0], training.seed) for training in missing] == [
        ("winner", 8), ("resnet18", 7), ("resnet18", 8), ("random", 7), ("random", 7), ("random", 7),
    ]  # fmt: skip
    assert missing[0].architecture == winner(run)
    assert missing[0].label == f"winner/{winner(run).id}/seed-8"
    # However many are done, the others are the same ones: an interrupted comparison goes on.
    for index in (0, 4, 1):
        finish(run, missing[index])
    assert missing_trainings(run, 7, named, 3, 2, seed=0) == [missing[2], missing[3], missing[5]]
    for index in (2, 3, 5):
        finish(run, missing[index])
    assert missing_trainings(run, 7, named, 3, 2, seed=0) == []
    # More of them are further ones.
    (more,) = missing_trainings(run, 7, named, 4, 2, seed=0)
    assert more.architecture not in [training.architecture for training in missing]
    assert {group.name: len(group.trainings) for group in groups_of_run(run)} == {
        "winner": 2,
        "random": 3,
        "resnet18": 2,
    }


def test_what_rank_trained_counts(run, plan):
    write_training(run.path / "train", winner(run), 0.5)
    first, second = plan.parts.random_architectures(2, 0)
    write_training(run.path / "rank" / "trainings" / first.id / "train", first, 0.4)
    (missing,) = missing_trainings(run, 0, {}, 2, 1, seed=0)
    assert missing.architecture == second


def test_everything_is_trained_like_the_winner_or_by_a_recipe(run):
    with pytest.raises(NasrayError, match="does not say how its winner is trained"):
        comparison_recipes(run)
    assert comparison_recipes(run, "shapes-detect")["train"].name == "shapes-detect"
    write_training(run.path / "train", winner(run), 0.5, batch_size=4)
    recipe = dataclasses.replace(RECIPE, backbone=winner(run).id, batch_size=4)
    assert comparison_recipes(run) == {"train": recipe}


def test_a_winner_trained_from_weights_of_its_own_is_no_measure(run):
    write_training(run.path / "train", winner(run), 0.5, weights="/some/last.pt")
    with pytest.raises(NasrayError, match=r"was trained from weights, /some/last.pt, which others do not have"):
        comparison_recipes(run)


STAGES = {
    "teacher": {"kind": "train", "of": ["basic-tiny"]},
    "search": {"kind": "search"},
    "begin": {"kind": "train", "of": "search", "until": 3, "distil": "teacher"},
    "train": {"kind": "train", "of": "search", "continues": "begin", "distil": "teacher"},
}


def staged_run(folder, monkeypatch, budget=None, **changes):
    """A run whose winner is trained in two stages, with a teacher."""
    content = {
        "name": "n", "evaluations": 2, "recipe": "shapes-classify-tiny", "evaluator": {"name": "synflow"},
        "space": {"name": "shufflenet", "stem_width": 8, "widths": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
        "searcher": {"name": "random"}, "stages": STAGES | changes, "budget": budget or {},
    }  # fmt: skip
    plan = parse_plan(content, "test")
    recipes = resolve_recipes(plan)
    monkeypatch.setattr("nasray.stages.run.read_recipes", lambda run, plan: recipes)
    run = write_run(
        folder, plan.parts.searcher, 2, describe_experiment(plan.experiment), evaluator=lambda genes: genes[:, 0] * 1.0
    )
    (run.path / "teacher" / "checkpoints").mkdir(parents=True)
    (run.path / "teacher" / "checkpoints" / "last.pt").touch()
    return run, recipes


def test_others_go_on_and_learn_from_the_teacher_as_the_winner_does(tmp_path, monkeypatch):
    run, resolved = staged_run(tmp_path / "run", monkeypatch)
    recipes = comparison_recipes(run)
    assert list(recipes) == ["begin", "train"]
    assert recipes["begin"].schedule.until == 3
    assert recipes["train"].schedule == resolved["train"].schedule
    teacher = str(run.path / "teacher" / "checkpoints" / "last.pt")
    assert {recipe.distil.teacher for recipe in recipes.values()} == {teacher}
    trained = []
    monkeypatch.setattr(jobs, "train_all", lambda all_jobs, folder: trained.extend(all_jobs))
    monkeypatch.setattr(jobs, "read_summary", lambda folder: {})
    jobs.train_in_stages([StagedTraining("a", winner(run), 7)], recipes, tmp_path)
    assert [(job.recipe.weights, job.recipe.continues, job.recipe.seed) for job in trained] == [
        (None, None, 7),
        (None, str(tmp_path / "a" / "begin" / "checkpoints" / "last.pt"), 7),
    ]


def test_a_winner_that_begins_with_what_others_do_not_have_is_no_measure(tmp_path, monkeypatch):
    begin = {"kind": "train", "of": "search", "weights": "some.pt"}
    run, _ = staged_run(tmp_path / "run", monkeypatch, begin=begin, train={"kind": "train", "of": "search"})
    with pytest.raises(NasrayError, match=r"stage begin of .* from what .*some\.pt has, which others do not have"):
        comparison_recipes(run)


def test_what_each_goes_on_with_is_no_difference(tmp_path):
    folders = [
        write_training(tmp_path / name, ARCHITECTURES[name], 0.5, continues=continues)
        for name, continues in (("resnet18", "/a/last.pt"), ("resnet34", "/b/last.pt"), ("resnet50", None))
    ]
    assert compare(groups_of_folders(folders[:2]))["notes"] == []
    (note,) = compare(groups_of_folders(folders))["notes"]
    assert "continues False instead of True" in note


def test_baselines_of_a_stage_are_groups_by_the_names_that_it_gives_them(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.json"
    file.write_text(ARCHITECTURES["resnet34"].text)
    others = {"kind": "train", "of": ["resnet18@budget", str(file), "random-1"], "recipe": "shapes-classify-tiny"}
    run, _ = staged_run(tmp_path / "run", monkeypatch, others=others, budget={"gmacs": 0.04})
    plan = plan_of_run(run)
    trained = {
        "winner": winner(run),
        "resnet18@budget": plan.parts.named("resnet18@budget"),
        str(file): ARCHITECTURES["resnet34"],
        "random": plan.parts.random_architectures(1, 1)[0],
    }
    for place, architecture in enumerate(trained.values()):
        folder = "train" if place == 0 else f"others/{place}-{architecture.id}"
        write_training(run.path / folder, architecture, 0.5)
    assert {group.name: group.trainings[0].architecture for group in groups_of_run(run)} == {
        name: architecture.id for name, architecture in trained.items()
    }
    file.unlink()  # what was trained of it is still there, and so is the comparison
    capsys.readouterr()
    counts = {group.name: len(group.trainings) for group in groups_of_run(run)}
    assert counts == {"winner": 1, "resnet18@budget": 1, "random": 2}
    assert f"what was trained of {file} is taken for a random architecture" in capsys.readouterr().err


def test_a_baseline_that_there_is_not_is_refused_before_anything_is_trained(run):
    with pytest.raises(NasrayError, match="unknown architecture 'resnet500'"):
        train_alike(run.path, baselines=["resnet500"], recipe="shapes-detect-tiny")
    assert not (run.path / "compare").exists()


@pytest.mark.slow
def test_a_winner_is_trained_with_random_ones_and_compared(run):
    train_alike(run.path, num_random=2, repeats=2, recipe="shapes-detect-tiny")
    groups = groups_of_run(run)
    assert [(group.name, len(group.trainings)) for group in groups] == [("winner", 2), ("random", 2)]
    result = compare(groups)
    assert result["notes"] == []
    assert result["comparisons"][0]["low"] is not None
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    train_alike(run.path, num_random=2, repeats=2, recipe="shapes-detect-tiny")
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
