"""A training as a job: the same training, whatever interrupts it, alone and as one of several."""

import dataclasses
import json
import shutil

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.cluster import Resources, ray_session
from nasray.cluster.training import Group, Worker
from nasray.recipe_options import WorkerOptions
from nasray.spaces import NasrayError
from nasray.training import finish_training, jobs, setup
from nasray.training.jobs import RUNGS, StagedTraining, TrainingJob, train_all, train_here, train_in_stages
from tests.nasray.reports.common import write_training

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


def test_a_job_pauses_at_its_rung_and_knows_what_was_reached_there(
    recipe, tmp_path, monkeypatch, same, log_of, open_shapes_once
):
    monkeypatch.setattr(setup, "open_data", open_shapes_once)
    recipe = dataclasses.replace(recipe, evaluate_every=0.5)
    first, end = (TrainingJob("a", recipe, ARCHITECTURES["basic-tiny"], rung) for rung in (1.0, None))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_here(recipe, whole, first.architecture)
    assert first.result(parts) is None
    found = first.train(parts, Worker())
    next(found)
    found.close()  # as where its process ends
    assert first.result(parts) is None
    (reached,) = first.train(parts, Worker())
    assert first.result(parts) == reached
    assert end.result(parts) is None
    checkpoint = Checkpoint.load(parts / "checkpoints" / "last.pt")
    assert (checkpoint.iteration, checkpoint.metrics) == (10, reached)
    # Killed between the checkpoint and the note of it: nothing is trained, and the same is noted.
    before = (parts / RUNGS).read_bytes()
    (parts / RUNGS).unlink()
    assert list(first.train(parts, Worker())) == []
    assert (parts / RUNGS).read_bytes() == before
    assert len(list(end.train(parts, Worker()))) == 1
    assert first.result(parts) == reached, "what was reached stays known"
    assert log_of(parts) == log_of(whole)
    assert same(*(Checkpoint.load(path / "checkpoints" / "last.pt").model for path in (whole, parts)))
    (parts / RUNGS).write_text("{}")
    with pytest.raises(NasrayError, match=r"rungs.json is not as nasray wrote it: .*away: the training begins anew"):
        first.result(parts)


@pytest.fixture
def calls(monkeypatch):
    """What is asked for; every training that is begun is finished at once, with the number of the call as mAP."""
    found = []

    def train(recipe, folder, architecture):
        if not (folder / "summary.json").exists():
            found.append((folder, recipe.seed, recipe.weights))
            write_training(folder, architecture, len(found) / 100)

    def run_jobs(given, folder, *, group):
        found.append(group)
        for job in given:
            train(job.recipe, folder / job.label, job.architecture)

    monkeypatch.setattr(jobs, "run_jobs", run_jobs)
    monkeypatch.setattr(jobs, "finish_training", train)
    return found


def test_trainings_of_one_worker_are_jobs_and_others_follow_each_other(recipe, tmp_path, calls):
    def of(**resources):
        own = dataclasses.replace(recipe, resources=WorkerOptions(**resources))
        return [TrainingJob(name, own, ARCHITECTURES["basic-tiny"]) for name in ("b", "a")]

    assert train_all([], tmp_path) == {}
    found = train_all(of(workers=2), tmp_path / "two")
    assert calls == [(tmp_path / "two/b", 0, None), (tmp_path / "two/a", 0, None)]
    assert {name: summary["best"]["mAP"] for name, summary in found.items()} == {"b": 0.01, "a": 0.02}
    calls.clear()
    train_all(of(cpus=2, gpus=0, retries=1, address="auto"), tmp_path / "one")
    assert calls[0] == Group(workers=1, cpus=2, gpus=0, retries=1, address="auto")
    assert [call[0] for call in calls[1:]] == [tmp_path / "one/b", tmp_path / "one/a"]


def test_stages_are_waves_each_with_the_weights_of_the_one_before(recipe, tmp_path, calls):
    first, second = ARCHITECTURES["basic-tiny"], ARCHITECTURES["resnet18"]
    trainings = [StagedTraining("x/seed-1", first, 1), StagedTraining("y/seed-2", second, 2)]
    recipes = {"pretrain": dataclasses.replace(recipe, weights="/another.pt"), "train": recipe}
    summaries = train_in_stages(trainings, recipes, tmp_path)
    trained = [call for call in calls if isinstance(call, tuple)]
    assert trained == [
        (tmp_path / "x/seed-1/pretrain", 1, None),
        (tmp_path / "y/seed-2/pretrain", 2, None),
        (tmp_path / "x/seed-1/train", 1, str(tmp_path / "x/seed-1/pretrain/checkpoints/last.pt")),
        (tmp_path / "y/seed-2/train", 2, str(tmp_path / "y/seed-2/pretrain/checkpoints/last.pt")),
    ]
    assert [summary["best"]["mAP"] for summary in summaries.values()] == [0.05, 0.06]
    # What a later stage has taken is needed no more: who makes room does not train again.
    calls.clear()
    shutil.rmtree(tmp_path / "x/seed-1/pretrain")
    assert train_in_stages(trainings, recipes, tmp_path) == summaries
    assert [call for call in calls if isinstance(call, tuple)] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_is_the_same_alone_and_as_one_of_several(recipe, tmp_path, same):
    """Also where it takes over the process of another one, which there is room for one of."""
    recipe = dataclasses.replace(recipe, resources=WorkerOptions(cpus=2, gpus=0))
    architecture = ARCHITECTURES["basic-tiny"]
    seeds = [dataclasses.replace(recipe, seed=seed) for seed in range(2)]
    with ray_session(Resources(local_cpus=2)):
        for own in seeds:
            finish_training(own, tmp_path / f"alone-{own.seed}", architecture)
        both = [TrainingJob(f"seed-{own.seed}", own, architecture) for own in seeds]
        found = train_all(both, tmp_path / "both")
    for own in seeds:
        alone, several = tmp_path / f"alone-{own.seed}", tmp_path / "both" / f"seed-{own.seed}"
        assert found[f"seed-{own.seed}"] == json.loads((alone / "summary.json").read_text())
        one, other = (vars(Checkpoint.load(path / "checkpoints" / "last.pt")) for path in (alone, several))
        for checkpoint in (one, other):
            checkpoint["training"].pop("log_size")  # times have more or fewer digits
        assert same(one, other)
    assert found["seed-0"] != found["seed-1"]
