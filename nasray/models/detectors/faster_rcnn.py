"""Faster R-CNN on a feature pyramid.

References: Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks for object detection",
CVPR 2017. What differs from them is listed in `rpn` and `roi`; trained jointly rather than in alternation.

Shapes: B images, P proposals, C classes, K detections. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from nasray.models.detectors.anchors import Anchors
from nasray.models.detectors.base import Detections, Detector, Pyramid, Raw, Target, is_pyramid, map_channels
from nasray.models.detectors.candidates import clip, select, stack, top_candidates
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.necks import FPN
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
from nasray.models.detectors.pooling import Groups, apply_to_boxes, pool_regions, region_groups
from nasray.models.detectors.roi import BOX_SIZE, BoxHead, BoxHeads, Samples, box_loss, decode, sample_regions
from nasray.models.detectors.rpn import RPNHeads, propose, rpn_loss
from nasray.spaces.ranges import Share

PROPOSALS = 1000
"""P of inference: as many of each level take part in non-maximum suppression."""
TRAINING_PROPOSALS = 2000
"""The same of training."""
CANDIDATES = 2000
"""Pairs of proposal and class, of an image, that take part in the last non-maximum suppression."""
CHANNELS = 256
"""Channels of a feature pyramid where the options leave them out."""
FIRST_GROUP = 1
"""Number of the first group of a `Pyramid`, see `Groups` (MSNAS, Figure 2: k < 2)."""


class FasterRCNN(Detector):
    """Faster R-CNN with FPN (Lin et al., CVPR 2017): proposals from all levels, then class and box of each.

    Args:
        backbone: Backbone of reductions 4 to 32 (8 to 32 if `first_level` is 3); or a `Pyramid` instead of a feature
            pyramid on a backbone. Proposals come from all groups. Regions are pooled from all groups of a `Pyramid`,
            the first of which is for boxes of less than a quarter of `region_base`, and from all but the last of a
            feature pyramid.
        num_classes: C, number of classes.
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

    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone", "pyramid": "backbone"}

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
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
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        if first_level not in (None, 2, 3):
            raise ValueError(f"first_level is 2 or 3, got {first_level}")
        self.nms_iou, self.region_samples, self.region_base = nms_iou, region_samples, region_base
        self.reductions = [2**level for level in range(first_level or 2, 6)]
        if is_pyramid(backbone):
            pyramid = cast(Pyramid, backbone)
            self.channels = _check_pyramid(pyramid, channels, first_level)
            self.stride, self.neck = pyramid.stride, None
            num_groups, num_pooled = pyramid.num_groups, pyramid.num_groups
        else:
            self.channels = channels or CHANNELS
            self.neck = FPN(map_channels(backbone, self.reductions), self.channels, "pool", norm)
            num_groups, num_pooled = len(self.reductions) + 1, len(self.reductions)
        self.num_pooled = num_pooled
        self.anchors = Anchors([[base_size * 2**index] for index in range(num_groups)])
        make_rpn = partial(RPNHead, self.channels, self.anchors.num_per_location)
        make_box_head = partial(BoxHead, self.channels, num_classes, box_head, norm)
        self.rpn = RPNHeads(make_rpn() for _ in range(num_groups)) if separate_heads else make_rpn()
        self.box_head = BoxHeads(make_box_head() for _ in range(num_pooled)) if separate_heads else make_box_head()

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Return the map of each group, smallest objects first: of a feature pyramid the levels up to P6.

        Args:
            images: (B, 3, H, W) RGB, 0 to 255.
        """
        if self.neck is None:
            return list(self.backbone(self.normalize(images)))
        maps: list[Tensor] = self.neck(self.features(images, self.reductions))
        return maps

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two locations of each group's map."""
        return cast(Pyramid, self.backbone).strides if self.neck is None else (*self.reductions, 64)

    @property
    def groups(self) -> Groups:
        """Groups that regions are pooled from: all, of a feature pyramid all but the last."""
        first = FIRST_GROUP if self.neck is None else self.reductions[0].bit_length() - 1
        return Groups(self.strides[: self.num_pooled], first, self.region_base)

    def objectness(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return logits (B, A) and deltas (B, A, 4) of each level's A anchors, in float32."""
        logits, deltas = self.rpn(list(levels))
        return (
            [flatten_level(x, 1).squeeze(-1).float() for x in logits],
            [flatten_level(x, 4).float() for x in deltas],
        )

    def forward_raw(self, images: Tensor) -> Raw:
        """Return the proposals and what the box head says of them, from (B, 3, H, W) RGB values in 0 to 255.

        Returns:
            `proposals` (B, P, 4), within the padded image; `proposal_scores` (B, P), which only rank them, 0 for
            padding; `logits` (B, P, C + 1), of the background last; `deltas` (B, P, C, 4). Those of padding are 0.
        """
        return {**self.raw_boxes(self.pyramid(images), images.shape[-2:])}

    def raw_boxes(self, levels: Sequence[Tensor], image_hw: Sequence[int]) -> dict[str, Tensor]:
        """Return what `forward_raw` returns, from the pyramid's levels and the size of the padded images."""
        proposals, scores = propose(
            *self.objectness(levels), self.anchors(levels, self.strides), image_hw, num_before=PROPOSALS, num=PROPOSALS
        )
        maps = levels[: self.num_pooled]
        logits, deltas = apply_to_boxes(self._boxes, maps, proposals, scores > 0, BOX_SIZE, self.groups)
        return {"proposals": proposals, "proposal_scores": scores, "logits": logits, "deltas": deltas}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_objectness`, `loss_proposals` of the proposals, `loss_classes`, `loss_boxes` of the box head."""
        levels = self.pyramid(images)
        logits, deltas = self.objectness(levels)
        anchors, image_hw = self.anchors(levels, self.strides), images.shape[-2:]
        losses = rpn_loss(logits, deltas, anchors, targets, generator)
        proposals, scores = propose(
            logits, deltas, anchors, image_hw, num_before=TRAINING_PROPOSALS, num=TRAINING_PROPOSALS
        )
        samples = sample_regions(proposals, scores, targets, self.num_classes, self.region_samples, generator)
        return losses | self.region_losses(levels[: self.num_pooled], samples, targets)

    def region_losses(self, maps: Sequence[Tensor], samples: Samples, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of the sampled regions, from the levels that they are pooled from."""
        pooled = pool_regions(maps, samples.regions, BOX_SIZE, self.groups)
        logits, deltas = self._boxes(pooled, samples.regions)
        return box_loss(logits, deltas, samples)

    def _boxes(self, pooled: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, channels, 7, 7) of (R, 5) regions to logits (R, C + 1) and deltas (R, C, 4)."""
        if not isinstance(self.box_head, BoxHeads):
            found: tuple[Tensor, Tensor] = self.box_head(pooled)
            return found
        group = region_groups(regions[:, 1:], self.groups)
        return self.box_head.of_groups(pooled, group)

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Decode, and suppress within each class; boxes are clipped to `image_hw`, (B, 2)."""
        tensors = cast("dict[str, Tensor]", raw)
        proposals, deltas = tensors["proposals"], tensors["deltas"]
        scores = tensors["logits"].softmax(dim=-1)[..., :-1] * (tensors["proposal_scores"] > 0)[..., None]
        scores = torch.where(scores > self.score_threshold, scores, 0.0).flatten(1)
        boxes = decode(deltas.flatten(0, 1), proposals.flatten(0, 1)).view_as(deltas)
        images = []
        for image in range(len(scores)):
            best, index = top_candidates(scores[image], CANDIDATES)
            candidates = clip(boxes[image].flatten(0, 1)[index], *image_hw[image])
            inside = (candidates[:, 2:] > candidates[:, :2]).all(dim=1)  # not in the padding alone
            labels = index % self.num_classes
            images.append(select(candidates, best * inside, labels, self.nms_iou, self.max_detections))
        return stack(images)


def _check_pyramid(pyramid: Pyramid, channels: int | None, first_level: int | None) -> int:
    """Return the channels of a pyramid's maps; refuse options that it cannot keep to."""
    if first_level is not None:
        raise ValueError("first_level is of a feature pyramid on a backbone; this pyramid has its own. Leave it out")
    if channels not in (None, pyramid.out_channels):
        raise ValueError(
            f"channels is that of the pyramid's maps, {pyramid.out_channels}; got {channels}. Leave it out"
        )
    return pyramid.out_channels
