"""Mask R-CNN on a feature pyramid: Faster R-CNN, and a mask for every detection.

Reference: He et al., "Mask R-CNN", ICCV 2017 (the head on the right of figure 4).

Shapes: B images of H x W pixels, N annotated boxes, R regions of all images, C classes, K detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align

from nasray.models.detectors.base import Detections, Raw, Target
from nasray.models.detectors.faster_rcnn import FasterRCNN
from nasray.models.detectors.heads import MakeHead, check_purpose
from nasray.models.detectors.losses import positive_count
from nasray.models.detectors.options import (
    REGION_BASE,
    AnchorSize,
    BoxHeadKind,
    Channels,
    FirstLevel,
    Norm,
    NumDetections,
    RegionSamples,
    RegionSize,
)
from nasray.models.detectors.pooling import apply_to_boxes, group_sizes, pool_regions
from nasray.models.detectors.roi import Samples
from nasray.spaces.ranges import Share

POOLED_SIZE = 14
MASK_SIZE = 2 * POOLED_SIZE
NUM_CONVS = 4


class MaskRCNN(FasterRCNN):
    """Mask R-CNN (He et al., ICCV 2017): Faster R-CNN with a branch that draws a mask for every class.

    The branch is four convolutions and a transposed one.

    Masks are drawn of the final boxes, in `postprocess`; `forward_raw` therefore also returns the pyramid's `levels`.

    Args:
        backbone: Backbone; this and all other options are as for `FasterRCNN`.
        num_classes: C, number of classes.
        head: What builds the head of masks, instead of four convolutions: it maps (R, channels, 14, 14) to
            (R, out_channels, 14, 14).
        channels: Channels of the pyramid and of convolutions: 256 if left out, of a `Pyramid` its own.
        box_head: Fully connected layers and convolutions of the box head: 4conv1fc of DetNAS, 2conv1fc of MSNAS.
        norm: Norm of the pyramid and of the box head's convolutions.
        separate_heads: Whether every group has an RPN and a box head of its own, instead of one for all.
        base_size: Edge of the square anchor at the first level, in pixels; each level doubles it.
        region_samples: Proposals of an image from which the loss of the box head is computed.
        region_base: Edge in pixels of the regions of level P4, or of group 4 of a `Pyramid`; each level doubles
            it. Smaller for smaller images, as `base_size` is.
        first_level: First level of the pyramid: 2 for P2 to P6, 3 for P3 to P6; 2 if left out. A `Pyramid` has none.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks a map.
    """

    learns_masks = True
    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone", "pyramid": "backbone", "head": "mask_head.0"}

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        head: MakeHead | None = None,
        *,
        channels: Channels | None = None,
        box_head: BoxHeadKind = "2fc",
        norm: Norm = "none",
        separate_heads: bool = False,
        base_size: AnchorSize = 32.0,
        region_samples: RegionSamples = 512,
        region_base: RegionSize = REGION_BASE,
        first_level: FirstLevel | None = None,
        score_threshold: Share = 0.05,
        nms_iou: Share = 0.5,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(
            backbone,
            num_classes,
            channels=channels,
            box_head=box_head,
            norm=norm,
            separate_heads=separate_heads,
            base_size=base_size,
            region_samples=region_samples,
            region_base=region_base,
            first_level=first_level,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            max_detections=max_detections,
        )
        trunk, width = _mask_trunk(head, self.channels)
        self.mask_head = nn.Sequential(trunk, MaskRCNNPredictor(width, self.channels, num_classes))

    def forward_raw(self, images: Tensor) -> Raw:
        """Return what Faster R-CNN computes, and the pyramid's `levels` that masks are pooled from."""
        levels = self.pyramid(images)
        return {**self.raw_boxes(levels, images.shape[-2:]), "levels": levels[: self.num_pooled]}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of Faster R-CNN, and `loss_masks`.

        Raises:
            ValueError: if an image has boxes without masks.
        """
        if bare := [index for index, target in enumerate(targets) if "masks" not in target and len(target["boxes"])]:
            raise ValueError(
                f"Mask R-CNN learns from masks, and images {bare} of the batch have boxes without: give data whose "
                "annotations have a segmentation, or train faster-rcnn"
            )
        return super().loss(images, targets, generator)

    def region_losses(self, maps: Sequence[Tensor], samples: Samples, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of the boxes, and of the masks of positive regions."""
        losses = super().region_losses(maps, samples, targets)
        positive = samples.positive
        regions, labels = samples.regions[positive], samples.labels[positive]
        (logits,) = self._mask_logits(pool_regions(maps, regions, POOLED_SIZE, self.groups), regions)
        truth = mask_targets(regions, samples.truth[positive], targets)
        found = logits[torch.arange(len(labels), device=labels.device), labels]
        errors = F.binary_cross_entropy_with_logits(found, truth, reduction="sum") / MASK_SIZE**2
        return losses | {"loss_masks": errors / positive_count(len(labels), like=errors)}

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Return detections with masks, (B, K, 28, 28) probabilities of each box's own class; 0 for padding."""
        found = super().postprocess(raw, image_hw)
        maps = list(raw["levels"])
        (logits,) = apply_to_boxes(self._mask_logits, maps, found.boxes, found.scores > 0, POOLED_SIZE, self.groups)
        index = found.labels[..., None, None, None].expand(*found.labels.shape, 1, MASK_SIZE, MASK_SIZE)
        masks = logits.gather(2, index).squeeze(2).sigmoid() * (found.scores > 0)[..., None, None]
        return found._replace(masks=masks)

    def _mask_logits(self, pooled: Tensor, regions: Tensor) -> tuple[Tensor]:
        """Map (R, channels, 14, 14) to (R, C, 28, 28), in float32."""
        del regions
        return (self.mask_head(pooled).float(),)


def _mask_trunk(make: MakeHead | None, channels: int) -> tuple[nn.Module, int]:
    """Return the head that fills the slot, or by default four convolutions, and its number of output channels."""
    if make is None:
        return MaskRCNNHeads(channels, [channels] * NUM_CONVS, dilation=1), channels
    trunk: Any = make(in_channels=channels, num_levels=1)
    check_purpose(trunk, "masks")
    if type(trunk).forward is nn.Module.forward:
        raise ValueError(
            f"its head maps regions of 14 x 14 pixels to features of masks; {type(trunk).__name__} has no `forward`. "
            "Choose another head, or a detector that this one is for"
        )
    return trunk, trunk.out_channels


def mask_targets(regions: Tensor, truth: Tensor, targets: Sequence[Target]) -> Tensor:
    """Return what the masks of regions should be: the annotated ones, cut out and resized to (R, 28, 28), in [0, 1].

    Args:
        regions: (R, 5), those of an image after those of the one before.
        truth: (R,) index of the annotated box of each, within its image.
        targets: Targets of each image, with `masks` (N, H, W).
    """
    parts = [regions.new_zeros(0, MASK_SIZE, MASK_SIZE)]
    sizes = group_sizes(regions[:, 0], len(targets))
    for target, own, index in zip(targets, regions.split(sizes), truth.split(sizes), strict=True):
        if len(own):
            rois = torch.cat([index[:, None].to(own), own[:, 1:]], dim=1)
            masks = target["masks"][:, None].to(regions)
            parts.append(roi_align(masks, rois, MASK_SIZE)[:, 0])
    return torch.cat(parts)


def paste_masks(masks: Tensor, boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Return masks of boxes as masks of the whole image, (K, H, W) bool: where the probability is at least one half.

    Args:
        masks: (K, M, M) probabilities within each box.
        boxes: (K, 4) in pixels of the image.
        image_hw: H and W.
    """
    probabilities: Tensor = paste_masks_in_image(masks[:, None], boxes, image_hw)[:, 0]
    return probabilities >= 0.5
