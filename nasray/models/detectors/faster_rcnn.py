"""Faster R-CNN on a feature pyramid.

References: Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks for object detection",
CVPR 2017. What differs from them is listed in `rpn` and `roi`; trained jointly rather than in alternation.

Shapes: B images, P proposals, C classes, K detections. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from nasray.models.detectors.anchors import Anchors
from nasray.models.detectors.base import Detections, Detector, Pyramid, Raw, Target, is_pyramid, map_channels
from nasray.models.detectors.candidates import clip, select, stack, top_candidates
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.necks import FPN
from nasray.models.detectors.options import AnchorSize, BoxHeadKind, Channels, FirstLevel, Norm, NumDetections
from nasray.models.detectors.pooling import Groups, apply_to_boxes, pool_regions
from nasray.models.detectors.roi import BOX_SIZE, BoxHead, Samples, box_loss, decode, sample_regions
from nasray.models.detectors.rpn import propose, rpn_loss
from nasray.spaces.ranges import Share

PROPOSALS = 1000
"""P of inference: as many of each level take part in non-maximum suppression."""
TRAINING_PROPOSALS = 2000
"""The same of training."""
CANDIDATES = 2000
"""Pairs of proposal and class, of an image, that take part in the last non-maximum suppression."""


class FasterRCNN(Detector):
    """Faster R-CNN with FPN (Lin et al., CVPR 2017): proposals from all levels, then class and box of each.

    Args:
        backbone: Backbone of reductions 4 to 32 (8 to 32 if `first_level` is 3); or a `Pyramid` instead of a feature
            pyramid on a backbone. Proposals come from all of its groups, regions are pooled from all but the last.
        num_classes: C, number of classes.
        channels: Channels of the pyramid and of convolutions.
        box_head: Fully connected layers and convolutions of the box head: 4conv1fc of DetNAS, 2conv1fc of MSNAS.
        norm: Norm of the pyramid and of the box head's convolutions.
        base_size: Edge of the square anchor at the first level, in pixels; each level doubles it.
        first_level: First level of the pyramid: 2 for P2 to P6, 3 for P3 to P6; 2 if left out. A `Pyramid` has none.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Attributes:
        region_samples: Proposals of an image from which the loss of the box head is computed.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks a map.
    """

    region_samples = 512
    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone", "pyramid": "backbone"}

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        channels: Channels = 256,
        box_head: BoxHeadKind = "2fc",
        norm: Norm = "none",
        base_size: AnchorSize = 32.0,
        first_level: FirstLevel | None = None,
        score_threshold: Share = 0.05,
        nms_iou: Share = 0.5,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        if first_level not in (None, 2, 3):
            raise ValueError(f"first_level is 2 or 3, got {first_level}")
        self.nms_iou = nms_iou
        self.first_group = first_level or 2
        self.reductions = [2**level for level in range(self.first_group, 6)]
        if is_pyramid(backbone):
            num_groups = _check_pyramid(cast(Pyramid, backbone), channels, first_level)
            self.stride, self.neck = cast(Pyramid, backbone).stride, None
        else:
            self.neck = FPN(map_channels(backbone, self.reductions), channels, "pool", norm)
            num_groups = len(self.reductions) + 1
        self.anchors = Anchors([[base_size * 2**index] for index in range(num_groups)])
        self.rpn = RPNHead(channels, self.anchors.num_per_location)
        self.box_head = BoxHead(channels, num_classes, box_head, norm)

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
        """Groups that regions are pooled from: all but the last."""
        return Groups(self.strides[:-1], self.first_group)

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
        logits, deltas = apply_to_boxes(self.box_head, levels[:-1], proposals, scores > 0, BOX_SIZE, self.groups)
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
        return losses | self.region_losses(levels[:-1], samples, targets)

    def region_losses(self, maps: Sequence[Tensor], samples: Samples, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the losses of the sampled regions, from the levels that they are pooled from."""
        logits, deltas = self.box_head(pool_regions(maps, samples.regions, BOX_SIZE, self.groups))
        return box_loss(logits, deltas, samples)

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


def _check_pyramid(pyramid: Pyramid, channels: int, first_level: int | None) -> int:
    """Return the number of a pyramid's groups; refuse options that it cannot keep to."""
    if first_level is not None:
        raise ValueError("first_level is of a feature pyramid on a backbone; this pyramid has its own. Leave it out")
    if pyramid.out_channels != channels:
        raise ValueError(f"channels is that of the pyramid's maps, {pyramid.out_channels}; got {channels}")
    return pyramid.num_groups
