import numpy as np
import pytest
import torch

from nasray.data.transforms import (
    EvaluationTransform,
    TrainTransform,
    color_jitter,
    make_sample,
    mosaic,
    resized_hw,
)
from nasray.recipe_options import AugmentationOptions

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(box=(20, 30, 50, 70), image_hw=(96, 128), masks=False):
    """A green rectangle on gray, and its annotation."""
    image = torch.full((3, *image_hw), 90, dtype=torch.uint8)
    mask = torch.zeros((1, *image_hw), dtype=torch.uint8)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = torch.tensor([0, 255, 0], dtype=torch.uint8).view(3, 1, 1)
    mask[:, top:bottom, left:right] = 1
    target = {"boxes": torch.tensor([box], dtype=torch.float32), "labels": torch.tensor([2])}
    return make_sample(image, target | ({"masks": mask} if masks else {}))


def green_extent(image):
    """The box around what is green."""
    rows, columns = torch.nonzero((image[1].int() - image[0].int()) > 120, as_tuple=True)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


OPTIONS = {
    "plain": AugmentationOptions(flip=0.0, short_side=(96,)),
    "flip": AugmentationOptions(flip=1.0, vertical_flip=1.0, short_side=(96,)),
    "sizes": AugmentationOptions(short_side=(48, 64, 112), long_side=140),
    "square": AugmentationOptions(square=64),
    "expand": AugmentationOptions(expand=1.0, short_side=(160,)),
    "crop": AugmentationOptions(crop=1.0, short_side=(96,)),
    "jitter": AugmentationOptions(scale_jitter=(0.6, 1.4), square=96),
    "jitter-sides": AugmentationOptions(scale_jitter=(0.6, 1.4), short_side=(64, 96)),
    "all": AugmentationOptions(expand=0.5, crop=0.5, scale_jitter=(0.7, 1.3), vertical_flip=0.5, color=0.5, square=96),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_boxes_and_masks_stay_on_their_objects(name):
    transform = TrainTransform(OPTIONS[name])
    kept = 0
    for seed in range(12):
        sample = transform(picture(masks=True), seed)
        image, boxes, masks = sample["image"], sample["boxes"], sample["masks"]
        assert image.dtype == torch.uint8
        assert len(boxes) == len(sample["labels"]) == len(masks) <= 1
        if len(boxes):
            kept += 1
            assert (green_extent(image) - boxes[0].as_subclass(torch.Tensor)).abs().max() <= 2
            rows, columns = torch.nonzero(masks[0], as_tuple=True)
            extent = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (extent - boxes[0].as_subclass(torch.Tensor)).abs().max() <= 1.5
            assert sample["labels"].tolist() == [2]
    assert kept >= 8


@pytest.mark.parametrize("name", OPTIONS)
def test_same_seed_same_sample_and_nothing_else_draws(name):
    transform = TrainTransform(OPTIONS[name])
    state = torch.get_rng_state()
    one, other = transform(picture(), 5), transform(picture(), 5)
    assert torch.equal(one["image"], other["image"])
    assert torch.equal(one["boxes"], other["boxes"])
    assert torch.equal(torch.get_rng_state(), state)
    if name not in ("plain", "flip", "square"):
        assert any(
            transform(picture(), seed)["image"].shape != one["image"].shape
            or not torch.equal(transform(picture(), seed)["image"], one["image"])
            for seed in range(6, 12)
        )


def test_an_image_without_boxes_passes_all():
    empty = make_sample(picture()["image"], {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)})
    sample = TrainTransform(OPTIONS["all"])(empty, 0)
    assert sample["image"].shape == (3, 96, 96)
    assert sample["boxes"].shape == (0, 4)


def test_boxes_that_vanish_are_left_out():
    transform = TrainTransform(AugmentationOptions(flip=0.0, short_side=(12,)))
    sample = transform(picture(box=(20, 30, 26, 70)), 0)  # 6 pixels wide, 0.75 after resizing
    assert len(sample["boxes"]) == len(sample["labels"]) == 0


def test_short_and_long_side():
    assert resized_hw((480, 640), 240, 1333) == (240, 320)
    assert resized_hw((427, 640), 800, 1333) == (800, 1199)
    assert resized_hw((200, 1000), 800, 1333) == (267, 1333)
    assert resized_hw((200, 1000), 800, 1333, 320) == (320, 320)
    assert resized_hw((1, 1000), 10, 100) == (1, 100)


def test_all_short_sides_are_drawn():
    transform = TrainTransform(OPTIONS["sizes"])
    heights = {transform(picture(), seed)["image"].shape[1] for seed in range(30)}
    assert heights == {48, 64, 105}  # 112 would make the long side 149


def test_evaluation_only_resizes():
    image = picture()["image"]
    options = AugmentationOptions(mosaic=1, expand=1, crop=1, color=1, short_side=(64, 48))
    assert EvaluationTransform(options)(image).shape == (3, 48, 64)
    assert EvaluationTransform(AugmentationOptions(square=64))(image).shape == (3, 64, 64)
    sides = AugmentationOptions(short_side=(64,), evaluation_sides=(48, 60))
    assert EvaluationTransform(sides)(image).shape == (3, 45, 60)
    assert EvaluationTransform(AugmentationOptions(short_side=(96,)))(image) is image


def test_colors_change_as_much_as_is_asked():
    image = picture()["image"]
    differences = []
    for strength in (0.1, 1.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            differences.append((color_jitter(strength)(image).float() - image.float()).abs().mean())
    assert 0 < differences[0] < differences[1] / 2


def test_a_mosaic_has_parts_of_all_four():
    samples = [picture(box=(10, 10, 118, 86), masks=True) for _ in range(4)]
    for number, sample in enumerate(samples):
        sample["labels"] = torch.tensor([number])
    for seed in range(5):
        result = mosaic(samples, np.random.default_rng(seed))
        assert result["image"].shape == (3, 96, 128)
        assert result["labels"].tolist() == [0, 1, 2, 3]
        for box, mask in zip(result["boxes"].as_subclass(torch.Tensor).tolist(), result["masks"], strict=True):
            alone = torch.where(mask.bool(), result["image"].as_subclass(torch.Tensor), 0)
            assert (green_extent(alone) - torch.tensor(box)).abs().max() <= 2
        green = (result["image"][1].int() - result["image"][0].int()) > 120
        assert green.sum() == pytest.approx(float(result["masks"].sum()), rel=0.05)


def test_a_mosaic_drops_what_is_hardly_left():
    samples = [picture(box=(0, 0, 128, 96)), *(picture(box=(0, 40, 2, 44)) for _ in range(3))]
    counts = {len(mosaic(samples, np.random.default_rng(seed))["labels"]) for seed in range(30)}
    assert min(counts) < 4
