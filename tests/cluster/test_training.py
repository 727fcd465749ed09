"""Trainings on Ray Train: lost workers, mistakes, interrupts; and how workers share a cluster."""

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import psutil
import pytest

from nasray.cluster import training
from nasray.cluster.board import Board
from nasray.cluster.training import Group, _run_again, fitted, largest_fitted, num_places
from nasray.spaces import NasrayError

from . import common

DRIVE = Path(__file__).with_name("drive_training.py")
ROOM_FOR_8 = [{"CPU": 64.0, "GPU": 8.0}]


@pytest.mark.parametrize(
    ("asked", "nodes", "cpus", "gpus"),
    [
        (Group(1), [{"CPU": 8.0}], 8, 0),
        (Group(3), [{"CPU": 8.0}], 2, 0),
        (Group(8), [{"CPU": 8.0}] * 4, 4, 0),
        (Group(1), [{"CPU": 8.0}] * 4, 8, 0),
        (Group(8), ROOM_FOR_8, 8, 1),
        (Group(2), ROOM_FOR_8, 8, 1),
        (Group(16), ROOM_FOR_8, 4, 0),
        (Group(2, gpus=0), ROOM_FOR_8, 32, 0),
        (Group(2, cpus=3), [{"CPU": 8.0}], 3, 0),
        (Group(1), [{"CPU": 4.0}, {"CPU": 12.0, "GPU": 1.0}], 12, 1),
        (Group(2, cpus=0.5), [{"CPU": 1.0}], 0.5, 0),
    ],
)
def test_what_each_worker_gets(asked, nodes, cpus, gpus):
    group = fitted(asked, nodes)
    assert (group.cpus, group.gpus) == (cpus, gpus)


@pytest.mark.parametrize(
    ("asked", "nodes", "message"),
    [
        (Group(4), [{"CPU": 2.0}], "room for 2 of 4 workers with 1 CPU each: it has 1 node, 2 CPUs, 0 GPUs"),
        (Group(2, cpus=3), [{"CPU": 4.0}, {"CPU": 2.0}], "room for 1 of 2 workers with 3 CPUs each"),
        (Group(2, gpus=1), [{"CPU": 8.0, "GPU": 1.0}], "room for 1 of 2 workers with 8 CPUs and 1 GPU each"),
        (Group(1, gpus=1), [{"CPU": 8.0}], "room for 0 of 1 worker with 1 CPU and 1 GPU each"),
    ],
)
def test_too_small_a_cluster(asked, nodes, message):
    with pytest.raises(NasrayError, match=message):
        fitted(asked, nodes)


@pytest.mark.parametrize(
    ("asked", "nodes", "workers", "cpus"),
    [
        (Group(8, gpus=1, divides=16), [{"CPU": 64.0, "GPU": 8.0}], 8, 8),
        (Group(8, gpus=1, divides=16), [{"CPU": 64.0, "GPU": 7.0}], 4, 9),
        (Group(8, gpus=1, divides=24), [{"CPU": 64.0, "GPU": 7.0}], 6, 9),
        (Group(16, gpus=1, divides=16), [{"CPU": 64.0, "GPU": 8.0}], 8, 8),
        (Group(8, gpus=1, divides=7), [{"CPU": 64.0, "GPU": 4.0}], 1, 16),
        (Group(3, gpus=0, cpus=2, divides=12), [{"CPU": 5.0}], 2, 2),
        (Group(4, gpus=0), [{"CPU": 3.0}], 3, 1),
    ],
)
def test_fewer_workers_where_there_is_no_room_for_all(asked, nodes, workers, cpus):
    group = largest_fitted(asked, nodes)
    assert (group.workers, group.cpus, group.gpus) == (workers, cpus, asked.gpus)


def test_without_room_for_one_worker_there_is_no_training():
    with pytest.raises(NasrayError, match="room for 0 of 1 worker with 1 CPU and 1 GPU each"):
        largest_fitted(Group(2, gpus=1), [{"CPU": 8.0}])


def test_there_is_room_for_as_many_trainings_as_the_cluster_says(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    assert num_places(Group()) is None
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(training, "living_nodes", lambda: [{"CPU": 8.0}, {"CPU": 5.0}])
    assert [num_places(Group(cpus=cpus)) for cpus in (2.0, 8.0, 9.0, None)] == [6, 1, None, 1]


def test_a_board_carries_lines_and_progress(tmp_path, capsys):
    worker, user = Board(tmp_path / "ray"), Board(tmp_path / "ray")
    user.show()
    user.clear()
    worker.say("one line")
    worker.progress(3, 10, "loss 2")
    worker.progress(4, 10, "too soon to tell")
    user.show()
    user.show()
    error = capsys.readouterr().err
    assert error.count("one line\n") == 1
    assert error.count("training  3/10  30%  loss 2") == 1
    worker.progress(10, 10, "loss 1")
    user.show(final=True)
    assert "10/10 100%  loss 1" in capsys.readouterr().err
    assert not worker.should_stop()
    user.stop()
    assert worker.should_stop()
    user.clear()
    assert not worker.should_stop()


class FailedError(Exception):
    """As Ray Train raises: what failed in each worker, wrapped with its traceback."""

    def __init__(self, *failures):
        super().__init__("a long text")
        self.worker_failures = dict(enumerate(failures))


class WrappedError(Exception):
    def __init__(self, cause):
        super().__init__(f"Traceback (most recent call last):\n{cause!r}")
        self._base_exc = cause


def failing(*errors):
    """What prepares a function that raises these, one for each attempt, and then returns; and the attempts so far."""
    calls = []

    def fit():
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]

    def prepare(attempt):
        calls.append(attempt)
        return fit

    return prepare, calls


def test_a_mistake_comes_back_as_it_was_raised_and_is_not_repeated(tmp_path):
    mistake = NasrayError("one message")
    fit, calls = failing(FailedError(RuntimeError("connection closed"), WrappedError(mistake)))
    with pytest.raises(NasrayError, match=r"^one message$") as caught:
        _run_again(fit, Board(tmp_path), tmp_path, retries=3)
    assert caught.value is mistake
    assert len(calls) == 1


def test_other_failures_are_tried_again_and_then_told(tmp_path, capsys):
    crash = FailedError(WrappedError(KeyError("boxes")), RuntimeError("connection closed"))
    fit, calls = failing(crash)
    _run_again(fit, Board(tmp_path), tmp_path, retries=1)
    assert calls == [0, 1]
    assert "a worker failed with KeyError: 'boxes'; starting again from the last checkpoint" in capsys.readouterr().err
    fit, calls = failing(crash, crash, crash)
    with pytest.raises(NasrayError, match=r"after 2 restarts: a worker failed with KeyError.*(?s:.)*nasray resume"):
        _run_again(fit, Board(tmp_path), tmp_path, retries=2)
    assert len(calls) == 3
    assert "Traceback" in (tmp_path / "error.txt").read_text()


@pytest.mark.slow
def test_lost_workers_and_interrupts(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(DRIVE), str(tmp_path), "alone", "kill"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    folder = tmp_path / "kill"

    def starts(rank):
        path = folder / f"starts-{rank}"
        return path.read_text().splitlines() if path.exists() else []

    try:
        common.wait_until(lambda: len(starts(0)) == 2, process, seconds=200)
        os.kill(process.pid, signal.SIGTERM)
        error = process.communicate(timeout=100)[1]
    finally:
        process.kill()
    assert process.returncode == 0, error
    lines = error.splitlines()

    # A worker that is alone dies of SIGKILL, and starts again from the checkpoint.
    assert (tmp_path / "alone/starts-0").read_text().splitlines() == ["0 2", "6 2"], "steps, and threads of two cores"
    assert json.loads((tmp_path / "alone/state.json").read_text()) == [12, 78]
    assert lines.count("a worker's process has died (killed, out of memory, or its machine is gone); starting again "
                       "from the last checkpoint") == 2  # fmt: skip

    # A worker dies of SIGKILL: the others start again with it, from the checkpoint, and go on.
    assert starts(0) == starts(1) == ["0 1", "6 1"], "steps, and threads of a worker with one core"
    assert "goes on from 0" in lines

    # SIGTERM, as Ctrl-C: the loop saves its state after the step that it is in.
    assert any(line.startswith("stopped after ") for line in lines)
    assert lines[-1] == "InterruptError: SIGTERM"
    assert "Traceback" not in error
    step, total = json.loads((folder / "state.json").read_text())
    assert 6 < step < 12
    assert total == 3 * step * (step + 1) / 2

    assert not list(tmp_path.glob("*/ray")), "what Ray keeps is removed"


@pytest.mark.slow
def test_a_detector_is_trained_although_a_worker_is_lost(tmp_path):
    """End to end, as from the command line, in a session of its own: two workers, one of which is killed."""
    from nasray.checkpoint import Checkpoint

    code = (
        "import sys\n"
        "from nasray.models.detectors import DETECTORS\n"
        "from nasray.options import options_of\n"
        "from nasray.recipe import *\n"
        "from nasray.training import begin_training\n"
        "recipe = Recipe(name='x', backbone='basic-tiny', batch_size=8, log_every=5, checkpoint_every=10,\n"
        "    detector=options_of(DETECTORS, 'fcos', channels=16, num_convs=1), loader=LoaderOptions(processes=0),\n"
        "    optimizer=OptimizerOptions(accumulate=2), augmentation=AugmentationOptions(short_side=(64,)),\n"
        "    schedule=ScheduleOptions(epochs=2), resources=WorkerOptions(workers=2))\n"
        "print(begin_training(recipe, sys.argv[1])['iterations'])\n"
    )
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = folder / "log.jsonl"
    common.wait_until(lambda: log.exists() and b'"iteration": 15,' in log.read_bytes(), process, seconds=200)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True)
               if any("TrainWorker" in part for part in child.cmdline())]  # fmt: skip
    assert len(workers) == 2
    workers[1].kill()
    output, error = process.communicate(timeout=250)
    assert process.returncode == 0, error
    assert output.split()[-1] == "40"
    assert "starting again from the last checkpoint" in error
    iterations = [json.loads(line)["iteration"] for line in log.read_text().splitlines() if '"loss"' in line]
    assert iterations == list(range(5, 41, 5))
    assert Checkpoint.load(folder).metrics["mAP"] >= 0
