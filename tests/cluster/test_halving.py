"""Synchronous halving: who goes on depends on scores alone, whatever runs first and wherever it is interrupted."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasray.cluster.halving import HALVING, Halving, read_decisions, run_halving, survivors
from nasray.spaces import NasrayError

from . import common

DRIVE = Path(__file__).with_name("drive_halving.py")
LABELS = ["seeds/0", "seeds/1", "seeds/2", "seeds/3"]


class Lost(BaseException):
    """A session that is killed."""


class Trainings:
    """Trainings whose score at a rung is a table's; `places` run at a time, the fastest first, whatever they are."""

    def __init__(self, scores, places, kill_at=None):
        self.scores, self.places, self.kill_at, self.calls = scores, places, kill_at, []

    def __call__(self, labels, rung):
        if self.kill_at == (rung or "end"):
            raise Lost
        self.calls.append((list(labels), rung))
        order = sorted(labels, key=lambda label: (LABELS.index(label) // self.places, -ord(label[-1])))
        return {label: self.scores[label][rung] for label in order} if rung else {}


def table(*rows):
    return {label: {2.0: row[0], 4.0: row[1]} for label, row in zip(LABELS, rows, strict=True)}


SCORES = table((0.1, 0.9), (0.3, 0.2), (0.3, 0.4), (0.2, 0.8))
TWO = Halving(rungs=(2.0, 4.0))


def test_the_best_share_goes_on_and_of_equal_ones_the_earlier():
    assert survivors({"a": 0.1, "b": 0.3, "c": 0.3, "d": 0.2}, 0.5) == ["b", "c"]
    assert survivors({"a": 0.3, "b": 0.3, "c": 0.3}, 0.34) == ["a"]
    assert survivors({"a": 0.1, "b": 0.2, "c": 0.3}, 0.5) == ["b", "c"], "half of three are two"
    assert survivors({"a": math.nan, "b": 0.0, "c": math.nan}, 0.67) == ["a", "b"]
    assert survivors({"a": 0.1, "b": 0.2}, 0.01) == ["b"]


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, math.nan]), min_size=1, max_size=7), st.floats(0.01, 1), st.randoms())
@settings(max_examples=60, deadline=None)
def test_survivors_are_the_best_by_brute_force(values, keep, random):
    scores = {f"{place}": value for place, value in enumerate(values)}
    left = survivors(scores, keep)
    assert left == sorted(left, key=int)
    assert len(left) == max(1, math.floor(keep * len(values) + 0.5))

    def value(label):
        return -math.inf if math.isnan(scores[label]) else scores[label]

    for one in left:
        for other in scores.keys() - set(left):
            assert value(one) > value(other) or (value(one) == value(other) and int(one) < int(other))


@pytest.mark.parametrize("places", [1, 2, 4])
def test_survivors_do_not_depend_on_how_many_run_at_a_time(tmp_path, places):
    run = Trainings(SCORES, places)
    assert run_halving(LABELS, TWO, tmp_path, run) == ["seeds/2"]
    assert run.calls == [(LABELS, 2.0), (["seeds/1", "seeds/2"], 4.0), (["seeds/2"], None)]
    assert [entry["left"] for entry in read_decisions(tmp_path)] == [["seeds/1", "seeds/2"], ["seeds/2"]]


def test_all_come_to_the_end_without_rungs(tmp_path):
    run = Trainings(SCORES, 4)
    assert run_halving(LABELS, None, tmp_path, run) == LABELS
    assert run.calls == [(LABELS, None)]
    assert not (tmp_path / HALVING).exists()


@pytest.mark.parametrize("kill_at", [2.0, 4.0, "end"])
def test_a_search_that_is_killed_at_a_rung_decides_alike(tmp_path, kill_at):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    run_halving(LABELS, TWO, tmp_path / "whole", Trainings(SCORES, 4))
    with pytest.raises(Lost):
        run_halving(LABELS, TWO, tmp_path / "killed", Trainings(SCORES, 4, kill_at))
    again = Trainings(SCORES, 1)
    assert run_halving(LABELS, TWO, tmp_path / "killed", again) == ["seeds/2"]
    assert (tmp_path / "killed" / HALVING).read_bytes() == (tmp_path / "whole" / HALVING).read_bytes()
    left = {2.0: [2.0, 4.0, None], 4.0: [4.0, None], "end": [None]}[kill_at]
    assert [rung for _, rung in again.calls] == left, "what was decided is not asked for again"


def test_a_decision_is_on_disk_before_it_is_acted_on(tmp_path):
    """What is decided stays, whatever scores would be found now."""

    def run_to(labels, rung):
        if rung != 2.0:
            assert read_decisions(tmp_path)[-1]["left"] == list(labels)
        return {label: SCORES[label][rung] for label in labels} if rung else {}

    run_halving(LABELS, TWO, tmp_path, run_to)
    others = Trainings(table((9, 9), (0, 0), (0, 0), (0, 0)), 4)
    assert run_halving(LABELS, TWO, tmp_path, others) == ["seeds/2"]


def test_decisions_of_others_and_damaged_ones_are_refused(tmp_path):
    run_halving(LABELS, TWO, tmp_path, Trainings(SCORES, 4))
    with pytest.raises(NasrayError, match=r"halving.json is of other trainings. Restore it"):
        run_halving(LABELS[:3], TWO, tmp_path, Trainings(SCORES, 4))
    (tmp_path / HALVING).write_text('{"rungs": [{"epochs": 2.0}]}')
    with pytest.raises(NasrayError, match=r"halving.json is not as nasray wrote it: .*Remove it: the trainings know"):
        run_halving(LABELS, TWO, tmp_path, Trainings(SCORES, 4))


def test_rungs_ascend():
    for rungs in ((), (4.0, 2.0), (2.0, 2.0)):
        with pytest.raises(NasrayError, match="rungs are epochs that ascend"):
            Halving(rungs)


# ---- on Ray ------------------------------------------------------------------------------------------------------


def driven(folder, places):
    return subprocess.Popen(
        [sys.executable, str(DRIVE), str(folder), str(places)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def kept(folder):
    files = [folder / HALVING, *sorted(folder.glob("seeds/*/state.json")), *sorted(folder.glob("seeds/*/summary.json"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_survivors_are_the_same_with_one_two_and_four_at_a_time_and_killed_at_every_rung(tmp_path):
    found = {}
    for places in (1, 2, 4):
        process = driven(tmp_path / f"{places}", places)
        output, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert json.loads(output) == ["seeds/2"]
        found[places] = kept(tmp_path / f"{places}")
    assert found[1] == found[2] == found[4]
    assert len(found[1]) == 6, "four states, a summary, and the decisions"
    # Killed while trainings are on their way to the first rung, the second, and the end.
    folder = tmp_path / "killed"
    for steps in (2, 5, 8):
        process = driven(folder, 2)

        def is_there(steps=steps):
            states = [json.loads(path.read_text())[0] for path in folder.glob("seeds/*/state.json")]
            return max(states, default=0) >= steps

        common.wait_until(is_there, process, seconds=240)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    output, error = driven(folder, 1).communicate(timeout=300)
    assert json.loads(output) == ["seeds/2"], error
    assert kept(folder) == found[1]


def test_the_epochs_of_all_trainings_together():
    assert Halving((2, 4), 0.5).total_epochs(5, 10) == 5 * 2 + 3 * 2 + 2 * 6
    assert Halving((3,), 0.1).total_epochs(4, 5) == 4 * 3 + 1 * 2
