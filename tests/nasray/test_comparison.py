from __future__ import annotations

import json

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.comparison import Group, Training, compare, groups_of_folders, groups_of_run, verdict_sentence
from nasray.recipe import load_recipe
from nasray.searchers import RandomSearch
from nasray.spaces import NasrayError, ShuffleNetSpace
from tests.nasray.reports.common import write_run, write_training

SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", RandomSearch(SPACE, seed=0), 32, evaluator=lambda genes: genes.sum(axis=1) / 20)


def others(num):
    return [SPACE.to_architecture(row) for row in SPACE.sample(num, np.random.default_rng(8))]


def trainings(tmp_path, values):
    """Groups of trainings with these values: a name of an architecture to the values of its seeds."""
    folders = [
        write_training(tmp_path / f"{name}-{seed}", ARCHITECTURES[name], value, seed=seed)
        for name, of_name in values.items()
        for seed, value in enumerate(of_name)
    ]
    return groups_of_folders(folders)


@pytest.mark.parametrize(
    ("winner", "verdict", "words"),
    [
        (
            (0.50, 0.51, 0.52),
            "better",
            "resnet18 (3 trainings) is better than resnet34 (4 trainings): mAP 0.5100 against",
        ),
        ((0.30, 0.31, 0.32), "worse", "is worse than"),
        ((0.41, 0.39, 0.42), "cannot be told apart", "a difference of less than 0.0"),
    ],
)
def test_a_clear_win_a_clear_loss_and_no_difference(tmp_path, winner, verdict, words):
    result = compare(trainings(tmp_path, {"resnet18": winner, "resnet34": (0.40, 0.42, 0.38, 0.41)}))
    json.dumps(result, allow_nan=False)
    (found,) = result["comparisons"]
    assert found["verdict"] == verdict
    assert found["difference"] == pytest.approx(np.mean(winner) - 0.4025)
    assert words in verdict_sentence(result, found)
    assert result["groups"][0]["mean"] == pytest.approx(np.mean(winner))
    assert result["notes"] == []


def test_a_run_has_its_winner_its_random_ones_and_its_baselines(run):
    winner, path = run.read_entries()[0].architecture, run.path
    write_training(path / "train", winner, 0.50)
    write_training(path / "compare" / "winner" / winner.id / "seed-1" / "train", winner, 0.52, seed=1)
    for place, architecture in enumerate(others(3)):
        write_training(path / "rank" / "trainings" / architecture.id / "train", architecture, 0.40 + place / 100)
        write_training(path / "compare" / "random" / architecture.id / "seed-0" / "train", architecture, 0.1)
    resnet = ARCHITECTURES["resnet18"]
    for seed in range(2):
        write_training(path / "compare" / "resnet18" / resnet.id / f"seed-{seed}" / "train", resnet, 0.3, seed=seed)
    groups = {group.name: group for group in groups_of_run(run)}
    assert list(groups) == ["winner", "random", "resnet18"]
    assert groups["winner"].values == [0.50, 0.52]
    assert sorted(groups["random"].values) == pytest.approx([0.40, 0.41, 0.42]), "a seed of an architecture counts once"
    assert len(groups["resnet18"].trainings) == 2


def test_a_training_of_another_architecture_is_not_the_winners(run):
    write_training(run.path / "train", ARCHITECTURES["resnet18"], 0.5)
    assert groups_of_run(run) == []


def test_intervals_of_means_stay_within_what_map_can_be(tmp_path):
    result = compare(trainings(tmp_path, {"resnet18": [0.01, 0.05], "resnet34": [0.99, 0.95]}))
    assert result["groups"][0]["low"] == 0.0
    assert result["groups"][1]["high"] == 1.0


def test_single_trainings_are_compared_with_all_others_together(tmp_path):
    result = compare(
        trainings(tmp_path, {"resnet18": [0.9], "resnet34": [0.4], "resnet50": [0.42], "resnet101": [0.41]})
    )
    assert [(group["name"], group["num"]) for group in result["groups"]] == [("resnet18", 1), ("the others", 3)]
    (found,) = result["comparisons"]
    assert found["verdict"] == "better"
    two = compare(trainings(tmp_path / "two", {"resnet18": [0.9], "resnet34": [0.4]}))
    assert two["comparisons"][0]["verdict"] == "too few to tell"
    assert "so few trainings say nothing about chance" in verdict_sentence(two, two["comparisons"][0])


def test_two_recipes_of_one_architecture_are_two_groups(tmp_path):
    folders = [
        write_training(
            tmp_path / f"{size}-{seed}", ARCHITECTURES["resnet18"], 0.4 + size / 100, seed=seed, batch_size=size
        )
        for size in (4, 8)
        for seed in (0, 1)
    ]
    result = compare(groups_of_folders(folders))
    assert [(group["name"], group["num"]) for group in result["groups"]] == [(str(folders[0]), 2), (str(folders[2]), 2)]
    assert "batch_size 8 instead of 4" in result["notes"][0]
    assert compare(groups_of_folders([*folders, folders[0]])) == result, "one that is named twice counts once"


def test_runs_are_compared_by_their_winners(run, tmp_path):
    other = write_run(
        tmp_path / "other", RandomSearch(SPACE, seed=1), 32, evaluator=lambda genes: genes.sum(axis=1) / 20
    )
    for folder, value in ((run, 0.4), (other, 0.6)):
        for seed in range(3):
            winner = folder.read_entries()[0].architecture
            target = folder.path / "compare" / "winner" / winner.id / f"seed-{seed}" / "train"
            write_training(target, winner, value + seed / 100, seed=seed)
    (found,) = compare(groups_of_folders([run.path, other.path]))["comparisons"]
    assert (found["group"], found["with"], found["verdict"]) == (str(run.path), str(other.path), "worse")
    empty = write_run(
        tmp_path / "empty", RandomSearch(SPACE, seed=2), 32, evaluator=lambda genes: genes.sum(axis=1) / 20
    )
    with pytest.raises(NasrayError, match=r"no winner was trained in .*empty yet"):
        groups_of_folders([run.path, empty.path])


def test_of_figures_that_are_all_alike_nothing_is_said(tmp_path):
    result = compare(trainings(tmp_path, {"resnet18": [0.0, 0.0], "resnet34": [0.0, 0.0, 0.0]}))
    assert "figures that are all alike say nothing about chance" in verdict_sentence(result, result["comparisons"][0])


def test_of_several_architectures_each_counts_once():
    def training(architecture, seed, value):
        return Training(architecture, seed, value, None)

    several = Group("random", (training("a", 0, 0.1), training("a", 1, 0.3), training("b", 0, 0.5)))
    assert several.values == pytest.approx([0.2, 0.5])
    assert Group("winner", several.trainings[:2]).values == [0.1, 0.3]


def test_what_differs_between_recipes_is_named_once(tmp_path):
    one = write_training(tmp_path / "one", ARCHITECTURES["resnet18"], 0.5)
    more = [
        write_training(tmp_path / f"{seed}", ARCHITECTURES["resnet34"], 0.4, seed=seed, batch_size=32)
        for seed in range(3)
    ]
    (note,) = compare(groups_of_folders([one, *more]))["notes"]
    assert note == f"{more[0]} and 2 more were trained otherwise: batch_size 32 instead of 16"


def test_keys_of_parts_are_named_by_themselves_and_not_all_of_many(tmp_path):
    recipe = load_recipe("shapes-detect")
    parts = {name: getattr(recipe, name) for name in ("schedule", "optimizer", "augmentation", "detector")}
    one = write_training(tmp_path / "one", ARCHITECTURES["resnet18"], 0.5)
    other = write_training(tmp_path / "other", ARCHITECTURES["resnet34"], 0.4, schedule=parts["schedule"])
    (note,) = compare(groups_of_folders([one, other]))["notes"]
    assert f"schedule.epochs {recipe.schedule.epochs:.1f} instead of" in note
    assert note.startswith(f"{other} was trained otherwise")
    assert "{" not in note
    many = write_training(tmp_path / "many", ARCHITECTURES["resnet34"], 0.4, **parts)
    (note,) = compare(groups_of_folders([one, many]))["notes"]
    assert note.count(" instead of ") == 6
    assert note.endswith(" more")


def test_what_cannot_be_compared_is_refused(tmp_path):
    one = write_training(tmp_path / "one", ARCHITECTURES["resnet18"], 0.5)
    other = write_training(tmp_path / "other", ARCHITECTURES["resnet34"], 0.7, metric="top1")
    with pytest.raises(NasrayError, match="a classifier is not compared with a detector"):
        compare(groups_of_folders([one, other]))
    (one / "summary.json").unlink()
    with pytest.raises(NasrayError, match=r"not finished: `nasray resume .*one` continues it"):
        groups_of_folders([one])
    with pytest.raises(NasrayError, match="is no training"):
        groups_of_folders([tmp_path])
    never = write_training(tmp_path / "never", ARCHITECTURES["resnet18"], 0.5, metric="speed")
    with pytest.raises(NasrayError, match="was never validated"):
        groups_of_folders([never])
