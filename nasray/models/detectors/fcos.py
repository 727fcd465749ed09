"""FCOS: every location within a box predicts its distances to the four edges.

References: Tian et al., "FCOS: Fully convolutional one-stage object detection", ICCV 2019; the same authors, "FCOS: A
simple and strong anchor-free object detector", TPAMI 2020 (the improvements, all of which are here: centerness beside
the distances, distances in strides, center sampling, generalized IoU, the geometric mean as score).

Differs from the papers in:
- Fewer than 32 groups in the norms of a head that is narrower than 96 channels.

Shapes: B images, A locations of all levels (row by row), N boxes of one image, P positive locations, C classes. Boxes
are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.detectors.anchors import BACKGROUND, boxes_to_distances, distances_to_boxes, grid_points, positives
from nasray.models.detectors.base import Detections, Detector, Raw, Target, map_channels
from nasray.models.detectors.candidates import detect
from nasray.models.detectors.heads import (
    DenseHead,
    MakeHead,
    Scale,
    dense_head,
    each_level,
    flatten_level,
    predictor,
    prior_bias,
    take,
)
from nasray.models.detectors.losses import focal_loss, generalized_iou_loss, positive_count
from nasray.models.detectors.necks import FPN, REDUCTIONS, STRIDES
from nasray.models.detectors.options import Channels, Norm, NumConvs, NumDetections
from nasray.spaces.ranges import Share

RADIUS = 1.5
"""Locations within this many strides of the center of a box are positive."""


class FCOS(Detector):
    """FCOS (Tian et al., ICCV 2019): one point a location, centerness, on P3 to P7.

    Args:
        backbone: Backbone with maps of reduction 8, 16 and 32.
        num_classes: C, number of classes.
        head: What builds the head, instead of twin towers.
        channels: Channels of the pyramid and the towers.
        num_convs: Convolutions of each tower.
        norm: Norm of pyramid and towers; if left out "group" in the towers alone, as in the paper.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks a map.
    """

    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone", "head": "head.trunk"}
    default_head_options: ClassVar[tuple[str, ...]] = ("num_convs",)
    former_names: ClassVar[Mapping[str, str]] = {
        "head.class_tower.": "head.trunk.class_tower.",
        "head.box_tower.": "head.trunk.box_tower.",
    }

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        head: MakeHead | None = None,
        *,
        channels: Channels = 256,
        num_convs: NumConvs = 4,
        norm: Norm | None = None,
        score_threshold: Share = 0.05,
        nms_iou: Share = 0.6,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        self.nms_iou = nms_iou
        self.neck = FPN(map_channels(backbone, REDUCTIONS), channels, "convs", norm or "none")
        self.head = FCOSHead(dense_head(head, channels, num_convs, norm or "group", len(STRIDES)), num_classes)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return what the head says of each level, finest first.

        Returns:
            `logits` (B, C, H, W); `distances` (B, 4, H, W) in strides; `centerness` (B, 1, H, W) as logits.
        """
        return {**self.head(self.neck(self.features(images, REDUCTIONS)))}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_classes` (focal), `loss_boxes` (generalized IoU, weighted by centerness), `loss_centerness`."""
        raw = self.forward_raw(images)
        logits = list(raw["logits"])
        points, strides = all_points(logits)
        chosen = positives([assign(points, strides, target["boxes"]) for target in targets], targets, logits)
        point, stride = points[chosen.anchor], strides[chosen.anchor, None]
        distances = boxes_to_distances(point, chosen.boxes) / stride
        centerness = centerness_of(distances)
        count = positive_count(len(chosen.anchor), like=points)
        overlap_loss = generalized_iou_loss(
            distances_to_boxes(point / stride, take(raw["distances"], chosen.where, 4)), chosen.boxes / stride
        )
        centerness_loss = F.binary_cross_entropy_with_logits(
            take(raw["centerness"], chosen.where, 1)[:, 0], centerness, reduction="sum"
        )
        return {
            "loss_classes": focal_loss(logits, chosen, self.num_classes) / count,
            "loss_boxes": (overlap_loss * centerness).sum() / positive_count(centerness.sum(), like=points),
            "loss_centerness": centerness_loss / count,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Score with the geometric mean of class and centerness, and suppress within each class."""
        scores, boxes = [], []
        for logit, distance, centerness, stride in zip(
            raw["logits"], raw["distances"], raw["centerness"], STRIDES, strict=True
        ):
            joint = logit.float().sigmoid() * centerness.float().sigmoid()
            scores.append(flatten_level(joint.sqrt(), self.num_classes))
            points = grid_points(logit, stride)
            boxes.append(distances_to_boxes(points, flatten_level(distance.float(), 4) * stride))
        return detect(scores, boxes, image_hw, self.score_threshold, self.nms_iou, self.max_detections)


class FCOSHead(nn.Module):
    """Classes, and distances and centerness, from the two features that a `DenseHead` makes of each level."""

    def __init__(self, trunk: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        channels = cast(DenseHead, trunk).out_channels
        self.classes = predictor(channels, num_classes, prior_bias())
        self.boxes = predictor(channels, 4 + 1)  # distances, centerness
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Map the levels to logits, distances in strides, and logits of centerness."""
        logits, distances, centerness = zip(*each_level(self._level, levels), strict=True)
        return {"logits": list(logits), "distances": list(distances), "centerness": list(centerness)}

    def _level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        classes, boxes = cast(DenseHead, self.trunk).towers(x, level)
        distances, centerness = self.boxes(boxes).split([4, 1], dim=1)
        return self.classes(classes), self.scales[level](distances).relu(), centerness


def all_points(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the points (A, 2) of all levels and their strides (A,)."""
    points = [grid_points(level, stride) for level, stride in zip(levels, STRIDES, strict=True)]
    strides = [point.new_full((len(point),), stride) for point, stride in zip(points, STRIDES, strict=True)]
    return torch.cat(points), torch.cat(strides)


@torch.no_grad()
def assign(points: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """Return the box that each point is to predict, (A,): an index, or `BACKGROUND`.

    A point is positive if it is within a box, near its center, and of a level whose strides the box's extent from there
    is four to eight of (less on the first level, more on the last). Of several boxes it gets the smallest.

    Args:
        points: (A, 2).
        strides: (A,).
        boxes: (N, 4).
    """
    if not len(boxes):
        return torch.full((len(points),), BACKGROUND, dtype=torch.int64, device=points.device)
    distances = boxes_to_distances(points[:, None], boxes)
    extent = distances.amax(dim=-1)
    least = torch.where(strides > STRIDES[0], strides * 4, 0)[:, None]
    most = torch.where(strides < STRIDES[-1], strides * 8, torch.inf)[:, None]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (points[:, None] - center).abs().amax(dim=-1) < RADIUS * strides[:, None]
    fits = near & (distances.amin(dim=-1) > 0) & (extent >= least) & (extent <= most)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
    smallest, index = torch.where(fits, area, torch.inf).min(dim=1)
    return torch.where(smallest < torch.inf, index, BACKGROUND)


def centerness_of(distances: Tensor) -> Tensor:
    """Return the centerness (P,) of (P, 4) positive distances: 1 in the middle of a box, 0 at its edge."""
    opposite = distances.view(-1, 2, 2)
    return (opposite.amin(dim=1) / opposite.amax(dim=1)).prod(dim=1).sqrt()
