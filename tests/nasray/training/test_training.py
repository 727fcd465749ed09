"""Beginning and resuming, with the loop in this process instead of Ray's."""

import dataclasses
import subprocess
import sys

import pytest
import torch

import nasray.cluster.training
import nasray.data
from nasray.architectures import ARCHITECTURES, compose
from nasray.checkpoint import Checkpoint
from nasray.cluster.callbacks import LogEvent, StageEvent
from nasray.cluster.log_tail import LogTail, position
from nasray.cluster.training import Worker
from nasray.finding import find_architecture
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.recipe_options import OptimizerOptions, ScheduleOptions, WorkerOptions
from nasray.spaces import NasrayError
from nasray.training import begin_training, recipe_of_training, resume_training
from nasray.training.folder import read_description, read_log
from nasray.training.loop import StoppedError
from tests.nasray.models.detectors.toys import HEAD, toys  # noqa: F401


@pytest.fixture
def tiny(recipe):
    return dataclasses.replace(recipe, schedule=ScheduleOptions(epochs=0.4))


@pytest.fixture
def here(monkeypatch, quick_validation, open_shapes_once):
    """Workers' groups that were asked for; a stop can be asked for by the first entry of `stops`."""
    groups, stops = [], []

    def run(loop, config, *, folder, group):
        groups.append(group)
        asked, log = iter(stops), LogTail(folder)
        try:
            loop(config, Worker(should_stop=lambda: next(asked, False)))
        finally:
            log.tell_new()

    monkeypatch.setattr(nasray.cluster.training, "run_training", run)
    monkeypatch.setattr(nasray.data, "open_data", open_shapes_once)
    return groups, stops


def test_begin_stop_and_resume(tiny, here, tmp_path):
    groups, stops = here
    stops[:] = [False, True]
    heard = []
    with pytest.raises(StoppedError, match="stopped after 2 of 4"):
        begin_training(tiny, tmp_path / "run", callbacks=[heard.append])
    with pytest.raises(NasrayError, match=r"`nasray resume .*` continues it"):
        begin_training(tiny, tmp_path / "run")
    stops.clear()
    workers = WorkerOptions(workers=2, cpus=3, retries=1)
    summary = resume_training(tmp_path / "run", workers, callbacks=[heard.append])
    assert (summary["iterations"], summary["best"]["iteration"]) == (4, 4)
    assert [(group.workers, group.cpus, group.retries) for group in groups] == [(1, None, 3), (2, 3, 1)]
    assert recipe_of_training(tmp_path / "run") == tiny
    assert resume_training(tmp_path / "run", callbacks=[heard.append]) == summary
    stages = [(event.state, event.figures, event.error) for event in heard if isinstance(event, StageEvent)]
    assert stages[:2] == [("begin", {}, ""), ("stop", {}, "stopped after 2 of 4 iterations")]
    assert stages[2:] == [("resume", {}, ""), ("end", summary, "")], "nothing of what was finished before"
    log = read_log(tmp_path / "run")
    lines = [event.line for event in heard if isinstance(event, LogEvent)]
    assert lines == sorted([*log.steps, *log.validations], key=position)
    assert [line["iteration"] for line in lines] == [2, 4, 4]
    assert {(event.run, event.source) for event in heard} == {(str(tmp_path / "run"), "training")}


def test_an_architecture_of_ones_own(tiny, here, tmp_path):
    own = ARCHITECTURES["basic-tiny"]
    begin_training(dataclasses.replace(tiny, backbone="resnet50"), tmp_path / "run", own)
    assert read_description(tmp_path / "run").architecture == own
    assert recipe_of_training(tmp_path / "run").backbone == own.id  # and not what was not trained


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ({"backbone": "resnet5"}, "did you mean 'resnet50'"),
        ({"weights": "none.pth"}, "no file of weights at .*none.pth"),
        ({"weights": "bad.pth"}, r"bad.pth does not fit the backbone: .* the file's a is 3"),
        ({"weights": "bad.pth", "frozen_stages": 9}, "choose at most 5"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tiny, here, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(3)}, "bad.pth")
    with pytest.raises(NasrayError, match=message):
        begin_training(dataclasses.replace(tiny, **changes), "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_and_a_head_are_trained_and_resumed(tiny, here, tmp_path, toys):  # noqa: F811
    (tmp_path / "head.json").write_text(HEAD.text)
    options = options_of(DETECTORS, "fcos", channels=16)
    recipe = dataclasses.replace(tiny, head=str(tmp_path / "head.json"), detector=options)
    here[1][:] = [False, True]
    with pytest.raises(StoppedError):
        begin_training(recipe, tmp_path / "run")
    here[1].clear()
    resume_training(tmp_path / "run")
    found = find_architecture(str(tmp_path / "run"))
    assert found == compose({"backbone": ARCHITECTURES["basic-tiny"], "head": HEAD})
    assert type(Checkpoint.load(tmp_path / "run").detector().head.trunk).__name__ == "ToyHead"


def test_a_head_without_a_slot_leaves_nothing_behind(tiny, here, tmp_path, toys):  # noqa: F811
    (tmp_path / "head.json").write_text(HEAD.text)
    recipe = dataclasses.replace(tiny, head=str(tmp_path / "head.json"), detector=options_of(DETECTORS, "yolof"))
    with pytest.raises(NasrayError, match="'yolof' has no slot for a head"):
        begin_training(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_batch_must_divide_among_the_workers_of_now(tiny, here, tmp_path):
    begin_training(dataclasses.replace(tiny, optimizer=OptimizerOptions(accumulate=2)), tmp_path / "run")
    with pytest.raises(NasrayError, match="batch_size 16 does not divide among 3 workers with 2 parts each"):
        resume_training(tmp_path / "run", WorkerOptions(workers=3))


def test_importing_starts_nothing():
    code = "import nasray.training, sys; print(*({'torch', 'ray.train', 'tensorboard'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
