import io

import numpy as np
import pytest
import torch
from PIL import Image

from nasray.cluster.training import Worker
from nasray.data import open_data
from nasray.models.detectors.base import Detections
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.training.validation import make_validation

RECIPE = Recipe(
    name="x", batch_size=16, augmentation=AugmentationOptions(short_side=(128,), long_side=256),
    loader=LoaderOptions(processes=0, group_aspect=False),
)  # fmt: skip


class Oracle(torch.nn.Module):
    """Finds what is there in images that come in the data set's order."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset, self.place = dataset, 0

    def forward(self, images, image_hw):
        found = [torch.zeros(len(images), 9, 4), torch.zeros(len(images), 9), torch.zeros(len(images), 9).long()]
        for row in range(len(images)):
            target = self.dataset.target(self.place)
            num = len(target["labels"])
            factor = image_hw[row, 0] / self.dataset.image_hw[self.place, 0]
            found[0][row, :num], found[1][row, :num] = target["boxes"] * factor, 0.9
            found[2][row, :num] = target["labels"]
            self.place += 1
        return Detections(*found)


@pytest.fixture(scope="module")
def source():
    return open_data("shapes")


def test_metrics_and_pictures(source):
    dataset = source.split("val")
    found = make_validation(dataset, RECIPE, 32, Worker())(Oracle(dataset))
    assert found.metrics["mAP"] == pytest.approx(1.0)
    assert found.metrics["AP50"] == pytest.approx(1.0)
    assert len(found.pictures) == 4
    title = f"image {dataset.image_ids[0]}"
    picture = np.asarray(Image.open(io.BytesIO(found.pictures[title]))).transpose(2, 0, 1)
    image = dataset.read_image(0).numpy()
    assert picture.shape == image.shape
    left, top, right, bottom = dataset.target(0)["boxes"][0].round().int().tolist()
    assert (picture != image).any(axis=0)[top : bottom + 1, left : right + 1].any()


def test_only_the_first_worker_measures_and_a_set_without_val_is_not_validated(source):
    second = make_validation(source.split("val"), RECIPE, 32, Worker(1, 2))
    assert second(Oracle(source.split("val"))) == ({}, {})
    assert make_validation(None, RECIPE, 32, Worker()) is None
