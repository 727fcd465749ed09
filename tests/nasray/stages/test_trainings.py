"""Work of trainings, as their logs tell it."""

import dataclasses

import pytest

from nasray.recipe import Recipe
from nasray.stages.trainings import training_effort, training_folders


def begun(folder, log):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").touch()
    (folder / "log.jsonl").write_text(log)


def test_work_is_the_epochs_of_all_beyond_those_behind_them(tmp_path):
    begun(tmp_path / "1-a" / "seed-0", '{"epoch": 3.5}\n{"epoch": 4.0, "metrics": {}}\n')
    begun(tmp_path / "1-a" / "seed-1", '{"epoch": 2.25}\n{"epo')
    folders = training_folders(tmp_path)
    effort = training_effort(Recipe(name="any"), 20, [*folders, tmp_path / "2-b"], "supernet")
    assert (effort.done, effort.total, effort.unit) == (6.25, 20, "epochs")
    assert training_effort(Recipe(name="any"), 20, folders, "supernet", begin=3).done == 1


@pytest.mark.parametrize(
    ("change", "is_alike"),
    [({"seed": 3}, True), ({"weights": "a.pt"}, True), ({"batch_size": 2}, False), ({"data": "other"}, False)],
)
def test_epochs_of_like_trainings_take_the_same_time(change, is_alike):
    recipe = dataclasses.replace(Recipe(name="any"), seed=1)  # validated, as those that are read
    like = training_effort(recipe, 1, [], "supernet").like
    assert (training_effort(dataclasses.replace(recipe, **change), 1, [], "supernet").like == like) == is_alike
    assert training_effort(recipe, 1, [], "3").like != like
