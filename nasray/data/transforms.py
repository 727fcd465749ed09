"""What is done to images and boxes, for training and for evaluation, on torchvision's transforms.

Every transform of a training sample is a pure function of the sample and of a seed. torchvision draws from PyTorch's
global generator, which is therefore forked and seeded for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nasray.recipe_options import AugmentationOptions

FILL = (124, 116, 104)
"""RGB of padding: the mean that detectors subtract, so that padding is nearly zero to them."""

MOSAIC_VISIBLE = 0.1  # a box of a mosaic of which less than this share is left is not an object any more


class Sample(TypedDict, total=False):
    """An image and its annotations. `masks` are there only if they are learned.

    `image` (3, H, W) uint8, `boxes` (n, 4) float32 xyxy, `labels` (n,) int64, `masks` (n, H, W) uint8.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    masks: tv_tensors.Mask


def make_sample(image: Tensor, target: dict[str, Tensor]) -> Sample:
    """Return a sample of plain tensors: (3, H, W) uint8, and a target as `DetectionSet.target` returns."""
    height, width = image.shape[-2:]
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(height, width))
    sample = Sample(image=tv_tensors.Image(image), boxes=boxes, labels=target["labels"])
    if "masks" in target:
        sample["masks"] = tv_tensors.Mask(target["masks"])
    return sample


def resized_hw(
    image_hw: tuple[int, int], short_side: int, long_side: int, square: int | None = None
) -> tuple[int, int]:
    """Return the height and width after resizing, in whole pixels, at least 1.

    Both are `square` if it is given; else the short side becomes `short_side`, unless the long one would then be
    longer than `long_side`.
    """
    if square is not None:
        return square, square
    scale = min(short_side / min(image_hw), long_side / max(image_hw))
    height, width = (max(round(edge * scale), 1) for edge in image_hw)
    return height, width


@dataclass(frozen=True)
class ResizeTo:
    """Resize to the recipe's size, drawn where there are several short sides.

    With scale jitter, resize to a random multiple of that size, then crop or pad to it at a random place.

    Attributes:
        options: Augmentation options of the recipe.
    """

    options: AugmentationOptions

    def __call__(self, sample: Sample) -> Sample:
        """Return the resized sample."""
        options = self.options
        choice = int(_draw() * len(options.short_side)) if len(options.short_side) > 1 else 0
        height, width = sample["image"].shape[-2:]
        size = resized_hw((height, width), options.short_side[choice], options.long_side, options.square)
        if options.scale_jitter is None:
            return resize(sample, size)
        low, high = options.scale_jitter
        factor = low + (high - low) * _draw()
        sample = resize(sample, (max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)))
        cropped: Sample = v2.RandomCrop(size, pad_if_needed=True, fill=_fill())(sample)
        return cropped


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Return the sample in another size; nothing is done to one that has it."""
    if tuple(sample["image"].shape[-2:]) == size:
        return sample
    resized: Sample = v2.Resize(size, antialias=True)(sample)
    return resized


def cleaned(sample: Sample) -> Sample:
    """Return the sample with boxes within the image; those that vanished are left out."""
    for step in (v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()):
        sample = step(sample)
    return sample


@dataclass(frozen=True)
class TrainTransform:
    """Everything but the mosaic: expand, crop, flips, size (with scale jitter), color.

    Attributes:
        options: Options of the recipe.
    """

    options: AugmentationOptions

    def __call__(self, sample: Sample, seed: int) -> Sample:
        """Return the transformed sample; boxes that vanished are left out. The same seed gives the same."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs' generators too
            for step in self._steps(sample):
                sample = step(sample)
        return sample

    def _steps(self, sample: Sample) -> list[Any]:
        options = self.options
        steps: list[Any] = []
        if options.expand:
            steps.append(v2.RandomZoomOut(fill=_fill(), side_range=(1.0, 2.0), p=options.expand))
        if options.crop and len(sample["labels"]):  # around nothing, no crop would ever be found
            steps.append(v2.RandomApply([v2.RandomIoUCrop()], p=options.crop))
        if options.flip:
            steps.append(v2.RandomHorizontalFlip(options.flip))
        if options.vertical_flip:
            steps.append(v2.RandomVerticalFlip(options.vertical_flip))
        steps.append(ResizeTo(options))
        if options.color:
            steps.append(color_jitter(options.color))  # after resizing: a change of hue costs more than all else
        return [*steps, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]


@dataclass(frozen=True)
class EvaluationTransform:
    """Resizing alone: to the sides for evaluation, the square, or the last short side.

    Attributes:
        options: Options of the recipe.
    """

    options: AugmentationOptions

    def __call__(self, image: Tensor) -> Tensor:
        """Return the (3, H, W) uint8 image in its new size."""
        height, width = image.shape[-2:]
        size = self.resized_hw((height, width))
        return image if size == (height, width) else F.resize(image, list(size), antialias=True)

    def with_target(self, sample: Sample) -> Sample:
        """Return the sample in its new size; boxes that vanished are left out."""
        height, width = sample["image"].shape[-2:]
        return cleaned(resize(sample, self.resized_hw((height, width))))

    def resized_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the new height and width of an image."""
        options = self.options
        if options.evaluation_sides is not None:
            return resized_hw(image_hw, *options.evaluation_sides)
        return resized_hw(image_hw, options.short_side[-1], options.long_side, options.square)


def color_jitter(strength: float) -> v2.Transform:
    """Return random brightness, contrast, saturation and hue.

    At strength 1 the ranges are those of torchvision's photometric distortion for SSD (Liu et al., ECCV 2016).
    """
    return v2.ColorJitter(
        brightness=0.125 * strength, contrast=0.5 * strength, saturation=0.5 * strength, hue=min(0.05 * strength, 0.5)
    )


# ---- mosaic ------------------------------------------------------------------------------------------------------


def mosaic(samples: Sequence[Sample], generator: np.random.Generator) -> Sample:
    """Return one sample from four, in the size of the first, as YOLOv4 (Bochkovskiy et al., 2020, section 3.4).

    Differs from the paper in: each image is resized so as to just cover its quarter and cropped to it, so that there
    is no padding; boxes of which little is left are dropped.

    Args:
        samples: Four samples.
        generator: Generator of the point where they meet, in the middle half of the image, and of the crops.
    """
    height, width = samples[0]["image"].shape[-2:]
    middle_y, middle_x = (round(edge * (0.25 + generator.random() / 2)) for edge in (height, width))
    corners = [
        (0, 0, middle_y, middle_x),
        (0, middle_x, middle_y, width),
        (middle_y, 0, height, middle_x),
        (middle_y, middle_x, height, width),
    ]
    image = torch.empty((3, height, width), dtype=torch.uint8)
    boxes, labels, masks = [], [], []
    for sample, (top, left, bottom, right) in zip(samples, corners, strict=True):
        part = _covering(sample, (bottom - top, right - left), generator)
        image[:, top:bottom, left:right] = part["image"]
        boxes.append(part["boxes"].as_subclass(Tensor) + torch.tensor([left, top, left, top]))
        labels.append(part["labels"])
        if "masks" in part:
            canvas = torch.zeros((len(part["masks"]), height, width), dtype=torch.uint8)
            canvas[:, top:bottom, left:right] = part["masks"]
            masks.append(canvas)
    target = {"boxes": torch.cat(boxes), "labels": torch.cat(labels)}
    if masks:
        target["masks"] = torch.cat(masks)
    return make_sample(image, target)


def _covering(sample: Sample, size: tuple[int, int], generator: np.random.Generator) -> Sample:
    """Return the sample resized to cover this size, and cropped to it at a random place."""
    image_hw = sample["image"].shape[-2:]
    scale = max(size[0] / image_hw[0], size[1] / image_hw[1])
    height, width = (max(round(edge * scale), least) for edge, least in zip(image_hw, size, strict=True))
    sample = resize(sample, (height, width))
    top, left = (
        int(generator.integers(0, whole - part + 1)) for whole, part in zip((height, width), size, strict=True)
    )
    before = sample["boxes"].as_subclass(Tensor)
    cropped: Any = {key: F.crop(value, top, left, *size) for key, value in sample.items() if key != "labels"}
    after = cropped["boxes"].as_subclass(Tensor)
    visible = _areas(after) >= MOSAIC_VISIBLE * _areas(before)
    kept = make_sample(cropped["image"], {"boxes": after[visible], "labels": sample["labels"][visible]})
    if "masks" in cropped:
        kept["masks"] = tv_tensors.Mask(cropped["masks"][visible])
    return kept


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _draw() -> float:
    """Return a number in [0, 1) from the generator that was seeded for this sample."""
    return float(torch.rand(1, generator=torch.default_generator))


def _fill() -> dict[Any, Any]:
    return {tv_tensors.Image: FILL, tv_tensors.Mask: 0}
