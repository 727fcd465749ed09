"""A method in a package of a stranger's: its parts are named in YAML like ours, run, and are resumed after kills."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOY = Path(__file__).with_name("toy")
EXPERIMENT = """
evaluations: 16
batch_size: 2
in_flight: 2
data: shapes
holdout: 16
recipe: RECIPE
space: {name: toy, width: 8}
searcher: {name: evolution, population_size: 6, parents: 3, mutation: 0.5, crossover: 0.5, initial: 6}
evaluator: {name: toy-path, supernet: supernet, scale: 100}
stages:
  supernet: {kind: train, of: supernet}
  search: {kind: search}
  train: {kind: train, of: search}
  note: {kind: toy-note, of: search, steps: 8}
"""
RECIPE = """
backbone: basic-tiny
batch_size: 8
log_every: 2
checkpoint_every: 4
detector: {name: fcos, channels: 16, num_convs: 1}
augmentation: {short_side: [64], long_side: 64}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004, clip: 10}
schedule: {name: cosine, epochs: 2, milestones: [], warmup_iterations: 2}
resources: {workers: 1, gpus: 0}
"""


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    path = tmp_path / "toy.yaml"
    path.write_text(EXPERIMENT.replace("RECIPE", str(tmp_path / "recipe.yaml")))
    return path


def start(*arguments):
    environment = os.environ | {"PYTHONPATH": str(TOY)}
    command = [sys.executable, "-m", "nasray", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, **pipes, env=environment, start_new_session=True)


def finished(*arguments):
    process = start(*arguments)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def test_a_strangers_parts_are_listed_and_planned_like_ours(experiment):
    output = finished("search", experiment, "--plan", "--evaluator.scale", "3")
    for word in ("supernet", "toy-note", "counts to 8", "evaluator.supernet", "16 evaluations by evolution, toy-path"):
        assert word in output
    process = start("search", experiment, "--evaluator.scaled", "3")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "evaluator 'toy-path' has no option 'scaled'; did you mean 'scale'?" in output


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_strangers_run_is_killed_in_every_stage(experiment, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished("search", experiment, "--folder", whole)
    process = start("search", experiment, "--folder", killed)
    for stage, condition in {
        "supernet": lambda: is_begun(killed / "supernet/log.jsonl"),
        "search": lambda: len(list((killed / "history").glob("*.parquet"))) >= 2,
        "train": lambda: is_begun(killed / "train/log.jsonl"),
        "note": lambda: (killed / "note/count").exists(),
    }.items():
        deadline = time.monotonic() + 300
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, stage
            time.sleep(0.02)
        assert "result" not in json.loads((killed / "stages.json").read_text()).get(stage, {})
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(2)  # Ray's own processes follow their driver
        process = start("resume", killed)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    for name in ("best.json", "supernet/summary.json", "train/summary.json", "note/note.txt"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    histories = [
        {path.name: path.read_bytes() for path in (folder / "history").iterdir()} for folder in (whole, killed)
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) == 8


def is_begun(log):
    return log.is_file() and log.stat().st_size > 0
