"""What a user names an architecture by."""

import pytest
import torch

from nasray.architectures import ARCHITECTURES, compose
from nasray.checkpoint import Checkpoint
from nasray.finding import find_architecture, find_part, recipe_architecture
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.folder import Description, create_folder
from tests.nasray.models.detectors.toys import HEAD, PYRAMID, toys  # noqa: F401

TINY = ARCHITECTURES["basic-tiny"]


def test_names_files_trainings_and_checkpoints(tmp_path):
    assert find_architecture("resnet50") is ARCHITECTURES["resnet50"]
    (tmp_path / "a.json").write_text(TINY.text)
    create_folder(tmp_path / "trained", Description(Recipe(name="x"), TINY, ("a",), (1,)))
    Checkpoint(Recipe(name="x"), TINY, ("a",), (1,), {"w": torch.zeros(1)}).save(tmp_path / "x.pt")
    for name in ("a.json", "trained", "x.pt"):
        assert find_architecture(str(tmp_path / name)) == TINY


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"unknown architecture 'resnet51'; did you mean 'resnet50'\?"),
        ("nothing.json", "nothing.json not found"),
        ("runs/nothing", "runs/nothing not found"),
        ("", "it is empty"),
    ],
)
def test_what_is_none_of_these_is_one_message(name, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NasrayError, match=message):
        find_architecture(name)


@pytest.fixture
def files(tmp_path, toys, monkeypatch):  # noqa: F811
    """JSON files in the working folder: a head, a pyramid, a backbone with a head."""
    monkeypatch.chdir(tmp_path)
    both = compose({"backbone": TINY, "head": HEAD})
    for name, architecture in (("head", HEAD), ("pyramid", PYRAMID), ("both", both)):
        (tmp_path / f"{name}.json").write_text(architecture.text)
    return both


def test_the_part_in_a_slot(files):
    assert find_part("both.json", "head") == find_part("head.json", "head") == HEAD
    assert find_part("both.json", "backbone") == TINY
    with pytest.raises(NasrayError, match=r"pyramid.json is a pyramid, not a head. Name a head"):
        find_part("pyramid.json", "head")
    with pytest.raises(NasrayError, match=r"both.json is a backbone and a head, not a pyramid"):
        find_part("both.json", "pyramid")


def test_a_recipe_names_backbone_and_head(files):
    assert recipe_architecture(Recipe(name="x", backbone="basic-tiny")) == TINY
    assert recipe_architecture(Recipe(name="x", backbone="basic-tiny", head="head.json")) == files
    assert recipe_architecture(Recipe(name="x", backbone="both.json")) == files
    assert recipe_architecture(Recipe(name="x", backbone="pyramid.json")) == PYRAMID
    with pytest.raises(NasrayError, match=r"backbone head.json is a head: name it with --head"):
        recipe_architecture(Recipe(name="x", backbone="head.json"))


def test_what_is_given_takes_the_place_of_what_a_recipe_names(files):
    recipe = Recipe(name="x", backbone="resnet18", head="head.json")
    assert recipe_architecture(recipe, TINY) == files
    assert recipe_architecture(Recipe(name="x", backbone="basic-tiny"), HEAD) == files
    assert recipe_architecture(recipe, files) == files
    assert recipe_architecture(Recipe(name="x"), PYRAMID) == PYRAMID
