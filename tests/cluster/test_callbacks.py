"""Callbacks of a session: what they hear, and what happens to one that raises."""

import pickle
from pathlib import Path

import pytest

from nasray.cluster.callbacks import (
    BatchEvent,
    LogEvent,
    StageEvent,
    as_lists,
    heard_by,
    is_heard,
    is_heard_alone,
    place,
    read_told,
    tell,
    told_stage,
    write_told,
)
from nasray.spaces import NasrayError

LINE = LogEvent("/run", "train", 3, {"iteration": 3, "losses": {"cls": 0.5}}, {"loss/cls": 0.5})
EVENTS = [
    StageEvent("/run", "search", "begin"),
    BatchEvent(
        "/run", "search", 2, 8, 0, ["a", "b"], {"score": [1.0, 2.0]}, {"gmacs": [3.0, 4.0]}, {"score/best": 2.0}
    ),
    LINE,
]


def test_all_callbacks_hear_all_events_in_order(tmp_path):
    one, other = [], []
    with heard_by({"one": one.append, "other": other.append}, tmp_path):
        assert is_heard()
        for event in EVENTS:
            tell(event)
    tell(LINE)
    assert not is_heard()
    assert one == other == EVENTS


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_can_be_pickled(event):
    assert pickle.loads(pickle.dumps(event)) == event


def test_one_that_raises_is_named_once_and_hears_nothing_more(tmp_path, capsys):
    heard, calls = [], []

    def board(event):
        calls.append(event)
        raise RuntimeError("no\nconnection")

    with heard_by({"board": board, "list": heard.append}, tmp_path):
        for event in EVENTS:
            tell(event)
    assert heard == EVENTS
    assert calls == EVENTS[:1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("callback board failed and is switched off until the next `resume`; the run goes on: ")
    assert line.endswith("RuntimeError: no connection")


def test_without_any_that_work_nobody_hears(tmp_path):
    with heard_by({"broken": lambda event: 1 / 0}, tmp_path):
        tell(LINE)
        assert not is_heard()


def test_an_interrupt_is_the_users(tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), heard_by({"slow": interrupt}, tmp_path):
        tell(LINE)
    assert not is_heard()


class Board:
    def __init__(self):
        self.heard, self.num_closed = [], 0

    def __call__(self, event):
        self.heard.append(event)

    def close(self):
        self.num_closed += 1


def test_what_a_callback_has_open_is_closed(tmp_path, capsys):
    board, broken = Board(), Board()
    broken.close = lambda: 1 / 0
    with pytest.raises(ValueError, match="the run's own"), heard_by({"broken": broken, "board": board}, tmp_path):
        raise ValueError("the run's own")
    assert board.num_closed == 1
    assert "callback broken failed" in capsys.readouterr().err


def test_a_training_within_a_run_is_heard_by_those_of_the_run(tmp_path):
    heard = []
    with heard_by({"list": heard.append}, tmp_path), heard_by({}, tmp_path / "train"):
        assert is_heard_alone(tmp_path)
        assert not is_heard_alone(tmp_path / "train")
        tell(LINE)
    assert heard == [LINE]


def test_where_something_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with heard_by({"list": print}, Path("run")):
        assert place(Path("run"), "search") == (str(tmp_path / "run"), "search")
        assert place(tmp_path / "run" / "train" / "1-ab", "training") == (str(tmp_path / "run"), "train/1-ab")


def test_a_stage_begins_and_ends(tmp_path):
    heard, run = [], str(tmp_path)
    with heard_by({"list": heard.append}, tmp_path):
        with told_stage(tmp_path, "train", is_begun=False) as figures:
            figures["mAP"] = 0.5
        with pytest.raises(NasrayError), told_stage(tmp_path, "prune", is_begun=True):
            raise NasrayError("disk full")
        with told_stage(tmp_path, "search", is_begun=True, is_done=True):
            pass
    assert heard == [
        StageEvent(run, "train", "begin"),
        StageEvent(run, "train", "end", {"mAP": 0.5}),
        StageEvent(run, "prune", "resume"),
        StageEvent(run, "prune", "stop", error="disk full"),
    ]


def test_how_far_is_kept(tmp_path):
    assert read_told(tmp_path) == 0
    write_told(tmp_path, 7)
    assert read_told(tmp_path) == 7
    (tmp_path / "told.json").write_text('{"told": "x"}')
    with pytest.raises(NasrayError, match="callbacks are then told everything once more"):
        read_told(tmp_path)
    write_told(tmp_path / "gone", 7)  # what cannot be written stops no run
    assert read_told(tmp_path / "gone") == 0


def test_columns_are_plain():
    import numpy as np

    (values,) = as_lists({"score": np.array([1, 2], dtype=np.float32)}).values()
    assert values == [1.0, 2.0]
    assert {type(value) for value in values} == {float}
