from __future__ import annotations

import dataclasses

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.baselines import comparison_recipes, missing_trainings, train_alike
from nasray.comparison import compare, groups_of_run
from nasray.experiment import describe_experiment
from nasray.loading import load_plan
from nasray.spaces import NasrayError
from nasray.stages import without
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
