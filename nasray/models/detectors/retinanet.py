"""RetinaNet: nine anchors at every location, and a loss that the many easy ones do not drown.

Reference: Lin et al., "Focal loss for dense object detection", ICCV 2017.

Differs from the paper in:
- P6 comes from P5 rather than C5, and boxes are learned with L1 rather than smooth L1, as in torchvision, with whose
  `retinanet_resnet50_fpn` this network and its loss of one image are identical.
- An anchor that a box overlaps most matches it even below 0.5 (as in the authors' Detectron).
- Sums are divided by the number of positives of the whole batch, not image by image as in torchvision.

Shapes: B images, A anchors of all levels (location by location), C classes. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.detectors.anchors import Anchors, boxes_to_deltas, deltas_to_boxes, match, positives
from nasray.models.detectors.base import Detections, Detector, Raw, Target, map_channels
from nasray.models.detectors.candidates import detect
from nasray.models.detectors.heads import (
    DenseHead,
    MakeHead,
    dense_head,
    each_level,
    flatten_level,
    predictor,
    prior_bias,
    take,
)
from nasray.models.detectors.losses import focal_loss, positive_count
from nasray.models.detectors.necks import FPN, REDUCTIONS, STRIDES
from nasray.models.detectors.options import AnchorSize, Channels, Norm, NumConvs, NumDetections
from nasray.spaces.ranges import Share

NEGATIVE_IOU, POSITIVE_IOU = 0.4, 0.5


class RetinaNet(Detector):
    """RetinaNet (Lin et al., ICCV 2017): nine anchors a location and focal loss, on P3 to P7.

    Args:
        backbone: Backbone with maps of reduction 8, 16 and 32.
        num_classes: C, number of classes.
        head: What builds the head, instead of twin towers.
        channels: Channels of the pyramid and the towers.
        num_convs: Convolutions of each tower.
        norm: Norm of pyramid and towers.
        base_size: Edge of the smallest square anchor of the first level, in pixels; each level doubles it.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks a map.
    """

    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone", "head": "head.trunk"}
    default_head_options: ClassVar[tuple[str, ...]] = ("num_convs",)
    former_names: ClassVar[Mapping[str, str]] = {
        "class_tower.": "head.trunk.class_tower.",
        "box_tower.": "head.trunk.box_tower.",
        "classes.": "head.classes.",
        "deltas.": "head.deltas.",
    }

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        head: MakeHead | None = None,
        *,
        channels: Channels = 256,
        num_convs: NumConvs = 4,
        norm: Norm = "none",
        base_size: AnchorSize = 32.0,
        score_threshold: Share = 0.05,
        nms_iou: Share = 0.5,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        self.nms_iou = nms_iou
        self.anchors = Anchors([octaves(base_size * 2**level) for level in range(len(STRIDES))])
        self.neck = FPN(map_channels(backbone, REDUCTIONS), channels, "convs", norm)
        trunk = dense_head(head, channels, num_convs, norm, len(STRIDES))
        self.head = RetinaNetHead(trunk, self.anchors.num_per_location, num_classes)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return per level, finest first: `logits` (B, 9 * C, H, W), `deltas` (B, 9 * 4, H, W) to the anchors."""
        return {**self.head(self.neck(self.features(images, REDUCTIONS)))}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_classes` (focal) and `loss_boxes` (L1 of the deltas)."""
        raw = self.forward_raw(images)
        logits = list(raw["logits"])
        anchors = torch.cat(self.anchors(logits, STRIDES))
        matches = [match(anchors, target["boxes"], NEGATIVE_IOU, POSITIVE_IOU) for target in targets]
        chosen = positives(matches, targets, logits, self.anchors.num_per_location)
        deltas = boxes_to_deltas(anchors[chosen.anchor], chosen.boxes)
        count = positive_count(len(chosen.anchor), like=anchors)
        return {
            "loss_classes": focal_loss(logits, chosen, self.num_classes) / count,
            "loss_boxes": F.l1_loss(take(raw["deltas"], chosen.where, 4), deltas, reduction="sum") / count,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Decode, and suppress within each class."""
        scores, boxes = [], []
        anchors = self.anchors(list(raw["logits"]), STRIDES)
        for logit, delta, anchor in zip(raw["logits"], raw["deltas"], anchors, strict=True):
            scores.append(flatten_level(logit.float().sigmoid(), self.num_classes))
            boxes.append(deltas_to_boxes(anchor, flatten_level(delta.float(), 4)))
        return detect(scores, boxes, image_hw, self.score_threshold, self.nms_iou, self.max_detections)


class RetinaNetHead(nn.Module):
    """Classes and deltas of the anchors from the two features that a `DenseHead` makes of each level."""

    def __init__(self, trunk: nn.Module, num_per_location: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        channels = cast(DenseHead, trunk).out_channels
        self.classes = predictor(channels, num_per_location * num_classes, prior_bias())
        self.deltas = predictor(channels, num_per_location * 4)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Map the levels to logits and deltas."""
        logits, deltas = zip(*each_level(self._level, levels), strict=True)
        return {"logits": list(logits), "deltas": list(deltas)}

    def _level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        classes, boxes = cast(DenseHead, self.trunk).towers(x, level)
        return self.classes(classes), self.deltas(boxes)


def octaves(size: float) -> list[float]:
    """Return a size and those a third and two thirds of an octave above it, in whole pixels."""
    return [size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))]
