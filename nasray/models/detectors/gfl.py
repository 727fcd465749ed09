"""Generalized focal loss, second version: distances to the edges as distributions, whose shape tells their quality.

References: Li et al., "Generalized focal loss V2: Learning reliable localization quality estimation for dense object
detection", CVPR 2021; Li et al., "Generalized focal loss", NeurIPS 2020 (the two losses); Zhang et al., "Bridging the
gap between anchor-based and anchor-free detection via adaptive training sample selection", CVPR 2020 (ATSS).

Differs from the papers in:
- The product of class and quality is formed as a logit, so that its loss is exact near 0 and 1.
- Fewer than 32 groups in the norms of a head that is narrower than 96 channels.

Shapes: B images, A locations of all levels (row by row), N boxes of one image, P positive locations, C classes, D = 17
distances that a distribution is over. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.detectors.anchors import BACKGROUND, Anchors, boxes_to_distances, distances_to_boxes, positives
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
    reset,
    take,
)
from nasray.models.detectors.losses import aligned_iou, generalized_iou_loss, positive_count, quality_focal_loss
from nasray.models.detectors.necks import FPN, REDUCTIONS, STRIDES
from nasray.models.detectors.options import Channels, Norm, NumConvs, NumDetections
from nasray.spaces.ranges import Share

FARTHEST = 16
"""Strides: the largest distance that a distribution is over; D is one more."""
NUM_BEST, QUALITY_CHANNELS = 4, 64
"""The highest probabilities of a distribution that tell its quality, and the hidden channels that they go through."""
BOX_WEIGHT, DISTRIBUTION_WEIGHT = 2.0, 0.25
ANCHOR_STRIDES = 8
"""Edge of the square anchor of each location, in strides."""
NUM_CLOSEST = 9
"""Candidates of each box on each level."""


class GFL(Detector):
    """GFLV2 (Li et al., CVPR 2021): distributions of distances, whose shape tells their quality, on P3 to P7.

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
        self.anchors = Anchors([[stride * ANCHOR_STRIDES] for stride in STRIDES], ratios=(1.0,))
        self.neck = FPN(map_channels(backbone, REDUCTIONS), channels, "convs", norm or "none")
        self.head = GFLHead(dense_head(head, channels, num_convs, norm or "group", len(STRIDES)), num_classes)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return what the head says of each level, finest first.

        Returns:
            `logits` (B, C, H, W) of class and quality together; `distributions` (B, 4 * D, H, W) as logits.
        """
        return {**self.head(self.neck(self.features(images, REDUCTIONS)))}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_classes` (quality focal loss), `loss_boxes` (generalized IoU), `loss_distributions`.

        The latter two are weighted by the highest score of each location.
        """
        raw = self.forward_raw(images)
        logits = list(raw["logits"])
        levels = self.anchors(logits, STRIDES)
        anchors, sizes = torch.cat(levels), [len(level) for level in levels]
        chosen = positives([assign(anchors, sizes, target["boxes"]) for target in targets], targets, logits)
        anchor = anchors[chosen.anchor]
        stride = (anchor[:, 2:3] - anchor[:, :1]) / ANCHOR_STRIDES
        center, truth = (anchor[:, :2] + anchor[:, 2:]) / 2 / stride, chosen.boxes / stride
        distribution = take(raw["distributions"], chosen.where, 4 * (FARTHEST + 1)).unflatten(1, (4, -1))
        boxes = distances_to_boxes(center, expected_distances(distribution))
        quality = aligned_iou(boxes.detach(), truth)
        weight = take(logits, chosen.where, self.num_classes).detach().sigmoid().amax(dim=1)
        total = positive_count(weight.sum(), like=weight)
        box_loss = (generalized_iou_loss(boxes, truth) * weight).sum()
        distribution_loss = (distribution_focal_loss(distribution, boxes_to_distances(center, truth)) * weight).sum()
        return {
            "loss_classes": quality_focal_loss(logits, chosen, self.num_classes, quality)
            / positive_count(len(anchor), like=anchors),
            "loss_boxes": box_loss * BOX_WEIGHT / total,
            "loss_distributions": distribution_loss * DISTRIBUTION_WEIGHT / total,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Take the mean of each distribution as distance, and suppress within each class."""
        scores, boxes = [], []
        for logit, distribution, anchor, stride in zip(
            raw["logits"], raw["distributions"], self.anchors(list(raw["logits"]), STRIDES), STRIDES, strict=True
        ):
            scores.append(flatten_level(logit.float().sigmoid(), self.num_classes))
            distances = expected_distances(
                flatten_level(distribution.float(), 4 * (FARTHEST + 1)).unflatten(2, (4, -1))
            )
            boxes.append(distances_to_boxes((anchor[:, :2] + anchor[:, 2:]) / 2, distances * stride))
        return detect(scores, boxes, image_hw, self.score_threshold, self.nms_iou, self.max_detections)


class GFLHead(nn.Module):
    """Classes and distributions from the two features that a `DenseHead` makes of each level.

    A small network tells the quality of the distributions.
    """

    def __init__(self, trunk: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        channels = cast(DenseHead, trunk).out_channels
        self.classes = predictor(channels, num_classes, prior_bias())
        self.distributions = predictor(channels, 4 * (FARTHEST + 1))
        self.scales = nn.ModuleList(Scale() for _ in STRIDES)
        self.quality = nn.Sequential(
            reset(nn.Conv2d(4 * (NUM_BEST + 1), QUALITY_CHANNELS, 1)),
            nn.ReLU(),
            reset(nn.Conv2d(QUALITY_CHANNELS, 1, 1)),
        )

    def forward(self, levels: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Map the levels to logits of class and quality together, and of distributions."""
        logits, distributions = zip(*each_level(self._level, levels), strict=True)
        return {"logits": list(logits), "distributions": list(distributions)}

    def _level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        classes, boxes = cast(DenseHead, self.trunk).towers(x, level)
        distribution = self.scales[level](self.distributions(boxes))
        quality = self.quality(statistics(distribution))
        return joint_logit(self.classes(classes), quality), distribution


def statistics(distributions: Tensor) -> Tensor:
    """Return the highest probabilities of each of the four distributions, and their mean: (B, 4 * 5, H, W)."""
    best = distributions.unflatten(1, (4, -1)).softmax(dim=2).topk(NUM_BEST, dim=2).values
    return torch.cat([best, best.mean(dim=2, keepdim=True)], dim=2).flatten(1, 2)


def joint_logit(classes: Tensor, quality: Tensor) -> Tensor:
    """Return the logit of the product of two probabilities that are given as logits, in float32."""
    # 1 / p - 1 of the product is (1 + exp(-c)) (1 + exp(-q)) - 1 = exp(-c) (1 + exp(-q)) + exp(-q).
    classes, quality = classes.float(), quality.float()
    return -torch.logaddexp(F.softplus(-quality) - classes, -quality)


def expected_distances(distributions: Tensor) -> Tensor:
    """Return the means, in strides, of (..., D) distributions given as logits."""
    steps = torch.arange(FARTHEST + 1, dtype=distributions.dtype, device=distributions.device)
    return (distributions.softmax(dim=-1) * steps).sum(dim=-1)


def distribution_focal_loss(distributions: Tensor, distances: Tensor) -> Tensor:
    """Return (P,) mean over the four edges of the cross entropy of the two steps around each distance.

    Args:
        distributions: (P, 4, D) logits.
        distances: (P, 4) in strides; those that a distribution cannot reach count as its ends.
    """
    distances = distances.clamp(0, FARTHEST - 0.1)
    below = distances.floor()
    share = distances - below
    logs = distributions.log_softmax(dim=-1)
    steps = torch.stack([below, below + 1], dim=-1).long()
    chosen = logs.gather(2, steps)
    return -(chosen[..., 0] * (1 - share) + chosen[..., 1] * share).mean(dim=1)


@torch.no_grad()
def assign(anchors: Tensor, sizes: Sequence[int], boxes: Tensor) -> Tensor:
    """Return the box that each anchor is to predict, (A,): an index, or `BACKGROUND` (ATSS, algorithm 1).

    Of the anchors whose centers are closest to a box's, nine on each level, those are positive that lie within it and
    overlap it by more than mean and deviation of the candidates' overlaps together. Of several boxes an anchor gets the
    one that it overlaps most.

    Args:
        anchors: (A, 4).
        sizes: Anchors of each level.
        boxes: (N, 4).
    """
    assigned = torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return assigned
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    offsets = centers[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2
    starts = [sum(sizes[:level]) for level in range(len(sizes))]
    closest = [
        level.topk(min(NUM_CLOSEST, len(level)), dim=0, largest=False).indices + start
        for level, start in zip(offsets.square().sum(dim=-1).split(list(sizes)), starts, strict=True)
    ]
    candidates = torch.cat(closest)  # (candidates, N)
    overlap = aligned_iou(anchors[candidates], boxes)
    least = overlap.mean(dim=0) + overlap.std(dim=0)
    within = boxes_to_distances(centers[candidates], boxes).amin(dim=-1) > 0.01
    overlap = torch.where(within & (overlap >= least), overlap, -1.0)
    best, index = offsets.new_full(offsets.shape[:2], -1.0).scatter_(0, candidates, overlap).max(dim=1)
    return torch.where(best >= 0, index, assigned)
