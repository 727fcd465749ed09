"""Scaled batches are what the loader's own transforms make of the images, padded as it pads."""

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from nasray.data.loader import Batch
from nasray.data.scaling import images_at, scaled_batch
from nasray.data.transforms import FILL

SIZES = [(64, 96), (96, 64), (48, 96)]


def make_batch(*, with_masks=False):
    """Three images in 96x96, each with a large box and one that vanishes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.tensor(FILL, dtype=torch.uint8).view(1, 3, 1, 1).repeat(3, 1, 96, 96)
    targets = []
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:, :height, :width] = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
        boxes = torch.tensor([[8.0, 4.0, width, height], [10.0, 10.0, 11.0, 11.5]])
        targets.append({"boxes": boxes, "labels": torch.tensor([2, 1])})
        if with_masks:
            masks = torch.zeros((2, 96, 96), dtype=torch.uint8)
            masks[0, 4:height, 8:width] = 1
            masks[1, 10:12, 10:11] = 1
            targets[-1]["masks"] = masks
    return Batch(images, targets, torch.tensor(SIZES), torch.tensor(SIZES) * 2, torch.tensor([5, 6, 7]))


def test_images_are_scaled_by_themselves_and_padded_anew():
    batch = make_batch()
    found = scaled_batch(batch, 2 / 3, 64, 32, torch.device("cpu"))
    assert found.images.shape == (3, 3, 64, 64)
    assert found.image_hw.tolist() == [[43, 64], [64, 43], [32, 64]]
    for before, image, (height, width), (old_height, old_width) in zip(
        batch.images, found.images, found.image_hw.tolist(), SIZES, strict=True
    ):
        expected = F.resize(before[:, :old_height, :old_width], [height, width], antialias=True)
        assert torch.equal(image[:, :height, :width], expected)
        padding = torch.cat([image[:, height:].flatten(1), image[:, :, width:].flatten(1)], dim=1)
        assert torch.equal(padding, torch.tensor(FILL, dtype=torch.uint8)[:, None].expand_as(padding))
    assert torch.equal(found.original_hw, batch.original_hw)
    assert torch.equal(found.indices, batch.indices)
    assert batch.image_hw.tolist() == [list(size) for size in SIZES], "the batch itself stays"


def test_the_longest_side_bounds_the_factor():
    found = scaled_batch(make_batch(), 0.75, 64, 32, torch.device("cpu"))
    assert found.image_hw.tolist() == [[43, 64], [64, 43], [32, 64]]
    assert scaled_batch(make_batch(), 0.75, 96, 32, torch.device("cpu")).image_hw.tolist()[0] == [48, 72]


@pytest.mark.parametrize("with_masks", [False, True])
def test_boxes_and_masks_follow(with_masks):
    found = scaled_batch(make_batch(with_masks=with_masks), 0.5, 96, 32, torch.device("cpu"))
    for target, (height, width) in zip(found.targets, SIZES, strict=True):
        assert target["labels"].tolist() == [2], "what is less than a pixel is left out"
        torch.testing.assert_close(target["boxes"], torch.tensor([[4.0, 2.0, width / 2, height / 2]]))
        assert ("masks" in target) is with_masks
        if with_masks:
            expected = torch.zeros((1, 64, 64), dtype=torch.uint8)
            expected[0, 2 : height // 2, 4 : width // 2] = 1
            assert torch.equal(target["masks"], expected)


def test_images_without_boxes_stay():
    batch = make_batch()
    nothing = {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)}
    found = scaled_batch(batch._replace(targets=[nothing, *batch.targets[1:]]), 0.5, 96, 32, torch.device("cpu"))
    assert [len(target["labels"]) for target in found.targets] == [0, 1, 1]


def test_whole_images():
    images = make_batch().images
    assert torch.equal(images_at(images, (64, 64)), F.resize(images, [64, 64], antialias=True))
