"""Resolutions of a supernet's paths: the batch of a step is brought to that of the path which the step trains.

Reference: Cai et al., "Once-for-All", ICLR 2020, section 3.

Differs from the released code in: a batch is loaded at the largest resolution and made smaller once its path is drawn,
so that images and their augmentation do not depend on paths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasray.data.classification import ClassificationBatch
from nasray.data.loader import Batch
from nasray.data.scaling import images_at, scaled_batch
from nasray.models.detectors import DETECTORS
from nasray.recipe import Recipe, at_resolution, own_sides
from nasray.spaces import NasrayError, Space
from nasray.spaces.resolutions import STEP, network_genes, size_of, size_text


class PathResolutions:
    """Brings batches to the resolution of a path.

    Args:
        space: Space of the paths, with resolutions.
        stride: Images are padded to multiples of it.
        device: Device on which images are made smaller.
    """

    def __init__(self, space: Space, stride: int, device: torch.device) -> None:
        self.space, self.stride, self.device = space, stride, device

    def __call__(self, genes: NDArray[np.int64], batch: Any) -> tuple[NDArray[np.int64], Any]:
        """Return the genes that the network depends on, and a batch of the largest resolution at that of the path."""
        size, largest = size_of(self.space, genes), self.space.resolutions[-1]
        if size is not None and size != largest:
            batch = self._scaled(batch, size, min(size) / min(largest))
        return network_genes(self.space, genes), batch

    def _scaled(self, batch: Batch | ClassificationBatch, size: tuple[int, int], factor: float) -> Any:
        if isinstance(batch, Batch):
            return scaled_batch(batch, factor, max(size), self.stride, self.device)
        return batch._replace(images=images_at(batch.images.to(self.device), size))


def check_resolutions(recipe: Recipe, space: Space) -> None:
    """Refuse resolutions that do not go with a recipe's detector and images.

    Raises:
        NasrayError: saying which, and what would.
    """
    if not space.resolutions:
        return
    stride = DETECTORS[recipe.detector.name].stride if recipe.task == "detection" else 1
    for size in space.resolutions:
        if any(side % stride for side in size):
            raise NasrayError(
                f"sides of resolutions are multiples of {stride} for {recipe.detector.name}, got {size_text(size)}. "
                "Round them"
            )
        at_resolution(recipe, size)
    largest, own = sorted(space.resolutions[-1]), own_sides(recipe)
    if any(abs(side - wanted) >= STEP for side, wanted in zip(largest, own, strict=True)):
        sides = " and ".join(map(str, own))
        raise NasrayError(
            f"the largest of the resolutions is the size to which recipe {recipe.name} brings images, sides of {sides} "
            f"pixels, to less than {STEP}; got {size_text(space.resolutions[-1])}. Set space.resolutions and "
            "space.image_hw to end there, or the recipe's augmentation"
        )
