import dataclasses
import os
import signal
import time

import numpy as np
import pytest
import torch

from nasray.data import work
from nasray.data.formats.coco import read_coco
from nasray.data.loader import EvaluationLoader, TrainLoader, pad_images
from nasray.data.outlines import Segmentations
from nasray.data.source import open_data
from nasray.data.transforms import FILL
from nasray.data.work import WorkQueue
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = AugmentationOptions(mosaic=0.3, expand=0.3, crop=0.3, color=0.3, short_side=(48, 64))
HERE = LoaderOptions(processes=0)


@pytest.fixture(scope="module")
def shapes():
    return open_data("shapes")


@pytest.fixture(scope="module")
def val(shapes):
    return shapes.split("val")


def loader(dataset, batch_size=8, augmentation=ALL, options=HERE, seed=3, **more):
    return TrainLoader(dataset, augmentation, batch_size=batch_size, stride=32, seed=seed, options=options, **more)


def assert_same(one, other):
    for key in ("images", "image_hw", "original_hw", "indices"):
        assert torch.equal(getattr(one, key), getattr(other, key)), key
    for target, twin in zip(one.targets, other.targets, strict=True):
        assert target.keys() == twin.keys()
        assert all(torch.equal(target[key], twin[key]) for key in target)


def assert_all_same(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert_same(one, other)


def test_what_a_batch_is(val):
    batch = next(loader(val).epoch(0))
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape[0] == len(batch.targets) == 8
    assert all(edge % 32 == 0 for edge in batch.images.shape[2:])
    assert batch.original_hw.tolist() == [[128, 128]] * 8
    for target, (height, width) in zip(batch.targets, batch.image_hw.tolist(), strict=True):
        assert (target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.int64)
        assert set(target) == {"boxes", "labels"}
        assert (target["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_padding_is_gray_and_on_the_right_and_at_the_bottom():
    batch = pad_images([torch.zeros(3, 40, 20, dtype=torch.uint8), torch.zeros(3, 10, 64, dtype=torch.uint8)], 32)
    assert batch.shape == (2, 3, 64, 64)
    assert not batch[0, :, :40, :20].any()
    assert batch[0, :, 40, 20].tolist() == batch[1, :, 63, 0].tolist() == list(FILL)


@pytest.mark.parametrize("processes", [1, 2])
def test_batches_do_not_depend_on_the_number_of_processes(val, processes):
    here, there = loader(val), loader(val, options=LoaderOptions(processes=processes))
    assert len(here) == 5
    for epoch in (0, 1):
        assert_all_same(here.epoch(epoch), there.epoch(epoch))


def test_epochs_and_seeds_differ(val):
    one, other = next(loader(val).epoch(0)), next(loader(val).epoch(1))
    assert not torch.equal(one.indices, other.indices)
    assert not torch.equal(one.indices, next(loader(val, seed=4).epoch(0)).indices)
    # The same image in another epoch is drawn anew.
    flip = AugmentationOptions(short_side=(64,), scale_jitter=(0.5, 1.5))
    images = [
        {int(index): image for batch in loader(val, augmentation=flip).epoch(epoch)
         for index, image in zip(batch.indices, batch.images, strict=True)}
        for epoch in (0, 1)
    ]  # fmt: skip
    assert not any(torch.equal(images[0][index], images[1][index]) for index in images[0])


@pytest.mark.parametrize("processes", [0, 2])
def test_an_epoch_continues_where_it_was_left(val, processes):
    feed = loader(val, options=LoaderOptions(processes=processes))
    whole = list(feed.epoch(2))
    started = feed.epoch(2)
    next(started)  # left in the middle, with batches on their way
    assert_all_same(feed.epoch(2, first_batch=3), whole[3:])
    assert list(feed.epoch(2, first_batch=5)) == []


def test_skipped_batches_are_not_loaded(val, monkeypatch):
    read = []
    original = type(val).read_image
    monkeypatch.setattr(type(val), "read_image", lambda self, index: read.append(index) or original(self, index))
    batch = next(loader(val, augmentation=AugmentationOptions(short_side=(64,))).epoch(0, first_batch=4))
    assert read == batch.indices.tolist()


def test_two_workers_see_what_one_sees_with_the_doubled_batch(val):
    whole = loader(val, batch_size=6)
    halves = [loader(val, batch_size=3, rank=rank, world=2) for rank in range(2)]
    assert len(whole) == len(halves[0]) == len(halves[1]) == 7
    for batch, first, second in zip(whole.epoch(0), *(half.epoch(0) for half in halves), strict=True):
        assert torch.equal(batch.indices, torch.cat([first.indices, second.indices]))
        for target, part in zip(batch.targets, [*first.targets, *second.targets], strict=True):
            assert torch.equal(target["boxes"], part["boxes"])


def test_a_batch_larger_than_the_set_repeats_it(val):
    feed = loader(val, batch_size=100)
    (batch,) = feed.epoch(0)
    assert len(feed) == 1
    thrice = set(batch.indices[80:].tolist())
    assert np.bincount(batch.indices).tolist() == [3 if index in thrice else 2 for index in range(40)]


def test_wide_and_tall_images_do_not_mix(write_coco, tmp_path, encode):
    path = write_coco(lambda content: content["images"][1].update(height=40, width=30))
    (tmp_path / "images/1.jpg").write_bytes(encode(np.zeros((40, 30, 3))))
    dataset = read_coco(path, [tmp_path / "images"], name="train")
    plain = AugmentationOptions(short_side=(32,))
    shapes = [batch.image_hw.tolist() for batch in loader(dataset, 2, plain).epoch(0)]
    assert shapes[0] == [[32, 43], [32, 43]]


def test_cached_images_are_read_once(val, monkeypatch):
    plain = AugmentationOptions(short_side=(64,))
    cached = loader(val, augmentation=plain, options=LoaderOptions(processes=0, cache=True))
    expected = list(loader(val, augmentation=plain).epoch(0))
    assert_all_same(cached.epoch(0), expected)
    monkeypatch.setattr(type(val), "read_image", lambda self, index: pytest.fail("read again"))
    assert_all_same(cached.epoch(0), expected)


def test_masks_come_along(val):
    # Without crops: the box of what is left of a triangle is larger than the triangle's part in it.
    augmentation = AugmentationOptions(expand=0.5, short_side=(96,))
    batch = next(loader(val, augmentation=augmentation, with_masks=True).epoch(0))
    for target in batch.targets:
        assert target["masks"].shape == (len(target["boxes"]), *batch.images.shape[2:])
        for mask, box in zip(target["masks"], target["boxes"], strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            assert (columns.min() - box[0]).abs() < 3
            assert (rows.max() + 1 - box[3]).abs() < 3


@pytest.mark.parametrize("processes", [0, 1])
def test_a_torn_image_is_one_message(write_coco, tmp_path, processes):
    dataset = read_coco(write_coco(), [tmp_path / "images"], name="train")
    torn = tmp_path / "images/2.jpg"
    torn.write_bytes(torn.read_bytes()[:300])
    feed = loader(dataset, 3, AugmentationOptions(short_side=(32,)), LoaderOptions(processes=processes))
    with pytest.raises(NasrayError) as info:
        list(feed.epoch(0))
    assert str(info.value).startswith(f"cannot read image {torn} (image id 12): ")
    assert "Traceback" not in str(info.value)


@pytest.mark.parametrize("processes", [0, 1])
def test_an_outline_that_was_never_checked_is_named(write_coco, tmp_path, processes):
    dataset = read_coco(write_coco(), [tmp_path / "images"], name="train")
    outlines = Segmentations.of([[[1, 1, 5, 1, 5, 5]], None, {"size": [30, 40], "counts": None}])
    dataset = dataclasses.replace(dataset, segmentations=outlines)
    feed = loader(
        dataset, 3, AugmentationOptions(short_side=(32,)), LoaderOptions(processes=processes), with_masks=True
    )
    with pytest.raises(
        NasrayError, match=r"annotation 1 of image .*1\.jpg \(image id 11\): segmentation has run"
    ) as info:
        list(feed.epoch(0))
    assert str(info.value).isprintable()


@pytest.mark.parametrize("make", [loader, lambda dataset: EvaluationLoader(dataset, ALL, batch_size=2, stride=32)])
def test_whatever_fails_on_an_image_names_it(write_coco, tmp_path, make):
    dataset = read_coco(write_coco(), [tmp_path / "images"], name="train")
    feed = make(dataset)
    work = feed.work if isinstance(feed, TrainLoader) else feed.queue.loader.dataset.work

    def transform(*_):
        raise TypeError("no such thing\nas this")

    work.transform = transform
    with pytest.raises(NasrayError, match=r"image .*\(image id 1\d\) cannot be loaded: TypeError: no such thing\. "):
        list(feed.epoch(0) if isinstance(feed, TrainLoader) else feed)


def test_masks_that_cannot_be_learned_are_refused_at_once(write_coco, tmp_path):
    path = write_coco(lambda content: content["annotations"][0].update(segmentation=[[1, 2]]))
    with pytest.raises(NasrayError, match=r"the first: .*annotation 1 of image 1\.jpg"):
        loader(read_coco(path, [tmp_path / "images"], name="train"), with_masks=True)
    with pytest.raises(NasrayError, match="has no segmentations"):
        loader(read_coco(write_coco(), [tmp_path / "images"], name="train"), with_masks=True)


def die(key):
    """Work during which the process is killed, while the other end waits for it."""
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_told():
    with pytest.raises(NasrayError, match=r"loader process died: .*choose fewer"):
        list(WorkQueue(die, 1)([0]))


def test_loading_leaves_the_global_generator_alone(val):
    state = torch.get_rng_state()
    list(loader(val).epoch(0))
    list(loader(val, options=LoaderOptions(processes=1)).epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("processes", [0, 1])
def test_evaluation_takes_every_image_once(val, processes):
    options = LoaderOptions(processes=processes)
    seen = []
    for rank in range(3):
        feed = EvaluationLoader(val, ALL, batch_size=4, stride=32, rank=rank, world=3, options=options)
        for _ in range(2 if rank == 0 else 1):
            batches = list(feed)
        assert len(batches) == len(feed)
        for batch in batches:
            seen += batch.indices.tolist()
            assert batch.targets == []
            assert batch.image_hw.tolist() == [[64, 64]] * len(batch.indices)
    assert sorted(seen) == list(range(40))
    plain = EvaluationLoader(val, AugmentationOptions(short_side=(128,)), batch_size=2, stride=64, options=HERE)
    batch = next(iter(plain))
    assert torch.equal(batch.images[1], val.read_image(int(batch.indices[1])))


@pytest.mark.parametrize("processes", [0, 1])
def test_evaluation_with_targets_has_the_same_images_and_all_objects(val, processes):
    half = AugmentationOptions(short_side=(48,), long_side=48)
    plain, learned = (
        list(EvaluationLoader(val, half, batch_size=3, stride=32, options=LoaderOptions(processes), with_targets=each))
        for each in (False, True)
    )
    for one, other in zip(plain, learned, strict=True):
        for name in ("images", "image_hw", "original_hw", "indices"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        for index, image_hw, target in zip(one.indices.tolist(), one.image_hw, other.targets, strict=True):
            whole = val.target(index)
            scale = (image_hw / torch.from_numpy(val.image_hw[index]))[[1, 0, 1, 0]]
            torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), whole["boxes"] * scale.float())
            assert torch.equal(target["labels"], whole["labels"])


def test_evaluation_with_masks(val):
    feed = EvaluationLoader(
        val,
        AugmentationOptions(short_side=(48,), long_side=48),
        batch_size=4,
        stride=32,
        options=HERE,
        with_targets=True,
        with_masks=True,
    )
    batch = next(iter(feed))
    for target, (height, width) in zip(batch.targets, batch.image_hw.tolist(), strict=True):
        assert target["masks"].shape == (len(target["boxes"]), *batch.images.shape[-2:])
        for mask, box in zip(target["masks"], target["boxes"].tolist(), strict=True):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert abs(torch.tensor(found) - torch.tensor(box)).max() <= 1.5
            assert rows.max() < height
            assert columns.max() < width


def test_real_images(shared_data):
    dataset = open_data(str(shared_data("bccd"))).split("val")
    batch = next(loader(dataset, 2, AugmentationOptions(short_side=(120,), flip=0.0)).epoch(0))
    assert batch.images.shape == (2, 3, 128, 160)
    index = int(batch.indices[0])
    assert torch.allclose(batch.targets[0]["boxes"], dataset.target(index)["boxes"] / 4)


@pytest.mark.parametrize(
    ("cores", "options", "expected", "line"),
    [
        (8.0, {}, 7, "7 of 8 cores load images"),
        (1.0, {}, 1, "1 of 1 cores load images"),
        (0.5, {}, 1, "1 of 0.5 cores load images"),
        (64.0, {}, 16, "16 of 64 cores load images"),
        (64.0, {"cache": True}, 2, "2 of 64 cores load images"),
        (8.0, {"processes": 7}, 7, None),
        (
            8.0,
            {"processes": 8},
            8,
            "loader.processes 8 and the worker itself share 8 cores. Leave loader.processes out",
        ),
        (1.0, {"processes": 0}, 0, None),
    ],
)
def test_loader_processes_follow_the_cores_beside_a_gpu(cores, options, expected, line, monkeypatch):
    monkeypatch.setattr(work, "assigned_cpus", lambda: cores)
    for assigned, has_gpu in ((None, True), (["0"], True), ([], False)):
        monkeypatch.setattr(work, "assigned_gpus", lambda assigned=assigned: assigned)
        monkeypatch.setattr(work.torch.cuda, "is_available", lambda: True)
        given = LoaderOptions(**options)
        assert work.num_processes(given) == (expected if has_gpu else options.get("processes", 1))
        text = work.loading_text(given)
        assert text is None if line is None or not has_gpu else text.startswith(line)
    assert LoaderOptions().processes is None, "what files say must not depend on the machine"
