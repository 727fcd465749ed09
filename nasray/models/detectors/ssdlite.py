"""SSDLite: default boxes of many sizes and shapes on six levels; depthwise convolutions, for mobile backbones.

References: Liu et al., "SSD: Single shot multibox detector", ECCV 2016 (default boxes, matching, loss); Sandler et al.,
"MobileNetV2", CVPR 2018, section 6.2 (depthwise predictors); Howard et al., "Searching for MobileNetV3", ICCV 2019,
section 6.3 (widths of the levels).

Differs from the papers in:
- The first two levels are the backbone's last maps of reductions 16 and 32, not the expansion within the block behind
  the former and the 1280 channels in front of MobileNetV2's classifier.
- Sizes of default boxes, weights at first and norms are those of torchvision's `ssdlite320_mobilenet_v3_large`, with
  which the loss agrees too.

Shapes: B images, A default boxes of all levels (location by location), N boxes of one image, C classes; class C is the
background. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from nasray.models.detectors.anchors import BACKGROUND, boxes_to_deltas, deltas_to_boxes, grid_points, positives
from nasray.models.detectors.base import Detections, Detector, Raw, Target, map_channels
from nasray.models.detectors.candidates import detect
from nasray.models.detectors.heads import flatten_level, take
from nasray.models.detectors.losses import positive_count
from nasray.models.detectors.options import NumDetections
from nasray.spaces.ranges import Share

REDUCTIONS = (16, 32)
WIDTHS = (512, 256, 256, 128)
"""Channels of the levels behind those of the backbone."""
SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)
"""Edge of each level's square default box, as a share of the image's; the last is for the level after the last."""
RATIOS = (2, 3)
NUM_PER_LOCATION = 2 + 2 * len(RATIOS)
POSITIVE_IOU = 0.5
NUM_NEGATIVES = 3
"""Hardest negatives of an image that count, for each of its positives."""
DELTA_SCALES = (10.0, 5.0)


class SSDLite(Detector):
    """SSDLite (Sandler et al., CVPR 2018): depthwise heads on the last two maps and four smaller ones.

    Default boxes are shares of the padded image, so that a network is at its best on images of the aspect ratio that it
    was trained on. Where a level is a single pixel, as the last ones of small images are, training needs two images at
    least, or its norms have nothing to go by.

    Args:
        backbone: Backbone with maps of reduction 16 and 32.
        num_classes: C, number of classes.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks a map.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        score_threshold: Share = 0.02,
        nms_iou: Share = 0.55,
        max_detections: NumDetections = 200,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        self.nms_iou = nms_iou
        widths = [*map_channels(backbone, REDUCTIONS), *WIDTHS]
        self.extra = nn.ModuleList(_half(*pair) for pair in zip(widths[1:-1], WIDTHS, strict=True))
        self.classes = nn.ModuleList(_predictor(width, NUM_PER_LOCATION * (num_classes + 1)) for width in widths)
        self.deltas = nn.ModuleList(_predictor(width, NUM_PER_LOCATION * 4) for width in widths)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return per level, finest first: `logits` (B, 6 * (C + 1), H, W), `deltas` (B, 6 * 4, H, W) to defaults."""
        levels = self.features(images, REDUCTIONS)
        for half in self.extra:
            levels.append(half(levels[-1]))
        return {
            "logits": [classes(x) for classes, x in zip(self.classes, levels, strict=True)],
            "deltas": [deltas(x) for deltas, x in zip(self.deltas, levels, strict=True)],
        }

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_classes` (cross entropy of positives and hardest negatives) and `loss_boxes` (smooth L1).

        An image without boxes has no positives, and so no negatives either.
        """
        raw = self.forward_raw(images)
        levels = list(raw["logits"])
        defaults = torch.cat(default_boxes(levels))
        chosen = positives([match(defaults, target["boxes"]) for target in targets], targets, levels, NUM_PER_LOCATION)
        deltas = boxes_to_deltas(defaults[chosen.anchor], chosen.boxes, DELTA_SCALES)
        logits = torch.cat([flatten_level(level, self.num_classes + 1) for level in levels], dim=1)
        labels = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        labels[chosen.image, chosen.anchor] = chosen.labels
        count = positive_count(len(chosen.anchor), like=logits)
        return {
            "loss_classes": mined_cross_entropy(logits.float(), labels) / count,
            "loss_boxes": F.smooth_l1_loss(take(raw["deltas"], chosen.where, 4), deltas, reduction="sum") / count,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Decode, and suppress within each class."""
        scores, boxes = [], []
        levels = list(raw["logits"])
        for level, delta, default in zip(levels, raw["deltas"], default_boxes(levels), strict=True):
            scores.append(flatten_level(level.float(), self.num_classes + 1).softmax(dim=-1)[..., :-1])
            boxes.append(deltas_to_boxes(default, flatten_level(delta.float(), 4), DELTA_SCALES))
        return detect(scores, boxes, image_hw, self.score_threshold, self.nms_iou, self.max_detections)


def default_boxes(levels: Sequence[Tensor]) -> list[Tensor]:
    """Return the default boxes of each level of (B, ..., H, W), finest first: (H * W * 6, 4).

    The first level tells the padded image's size, of which the boxes are shares: its locations are 16 pixels apart.
    """
    image_height, image_width = (length * REDUCTIONS[0] for length in levels[0].shape[-2:])
    boxes = []
    for index, level in enumerate(levels):
        height, width = level.shape[-2:]
        points = grid_points(level, 1)
        center = torch.stack([points[:, 0] * image_width / width, points[:, 1] * image_height / height], dim=1)
        half = torch.tensor(default_shares(index), dtype=points.dtype).to(points.device, non_blocking=True) / 2
        half = torch.stack([half[:, 0] * image_width, half[:, 1] * image_height], dim=1)
        boxes.append(torch.cat([center[:, None] - half, center[:, None] + half], dim=2).reshape(-1, 4))
    return boxes


def default_shares(level: int) -> list[tuple[float, float]]:
    """Return the width and height of the six default boxes at a location of a level, as shares of the image's."""
    scale, between = SCALES[level], math.sqrt(SCALES[level] * SCALES[level + 1])
    shares = [(scale, scale), (between, between)]
    for ratio in RATIOS:
        longer, shorter = min(scale * math.sqrt(ratio), 1.0), scale / math.sqrt(ratio)
        shares += [(longer, shorter), (shorter, longer)]
    return shares


@torch.no_grad()
def match(defaults: Tensor, boxes: Tensor) -> Tensor:
    """Return the box that each default box is to predict, (A,): its index, or `BACKGROUND`.

    It is the one that it overlaps most, if by `POSITIVE_IOU`. Whatever that says, the default box that overlaps a box
    most predicts this one; the last one of several.

    Args:
        defaults: (A, 4).
        boxes: (N, 4).
    """
    background = torch.full((len(defaults),), BACKGROUND, dtype=torch.int64, device=defaults.device)
    if not len(boxes):
        return background
    overlap = box_iou(boxes, defaults)
    best, index = overlap.max(dim=0)
    best_of_box, favorite = overlap.max(dim=1)
    number = torch.arange(len(boxes), device=boxes.device)
    claimed = background.scatter_reduce(0, favorite, torch.where(best_of_box > 0, number, BACKGROUND), "amax")
    return torch.where(claimed >= 0, claimed, torch.where(best >= POSITIVE_IOU, index, BACKGROUND))


def mined_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of the cross entropy over positives and, in each image, three times as many hardest negatives.

    Args:
        logits: (B, A, C + 1).
        labels: (B, A); that of negatives is C.
    """
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    positive = labels < logits.shape[-1] - 1
    hardest = losses.masked_fill(positive, 0.0).sort(dim=1, descending=True).values
    rank = torch.arange(losses.shape[1], device=losses.device)
    counts = rank < NUM_NEGATIVES * positive.sum(dim=1, keepdim=True)
    return (losses * positive).sum() + (hardest * counts).sum()


def _half(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the layers that halve height and width, rounded up."""
    mid = out_channels // 2
    return nn.Sequential(
        *_conv_norm(in_channels, mid, 1),
        *_conv_norm(mid, mid, 3, stride=2, groups=mid),
        *_conv_norm(mid, out_channels, 1),
    )


def _predictor(in_channels: int, out_channels: int) -> nn.Sequential:
    depthwise = _conv_norm(in_channels, in_channels, 3, groups=in_channels)
    return nn.Sequential(*depthwise, _reset(nn.Conv2d(in_channels, out_channels, 1)))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [_reset(conv), nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.03), nn.ReLU6(inplace=True)]


def _reset(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.normal_(conv.weight, std=0.03)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
