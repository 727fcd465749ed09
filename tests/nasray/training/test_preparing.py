import dataclasses

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.recipe import load_recipe
from nasray.spaces import NasrayError
from nasray.training.preparing import try_out, with_absolute_paths

RECIPE = load_recipe("shapes-detect-tiny")


def test_what_will_be_trained_is_described_without_writing_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    description = try_out(RECIPE)
    assert description.architecture == ARCHITECTURES["basic-tiny"]
    assert description.classes == ("rectangle", "circle", "triangle")
    given = ARCHITECTURES["shufflenetv2-20"]
    description = try_out(RECIPE, given)
    assert (description.architecture, description.recipe.backbone) == (given, given.id)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"), [({"data": "no/such.yaml"}, "no/such.yaml"), ({"weights": "no/such.pt"}, "no/such.pt")]
)
def test_what_does_not_go_together_is_refused(change, words):
    with pytest.raises(NasrayError, match=words):
        try_out(dataclasses.replace(RECIPE, **change))


def test_paths_are_absolute_and_what_is_no_path_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    changed = with_absolute_paths(dataclasses.replace(RECIPE, data="data", weights="x.pt"))
    assert (changed.data, changed.weights) == (str(tmp_path / "data"), str(tmp_path / "x.pt"))
    assert with_absolute_paths(RECIPE) == RECIPE
