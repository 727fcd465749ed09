"""Several trainings as trials of Ray Tune: killed, failing, stopped, and continued to the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nasray.cluster import trainings
from nasray.cluster.board import Board
from nasray.cluster.training import Group, Worker, _work
from nasray.cluster.trainings import Boards, _describe, _fit, check_label, run_jobs
from nasray.spaces import NasrayError

from . import common

DRIVE = Path(__file__).with_name("drive_trainings.py")
drive = common.load_drive("drive_trainings")


def trained(job, folder):
    """The folder of a job that was trained here, without Ray."""
    for _ in job.train(folder, Worker()):
        pass
    return folder


def test_finished_trainings_need_no_ray(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "search_session", lambda *_: pytest.fail("Ray is started"))
    jobs = [drive.Counting("b", 2), drive.Counting("a", 1)]
    for job in jobs:
        trained(job, tmp_path / job.label)
    found = run_jobs(jobs, tmp_path)
    assert list(found.items()) == [("b", {"total": 72, "seed": 2}), ("a", {"total": 36, "seed": 1})]


def test_labels_are_folders_below_that_of_all():
    assert [check_label(label) for label in ("a", "1-ab/seed-0")] == ["a", "1-ab/seed-0"]
    for label in ("", "/a", "a/", "a//b", "../a", "a/..", ".hidden", "a\\b"):
        with pytest.raises(ValueError, match="a label of a training is"):
            check_label(label)
    with pytest.raises(ValueError, match="there are several 'a'"):
        run_jobs([drive.Counting("a", 1), drive.Counting("a", 2)], Path("nowhere"))
    with pytest.raises(ValueError, match="have one worker each, got 2"):
        run_jobs([drive.Counting("a", 1)], Path("nowhere"), group=Group(workers=2))


@pytest.mark.parametrize(
    ("asked", "each", "text"),
    [
        (
            Group(),
            Group(cpus=8.0, gpus=0),
            "1 training at a time, each with 8 CPUs, as alone; with resources: {cpus: 1} in the recipe, say, more run "
            "at a time",
        ),
        (Group(cpus=2), Group(cpus=2, gpus=0), "4 trainings at a time, each with 2 CPUs"),
        (Group(cpus=1), Group(cpus=1, gpus=0), "6 trainings at a time, each with 1 CPU"),
        (Group(), Group(cpus=4.0, gpus=1), "2 trainings at a time, each with 4 CPUs, 1 GPU"),
    ],
)
def test_it_is_said_how_many_run_at_a_time(asked, each, text):
    assert _describe(6, asked, each, [{"CPU": 8.0, "GPU": 2.0}]) == text


class Threads:
    """A training that leaves the number of its threads as its only metric, and can be called as a loop."""

    def train(self, folder, worker):
        yield {"threads": torch.get_num_threads()}

    def __call__(self, config, worker):
        config.append(torch.get_num_threads())


@pytest.mark.parametrize(("cpus", "threads"), [(3, 3), (0.5, 1)])
def test_a_training_computes_with_as_many_threads_alone_and_as_one_of_several(tmp_path, monkeypatch, cpus, threads):
    from nasray.cluster.training_trial import TrainingTrial

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as Ray does
    before, alone = torch.get_num_threads(), []
    try:
        _work(Threads(), alone, Board(tmp_path), Group(cpus=cpus, gpus=0), Worker())
        torch.set_num_threads(before)
        jobs = {name: (Threads(), str(tmp_path / name), str(tmp_path / f"{name}-board")) for name in ("a", "b")}
        trial = TrainingTrial.__new__(TrainingTrial)
        trial.setup({"label": "a"}, jobs=jobs, cpus=cpus)
        found = [next(trial.job.train(trial.folder, trial._worker()))["threads"]]
        assert trial.reset_config({"label": "b"})  # as Tune does where the next training takes the process over
        assert (trial.label, trial.folder) == ("b", tmp_path / "b")
        found.append(next(trial.job.train(trial.folder, trial._worker()))["threads"])
    finally:
        torch.set_num_threads(before)
    assert alone == [threads]
    assert found == [threads, threads]


def tuner(*results):
    return SimpleNamespace(fit=lambda: [SimpleNamespace(**result) for result in results])


def test_failures_are_one_line_a_mistake_before_a_crash(tmp_path):
    jobs, boards = drive.jobs("bad"), Boards({})
    crash = {"config": {"label": "c"}, "error": RuntimeError("Traceback\n  File x\nKeyError: 'boxes'"), "metrics": {}}
    mistake = {"config": {"label": "b"}, "error": None, "metrics": {"mistake": "seed 2 is not to be trained. No."}}
    with pytest.raises(NasrayError) as caught:
        _fit(tuner(crash, mistake), jobs, tmp_path, boards, 1)
    expected = (
        f"training b: seed 2 is not to be trained. No (1 other training failed too). What was saved is in {tmp_path}"
    )
    assert str(caught.value) == expected
    (tmp_path / "c").mkdir()
    with pytest.raises(NasrayError, match=r"^training c failed 2 times: KeyError: 'boxes'\. What was saved"):
        _fit(tuner(crash), jobs, tmp_path, boards, 1)
    assert "File x" in (tmp_path / "c/error.txt").read_text()
    with pytest.raises(NasrayError, match="training top/1-a has ended without a result"):
        _fit(tuner(), jobs, tmp_path, boards, 1)
    for job in jobs:
        job = drive.Counting(job.label, job.seed)
        trained(job, tmp_path / job.label)
    _fit(tuner(crash), jobs, tmp_path, boards, 1)  # it has a result nevertheless


def test_boards_are_one_line_of_progress(tmp_path, capsys):
    boards = Boards({name: Board(tmp_path / name) for name in ("a", "b")})
    boards.clear()
    boards.of["a"].progress(9, 9, "loss 1")
    boards.of["b"].progress(3, 9, "loss 2")
    boards.of["b"].say("matched by order")
    boards.show(final=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "b: matched by order"
    assert lines[1].startswith("trainings  1/2  50%  b 33%  loss 2")
    assert boards.missing() is None
    boards.stop()
    assert boards.stopped
    assert all(board.should_stop() for board in boards.of.values())


def start(folder, *events):
    return subprocess.Popen(
        [sys.executable, str(DRIVE), str(folder), *events],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_trainings_go_on_to_the_same_bytes(tmp_path):
    """A worker is killed, one makes a mistake, one crashes; then the whole session is killed, and begun again."""
    process = start(tmp_path, "bad", "slow")
    bad, slow = tmp_path / "bad", [tmp_path / "slow" / f"{seed}" for seed in (1, 2, 3)]
    try:
        common.wait_until(lambda: any((path / "state.json").exists() for path in slow), process, seconds=200)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    _, error = process.communicate()

    # A mistake is told as it is and not repeated, a crash is repeated.
    assert [line for line in error.splitlines() if line.startswith("NasrayError")] == [
        "NasrayError: training b: seed 2 is not to be trained. Choose another (1 other training failed too). What was "
        f"saved is in {bad}"
    ]
    assert (bad / "b/starts").read_text() == "0\n"
    assert (bad / "c/starts").read_text() == "0\n3\n"
    assert "b: seed 2 is not to be trained. Choose another" in error, "said at once"
    assert "training top/1-a has failed; starting again from the last checkpoint" in error
    # A training whose process is killed goes on from its last checkpoint.
    assert (bad / "top/1-a/starts").read_text() == "0\n3\n"
    assert json.loads((bad / "top/1-a/summary.json").read_text()) == {"total": 36, "seed": 1}
    assert sorted(path.name for path in bad.iterdir()) == ["b", "c", "top"], "what Ray keeps is removed"

    # The rest of the killed session.
    left = [path for path in slow if not (path / "summary.json").exists()]
    assert left, "it was killed too late"
    again = start(tmp_path, "slow")
    output, error = again.communicate(timeout=200)
    assert again.returncode == 0, error
    found = json.loads(output)
    assert list(found) == ["1", "2", "3"]
    for job, path in zip(drive.jobs("slow"), slow, strict=True):
        expected = trained(drive.Counting(job.label, job.seed), tmp_path / "expected" / job.label)
        for name in ("state.json", "summary.json"):
            assert (path / name).read_bytes() == (expected / name).read_bytes()
        assert found[job.label] == json.loads((path / "summary.json").read_text())


@pytest.mark.slow
def test_an_interrupt_saves_what_runs(tmp_path):
    process = start(tmp_path, "slow")
    slow = tmp_path / "slow"
    common.wait_until(lambda: any(slow.glob("*/state.json")), process, seconds=170)
    os.kill(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=170)
    assert error.splitlines()[-1] == "InterruptError: SIGTERM"
    assert "of 3 stopped; their state is saved" in error
    assert "Traceback" not in error
    steps = [json.loads(path.read_text())[0] for path in slow.glob("*/state.json")]
    assert steps
    assert any(step % 3 for step in steps), "they were asked to save between two checkpoints"
