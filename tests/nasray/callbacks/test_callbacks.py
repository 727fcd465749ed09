"""Callbacks by name and as functions."""

import pytest

from nasray.callbacks import CALLBACKS, make_callbacks
from nasray.experiment import parse_experiment
from nasray.loading import load_plan, parse_plan
from nasray.recipe import load_recipe, override_recipe
from nasray.spaces import NasrayError
from nasray.stages import resolve_recipes


class Board:
    """A callback that a package might register."""

    def __call__(self, event):
        """Hear an event."""


class Broken:
    """A callback whose package is not there."""

    def __init__(self):
        raise NasrayError("callback 'broken' needs the package board")


class Refused:
    """A callback whose package refuses its settings."""

    def __init__(self):
        raise OSError("no store\n at 'x'.")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, part in {"board": Board, "printer": print, "broken": Broken, "refused": Refused}.items():
        monkeypatch.setitem(CALLBACKS, name, part)


def test_names_and_functions_are_made():
    heard, others = [], []
    found = make_callbacks(["board", "printer"], ["board", heard.append, others.append, print])
    assert list(found) == ["board", "printer", "append", "append 2", "print"]
    assert isinstance(found["board"], Board)
    assert found["printer"] is found["print"] is print
    found["append 2"]("event")
    assert (heard, others) == ([], ["event"])


def test_one_that_cannot_be_made_stops_a_new_run_and_no_other(capsys):
    with pytest.raises(NasrayError, match=r"'refused' cannot be made: OSError: no store at 'x'\. Fix the cause"):
        make_callbacks(["refused"])
    with pytest.raises(NasrayError, match="needs the package board"):
        make_callbacks(["broken", "board"])
    assert list(make_callbacks(["broken", "board"], is_begun=True)) == ["board"]
    assert "callback broken is left out until the next `resume`: callback 'broken' needs" in capsys.readouterr().err


def test_experiments_and_recipes_name_them():
    plan = load_plan("maedet-tiny", ["--callbacks", "board", "printer"])
    assert plan.experiment.callbacks == ("board", "printer")
    assert override_recipe(load_recipe("cpu-scratch"), ["--callbacks", "board"]).callbacks == ("board",)
    assert load_plan("maedet-tiny").experiment.callbacks == load_recipe("cpu-scratch").callbacks == ()
    with pytest.raises(NasrayError, match=r"callbacks\.0: unknown callback 'bord'; did you mean 'board'\?"):
        parse_experiment({"name": "x", "callbacks": ["bord"]}, "x.yaml")


def test_a_recipe_of_a_run_has_none(tmp_path):
    (tmp_path / "detect.yaml").write_text("callbacks: [board]\n")
    content = {
        "name": "x", "recipe": str(tmp_path / "detect.yaml"),
        "stages": {"search": {"kind": "search"}, "train": {"kind": "train", "of": ["search"]}},
    }  # fmt: skip
    with pytest.raises(NasrayError, match="Move them to the experiment's key callbacks"):
        resolve_recipes(parse_plan(content, "x.yaml"))
