"""Workers begin alike: all go on from the checkpoint that the first one sees."""

import multiprocessing
import os
import time

import pytest
import torch
from torch import distributed

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training import setup
from nasray.training.folder import CheckpointFiles
from nasray.training.setup import checkpoint_digest, load_alike


def checkpoint(iteration=3, weight=1.0, momentum=0.5):
    return Checkpoint(
        Recipe(name="x"), ARCHITECTURES["resnet18"], ("a",), (1,), {"w": torch.tensor([weight], dtype=torch.bfloat16)},
        iteration=iteration, training={"ranking": [], "optimizer": {0: {"momentum": torch.tensor(momentum)}}},
    )  # fmt: skip


def test_a_digest_is_of_all_that_a_training_goes_on_from():
    assert checkpoint_digest(checkpoint()) == checkpoint_digest(checkpoint())
    others = [checkpoint(weight=1.5), checkpoint(momentum=0.25)]
    assert len({checkpoint_digest(one) for one in [checkpoint(), *others]}) == 3


def in_two_workers(tmp_path, work):
    """Run `work(rank)` in two processes with a process group; what each returns or raises, as text."""

    def run(rank):
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=rank, world_size=2)
        try:
            text = work(rank)
        except NasrayError as error:
            text = str(error)
        (tmp_path / f"found-{rank}").write_text(text)
        os._exit(0)

    workers = [multiprocessing.get_context("fork").Process(target=run, args=(rank,), daemon=True) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return [(tmp_path / f"found-{rank}").read_text() for rank in range(2)]


@pytest.mark.parametrize("other", ["iteration", "weight", "none", "catches up"])
def test_workers_that_see_different_files_are_refused(tmp_path, monkeypatch, other):
    """Each has a folder of its own, as with a file system that shows one of them an older file."""
    monkeypatch.setattr(setup, "PAUSES", (0.1, 0.3) if other == "catches up" else (0.01,))
    folders = [CheckpointFiles(tmp_path / str(rank), 0) for rank in range(2)]
    for files in folders:
        files.folder.mkdir()
    newest = checkpoint(iteration=20)
    folders[0].save(newest)
    if other != "none":
        folders[1].save(checkpoint(iteration=20, weight=2.0) if other == "weight" else checkpoint(iteration=10))

    def work(rank):
        if other == "catches up" and rank == 1:
            load = folders[1].load

            def load_late():
                found = load()
                time.sleep(0.05)
                folders[1].save(newest)
                return found

            folders[1].load = load_late
        found, _ = load_alike(folders[rank])
        return f"iteration {found.iteration}"

    found = in_two_workers(tmp_path, work)
    if other == "catches up":
        assert found == ["iteration 20"] * 2
        return
    seen = {"iteration": 10, "weight": 20, "none": None}[other]
    for rank, text in enumerate(found):
        assert text.startswith(
            f"the workers see different checkpoints in {folders[rank].folder}: worker 0 iteration 20"
        )
        assert f", worker 1 iteration {seen} (" in text


def test_a_single_process_loads_what_there_is(tmp_path):
    assert load_alike(CheckpointFiles(tmp_path, 0)) == (None, [])
