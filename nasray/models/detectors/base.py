"""The contract of a detector: what every one of them takes and returns, whatever backbone it stands on.

Shapes: B images of H x W pixels (padded), K detections at most, N boxes of one image. Boxes are xyxy in absolute
pixels of the padded image; labels run from 0 to `num_classes` - 1; background has no label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from nasray.models.pixels import Normalize

Target = Mapping[str, Tensor]
"""The annotations of one image: `boxes` (N, 4) float, `labels` (N,) int64, and `masks` (N, H, W) where there are any.
N may be 0. Crowds and other boxes that are not to be learned are not in it."""

Raw = dict[str, Tensor | list[Tensor]]
"""What a network itself computes, before candidates are chosen: tensors, or lists of one tensor per level."""


class Detections(NamedTuple):
    """The detections of B images, best first; every image has K entries, of which those of score 0 are padding.

    Attributes:
        boxes: (B, K, 4) within the image.
        scores: (B, K) in [0, 1].
        labels: (B, K) int64.
        masks: (B, K, M, M) probabilities within each box (M is 28 for Mask R-CNN), or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


class Pyramid(Protocol):
    """What a detector needs of a network that stands where a backbone and its neck do.

    Its `forward` maps (B, 3, H, W) images to a list of `num_groups` maps (B, out_channels, h, w): objects are grouped
    by size, and each group is looked for on the map at its place. Several groups may share a map, the same tensor.

    Attributes:
        out_channels: Channels of every map.
        num_groups: Number of groups of objects, smallest first.
        strides: Pixels between two locations of each group's map, on the path that is set.
        stride: Largest stride of any path: height and width of images are padded to multiples of it.
    """

    out_channels: int
    num_groups: int
    stride: int

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two locations of each group's map."""
        ...


def is_pyramid(network: nn.Module) -> bool:
    """Return whether a network is a `Pyramid` rather than a backbone."""
    return hasattr(network, "num_groups")


class Detector(nn.Module):
    """A backbone and what turns its maps into boxes.

    Subclasses implement `forward_raw`, `loss` and `postprocess`. Nothing in them depends on the size of the images
    that they were built or exported with.

    Args:
        backbone: Network from (B, 3, H, W) images to an ordered dictionary of maps, with `feature_info`, a list with
            `num_chs` and `reduction` of each map in the same order.
        num_classes: Number of classes, the background not counted.
        score_threshold: Score that candidates must exceed not to be dropped.
        max_detections: K, the most detections of one image.

    Attributes:
        stride: Height and width of training images are padded to multiples of it.
        learns_masks: Whether targets need `masks`.
        slots: Slots that architectures can fill, and the place of each one's network in the detector.
        default_head_options: Options that only the default head has.
        former_names: Beginnings of parameter names in checkpoints of earlier versions, and what they are now.

    Raises:
        ValueError: if the backbone lacks a map that the detector needs; or for an option that is not allowed.
    """

    stride = 32
    learns_masks = False
    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone"}
    default_head_options: ClassVar[tuple[str, ...]] = ()
    former_names: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, backbone: nn.Module, num_classes: int, *, score_threshold: float = 0.05, max_detections: int = 100
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes is at least 1, got {num_classes}")
        self.backbone = backbone
        self.num_classes = num_classes
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.normalize = Normalize()

    def features(self, images: Tensor, reductions: Sequence[int]) -> list[Tensor]:
        """Return the backbone's maps of these reductions, from (B, 3, H, W) RGB values in 0 to 255."""
        maps = list(self.backbone(self.normalize(images)).values())
        return [maps[index] for index in map_indices(self.backbone, reductions)]

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Target] | None = None,
        image_hw: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor] | Detections:
        """Return losses if there are targets, else detections.

        Args:
            images: (B, 3, H, W) RGB, 0 to 255, padded at the bottom and on the right.
            targets: Targets of each image.
            image_hw: (B, 2) height and width of the images without padding; those of `images` if left out.
            generator: Generator of whatever the loss samples.
        """
        if targets is not None:
            return self.loss(images, targets, generator)
        if image_hw is None:
            height, width = images.shape[-2:]
            image_hw = torch.tensor([[height, width]], device=images.device).expand(len(images), 2)
        return self.postprocess(self.forward_raw(images), image_hw)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return what the network computes from (B, 3, H, W) RGB values in 0 to 255."""
        raise NotImplementedError

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return named losses, scalars whose sum is to be minimized. Finite for images without boxes too.

        Sums over positives are divided by their number over all workers (`losses.mean_over_workers`), so that two
        workers compute what one does with both batches.
        """
        raise NotImplementedError

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Choose detections from what `forward_raw` gave; boxes are clipped to `image_hw`, (B, 2)."""
        raise NotImplementedError


def map_indices(backbone: nn.Module, reductions: Sequence[int]) -> list[int]:
    """Return which of a backbone's maps have these reductions.

    Raises:
        ValueError: naming the reductions that are to be had.
    """
    found = [info["reduction"] for info in backbone.feature_info]  # type: ignore[union-attr]
    if missing := [reduction for reduction in reductions if reduction not in found]:
        raise ValueError(
            f"the detector needs maps of reduction {list(reductions)}; the backbone lacks {missing}, it has {found}"
        )
    return [found.index(reduction) for reduction in reductions]


def map_channels(backbone: nn.Module, reductions: Sequence[int]) -> list[int]:
    """Return the channels of the backbone's maps of these reductions."""
    info: Any = backbone.feature_info
    return [info[index]["num_chs"] for index in map_indices(backbone, reductions)]
