"""A training on a GPU: the same bodies run on the CPU in the default suite, so that they stay in order."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasray.checkpoint import Checkpoint
from nasray.cluster.training import Worker
from nasray.recipe_options import LoaderOptions, ScheduleOptions
from nasray.training import setup
from nasray.training.loop import StoppedError

pytestmark = pytest.mark.usefixtures("quick_validation")

DRIVE = Path(__file__).with_name("drive.py")
DEVICES = [pytest.param("cpu"), pytest.param("cuda:0", marks=pytest.mark.gpu)]
PRECISIONS = [
    ("cpu", "bfloat16"),
    *(pytest.param("cuda:0", name, marks=pytest.mark.gpu) for name in ("float32", "bfloat16", "float16")),
]


def steps_of(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_the_loop_learns_in_every_precision_with_loaders_forked_behind_the_device(begin, tmp_path, device, precision):
    torch.zeros(1, device=device)  # the device has begun before loaders are forked
    recipe = begin(tmp_path / "run", precision=precision, ema=0.9, loader=LoaderOptions(processes=2))
    setup.train(recipe, tmp_path / "run", Worker(device=device))
    losses = steps_of(tmp_path / "run")
    assert losses[-1] < losses[0]
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert all(torch.isfinite(value).all() for value in checkpoint.model.values() if value.is_floating_point())


@pytest.mark.parametrize("device", DEVICES)
def test_a_checkpoint_goes_on_where_it_was_also_on_the_cpu(begin, tmp_path, device):
    recipe = begin(tmp_path / "run", ema=0.9)
    asked = iter(range(100))
    with contextlib.suppress(StoppedError):
        setup.train(recipe, tmp_path / "run", Worker(device=device, should_stop=lambda: next(asked) == 6))
    checkpoint = Checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    assert checkpoint.iteration == 7
    assert {value.device.type for value in checkpoint.model.values()} == {"cpu"}
    setup.train(recipe, tmp_path / "run", Worker(device="cpu"))
    assert Checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt").iteration == 15


@pytest.mark.gpu
def test_the_first_step_is_that_of_the_cpu(begin, tmp_path, exact_on_gpus):
    losses = []
    for device in ("cpu", "cuda:0"):
        folder = tmp_path / device[:4]
        recipe = begin(folder, log_every=1, schedule=ScheduleOptions(epochs=0.1, milestones=(), warmup_iterations=0))
        setup.train(recipe, folder, Worker(device=device))
        losses.append(steps_of(folder)[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.gpu
def test_two_processes_on_one_gpu_are_one_with_the_doubled_batch(begin, tmp_path):
    losses = []
    for world in (1, 2):
        folder = tmp_path / str(world)
        schedule = ScheduleOptions(epochs=0.1, milestones=(), warmup_iterations=0)
        begin(folder, log_every=1, schedule=schedule)
        command = [sys.executable, str(DRIVE), str(folder)]
        workers = [subprocess.Popen([*command, str(rank), str(world), "cuda:0"]) for rank in range(world)]
        assert [worker.wait(timeout=200) for worker in workers] == [0] * world
        losses.append(steps_of(folder)[0])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
