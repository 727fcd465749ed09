"""A training as a job: the same training, whatever interrupts it."""

import dataclasses

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.cluster.training import Worker
from nasray.training import setup, train_here
from nasray.training.jobs import TrainingJob

pytestmark = pytest.mark.usefixtures("quick_validation")


def test_a_job_that_is_interrupted_between_validations_ends_alike(
    recipe, tmp_path, monkeypatch, same, log_of, open_shapes_once
):
    monkeypatch.setattr(setup, "open_data", open_shapes_once)
    recipe = dataclasses.replace(recipe, evaluate_every=0.5)
    job = TrainingJob("a", recipe, ARCHITECTURES["basic-tiny"])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert job.result(whole) is None
    train_here(recipe, whole, job.architecture)
    found = job.train(parts, Worker())
    first = next(found)
    assert Checkpoint.load(parts / "checkpoints" / "last.pt").iteration == 5
    found.close()  # as where its process ends
    assert job.result(parts) is None
    rest = list(job.train(parts, Worker()))
    assert len(rest) == 2
    assert log_of(parts) == log_of(whole)
    one, other = (vars(Checkpoint.load(path / "checkpoints" / "last.pt")) for path in (whole, parts))
    for checkpoint in (one, other):
        checkpoint["training"].pop("log_size")  # times have more or fewer digits
    assert same(one, other)
    assert job.result(parts) == job.result(whole)
    assert job.result(parts)["mAP"] == max(first["mAP"], *(metrics["mAP"] for metrics in rest))
