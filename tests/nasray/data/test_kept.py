"""Batches are kept once all of them were loaded: in a file for all processes, or as far as there is memory for them."""

import dataclasses

import numpy as np
import pytest
import torch

from nasray.data import EvaluationLoader, open_data
from nasray.data.classification import ClassificationLoader, open_images
from nasray.data.kept import CacheBudget, KeptBatches
from nasray.data.work import WorkQueue
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError

DISK = 2**30


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


class Item:
    images = np.zeros(10, dtype=np.uint8)


class Loads:
    """A loader of two batches that counts how often it loads them."""

    num_bytes = 20

    def __init__(self):
        self.count = 0

    def packed(self):
        self.count += 1
        return iter([{}, {}])

    def unpack(self, packed):
        return Item()

    def digest(self):
        raise AssertionError("nobody asks")


def test_batches_are_kept_when_all_were_loaded():
    loads = Loads()
    batches = KeptBatches(loads, CacheBudget(25))
    assert next(iter(batches))  # left early
    assert batches.kept is None
    iterator = iter(batches)
    next(iterator), next(iterator)  # the last was had, and its end not asked for
    assert len(list(batches)) == len(list(batches)) == 2
    assert loads.count == 2
    assert batches.budget.left == 5
    other = KeptBatches(loads, batches.budget)
    assert len(list(other)) == len(list(other)) == 2
    assert other.kept is None
    assert loads.count == 4


DATASET = open_data("shapes").split("val").select(np.arange(5))
OPTIONS = LoaderOptions(processes=0)


def loader(what, dataset=DATASET, *, batch_size=2, side=48, options=OPTIONS):
    if what == "classes":
        images = open_images("shapes").split("val")
        return ClassificationLoader(
            images.select(np.arange(5)), image_size=side, batch_size=batch_size, seed=None, options=options
        )
    return EvaluationLoader(
        dataset,
        AugmentationOptions(short_side=(side,), long_side=side),
        batch_size=batch_size,
        stride=32,
        options=options,
        with_targets=what in ("targets", "masks"),
        with_masks=what == "masks",
    )


def flat(value):
    """All tensors of a batch, one after the other."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in (value.values() if isinstance(value, dict) else value) for tensor in flat(item)]


@pytest.mark.parametrize("what", ["images", "targets", "masks", "classes"])
def test_batches_of_a_file_are_those_of_the_loader(cache, what, monkeypatch):
    expected = list(map(loader(what).unpack, loader(what).packed()))
    first, second = (KeptBatches(loader(what), CacheBudget(0, DISK)) for _ in range(2))
    for batches in (first, first, second):
        found = list(batches)
        assert batches.is_mapped
        assert len(found) == len(expected) == 3
        for one, other in zip(found, expected, strict=True):
            assert type(one) is type(other)
            for tensor, wanted in zip(flat(one), flat(other), strict=True):
                assert (tensor.dtype, tensor.stride()) == (wanted.dtype, wanted.stride())
                assert torch.equal(tensor, wanted)
        monkeypatch.setattr(WorkQueue, "__call__", None)  # whoever comes later loads nothing
    (path,) = cache.glob("*.arrays")
    assert loader(what).num_bytes <= path.stat().st_size < loader(what).num_bytes + 8000


def test_without_disk_each_process_keeps_its_own(cache, capsys, monkeypatch):
    cache.parent.write_text("")  # no folder
    batches = KeptBatches(loader("images"), CacheBudget(2**20, DISK))
    other = KeptBatches(loader("targets"), batches.budget)
    for one in (batches, other):
        assert len(list(one)) == 3
        assert (len(one.kept), one.is_mapped) == (3, False)
    said = capsys.readouterr().err
    assert said.count("\n") == 1, "once is enough"
    assert "images are kept by every process for itself" in said
    assert "Set NASRAY_CACHE to a folder that can be written" in said


def test_an_image_that_cannot_be_read_is_no_fault_of_the_cache(cache, monkeypatch):
    def unreadable(self, index):
        raise NasrayError("image 0 is damaged")

    monkeypatch.setattr(type(DATASET), "read_image", unreadable)
    batches = KeptBatches(loader("images"), CacheBudget(2**20, DISK))
    with pytest.raises(NasrayError, match=r"^image 0 is damaged$"):
        list(batches)
    assert not list(cache.glob("*.arrays"))


def test_another_size_order_or_target_has_another_file():
    reordered = DATASET.select(np.array([1, 0, 2, 3, 4]))
    moved = dataclasses.replace(DATASET, boxes=DATASET.boxes + 0.5)
    stored = dataclasses.replace(DATASET, pixel_rules=dataclasses.replace(DATASET.pixel_rules, orientation="stored"))
    digests = [
        loader("images").digest(),
        loader("images", batch_size=3).digest(),
        loader("images", side=64).digest(),
        loader("images", reordered).digest(),
        loader("images", stored).digest(),
        loader("targets").digest(),
        loader("targets", moved).digest(),
        loader("masks").digest(),
        loader("classes").digest(),
        loader("classes", side=64).digest(),
    ]
    assert len(set(digests)) == len(digests)
    assert loader("images", moved, options=LoaderOptions(processes=2)).digest() == digests[0]
