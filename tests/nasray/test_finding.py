"""What a user names an architecture by."""

import pytest
import torch

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.finding import find_architecture
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.folder import Description, create_folder

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
