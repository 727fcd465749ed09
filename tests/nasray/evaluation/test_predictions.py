"""Detections come back in the pixels of the original images, once each, in the order of images."""

import multiprocessing
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools import mask as coco_mask
from torch import distributed, nn

from nasray.data import EvaluationLoader, open_data
from nasray.evaluation import refuse_other_classes
from nasray.evaluation.predictions import Predictions, gather, predict
from nasray.models.detectors.base import Detections
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError

pytestmark = pytest.mark.usefixtures("one_thread")


COLUMNS = ("image_index", "boxes", "scores", "labels")


class WholeImage(nn.Module):
    """Finds one box, the whole image, and one that reaches over its edge; fills up with nothing."""

    def forward(self, images, targets=None, image_hw=None):
        boxes = torch.zeros(len(images), 3, 4)
        boxes[:, 0, 2:] = image_hw[:, [1, 0]]
        boxes[:, 1, 2:] = image_hw[:, [1, 0]] / 2
        return Detections(
            boxes, torch.tensor([[0.9, 0.5, 0.0]]).expand(len(images), 3), torch.ones(len(images), 3).long()
        )


def loader(dataset, **options):
    augmentation = AugmentationOptions(short_side=(48,), long_side=100)
    return EvaluationLoader(
        dataset, augmentation, batch_size=3, stride=32, options=LoaderOptions(processes=0), **options
    )


def test_original_pixels():
    dataset = open_data("shapes").split("val")
    told = []
    found = predict(WholeImage(), loader(dataset), progress=told.append)
    assert told[-1] == len(dataset)
    np.testing.assert_array_equal(found.image_index, np.repeat(np.arange(len(dataset)), 2))
    np.testing.assert_allclose(found.boxes[::2, 2:], dataset.image_hw[:, [1, 0]], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[1::2, 2:], dataset.image_hw[:, [1, 0]] / 2, rtol=1e-6)
    assert (found.scores == np.tile(np.float32([0.9, 0.5]), len(dataset))).all()


def test_workers_together_see_every_image_once():
    dataset = open_data("shapes").split("val")
    parts = [predict(WholeImage(), loader(dataset, rank=rank, world=3)) for rank in range(3)]
    together, alone = Predictions.join(parts), predict(WholeImage(), loader(dataset))
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    assert gather(alone) is alone


def test_gather(tmp_path):
    dataset = open_data("shapes").split("val")
    alone = predict(WholeImage(), loader(dataset))

    def work(rank):
        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=rank, world_size=2)
        together = gather(predict(WholeImage(), loader(dataset, rank=rank, world=2)))
        same = [np.array_equal(getattr(together, name), getattr(alone, name)) for name in COLUMNS]
        os._exit(0 if all(same) else 1)

    workers = [multiprocessing.get_context("fork").Process(target=work, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]


class Half(WholeImage):
    """Finds the whole image, of which the left half is the object."""

    def forward(self, images, targets=None, image_hw=None):
        masks = torch.zeros(len(images), 3, 28, 28)
        masks[..., :14] = 1
        return super().forward(images, targets, image_hw)._replace(masks=masks)


def test_masks_are_those_of_the_original_image():
    dataset = open_data("shapes").split("val")
    found = predict(Half(), loader(dataset))
    assert len(found.masks) == len(found)
    height, width = dataset.image_hw[0].tolist()
    mask = coco_mask.decode(found.masks[0])
    assert mask.shape == (height, width)
    assert mask[3:-3, 3 : width // 2 - 3].all()
    assert not mask[:, width // 2 + 3 :].any()
    assert found.to_coco(dataset)[0]["segmentation"] == found.masks[0]


def test_coco_and_parquet(tmp_path):
    dataset = open_data("shapes").split("val")
    found = predict(WholeImage(), loader(dataset))
    first = found.to_coco(dataset)[0]
    height, width = dataset.image_hw[0].tolist()
    assert first["bbox"] == pytest.approx([0, 0, width, height])
    assert first["image_id"] == dataset.image_ids[0]
    assert first["category_id"] == dataset.category_ids[1]
    found.write(tmp_path / "found.parquet", dataset)
    table = pq.read_table(tmp_path / "found.parquet")
    assert table.num_rows == len(found)
    assert table["class"][0].as_py() == dataset.classes[1]
    np.testing.assert_array_equal(table["x_max"].to_numpy(), found.boxes[:, 2])


def test_other_classes_are_refused():
    refuse_other_classes(("a", "b"), ("a", "b"), "x")
    with pytest.raises(NasrayError, match="only in the data: c; only in the checkpoint: b"):
        refuse_other_classes(("a", "b"), ("a", "c"), "x.yaml")
    with pytest.raises(NasrayError, match="another order"):
        refuse_other_classes(("a", "b"), ("b", "a"), "x.yaml")
