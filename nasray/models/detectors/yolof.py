"""YOLOF: a single level of reduction 32, whose dilated convolutions see objects of every size.

Reference: Chen et al., "You only look one-level feature", CVPR 2021.

Differs from the paper in:
- An anchor that several boxes choose is to predict the one that it overlaps most; in the authors' code all of them pull
  at its prediction, and the last one tells its class.
- Convolutions of the towers have no bias in front of a norm.

Shapes: B images, A anchors (five at each location), N boxes of one image, C classes. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from nasray.models.detectors.anchors import BACKGROUND, IGNORED, Anchors, deltas_to_boxes, positives
from nasray.models.detectors.base import Detections, Detector, Raw, Target, map_channels
from nasray.models.detectors.candidates import detect
from nasray.models.detectors.gfl import joint_logit
from nasray.models.detectors.heads import Tower, flatten_level, predictor, prior_bias
from nasray.models.detectors.losses import focal_loss, generalized_iou_loss, positive_count
from nasray.models.detectors.options import AnchorSize, Channels, NumDetections
from nasray.spaces.ranges import Share

STRIDE = 32
NUM_SIZES = 5
DILATIONS = (2, 4, 6, 8)
NUM_CLASS_CONVS, NUM_BOX_CONVS = 2, 4
NUM_CLOSEST = 4
"""Anchors that each box chooses; and as many by their predictions."""
POSITIVE_IOU, NEGATIVE_IOU = 0.15, 0.7
"""An anchor that a box chose must overlap it by the former. One that none chose is background if its prediction
overlaps no box by more than the latter. All others are ignored."""


class YOLOF(Detector):
    """YOLOF (Chen et al., CVPR 2021): dilated convolutions on the last map alone.

    Args:
        backbone: Backbone with a map of reduction 32.
        num_classes: C, number of classes.
        channels: Channels of the encoder and the towers; the encoder's residual blocks have a quarter inside.
        base_size: Edge of the smallest anchor in pixels; each of the five is twice the one before.
        score_threshold: Score above which detections are kept.
        nms_iou: Overlap with a better box of its class above which a box is dropped.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks the map.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        channels: Channels = 512,
        base_size: AnchorSize = 32.0,
        score_threshold: Share = 0.05,
        nms_iou: Share = 0.6,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        if channels < 4:
            raise ValueError(f"channels is at least 4, got {channels}")
        self.nms_iou = nms_iou
        self.anchors = Anchors([[base_size * 2**power for power in range(NUM_SIZES)]], (1.0,))
        (in_channels,) = map_channels(backbone, [STRIDE])
        self.encoder = nn.Sequential(
            *_conv_norm(in_channels, channels, 1),
            *_conv_norm(channels, channels, 3),
            *(DilatedBlock(channels, dilation) for dilation in DILATIONS),
        )
        self.class_tower = Tower(channels, channels, NUM_CLASS_CONVS, "batch", num_levels=1)
        self.box_tower = Tower(channels, channels, NUM_BOX_CONVS, "batch", num_levels=1)
        self.classes = predictor(channels, NUM_SIZES * num_classes, prior_bias())
        self.deltas = predictor(channels, NUM_SIZES * 4)
        self.objectness = predictor(channels, NUM_SIZES)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return `logits` (B, 5 * C, H, W) of class and objectness together, `deltas` (B, 5 * 4, H, W) to anchors."""
        (x,) = self.features(images, [STRIDE])
        x = self.encoder(x)
        classes, boxes = self.class_tower(x), self.box_tower(x)
        logits = joint_logit(
            self.classes(classes).unflatten(1, (NUM_SIZES, self.num_classes)), self.objectness(boxes).unsqueeze(2)
        )
        return {"logits": logits.flatten(1, 2), "deltas": self.deltas(boxes)}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_classes` (focal) and `loss_boxes` (generalized IoU)."""
        logits, anchors, predictions = self._decode(self.forward_raw(images))
        matches = [
            match(anchors, prediction, target["boxes"])
            for prediction, target in zip(predictions.detach(), targets, strict=True)
        ]
        chosen = positives(matches, targets, [logits], NUM_SIZES)
        count = positive_count(len(chosen.anchor), like=anchors)
        box_loss = generalized_iou_loss(predictions[chosen.image, chosen.anchor], chosen.boxes).sum()
        return {
            "loss_classes": focal_loss([logits], chosen, self.num_classes) / count,
            "loss_boxes": box_loss / count,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Suppress within each class."""
        logits, _, boxes = self._decode(raw)
        scores = flatten_level(logits.float().sigmoid(), self.num_classes)
        return detect([scores], [boxes], image_hw, self.score_threshold, self.nms_iou, self.max_detections)

    def _decode(self, raw: Raw) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits, anchors (A, 4) and predicted boxes (B, A, 4), whose centers are near the anchors'."""
        logits, deltas = torch.as_tensor(raw["logits"]), torch.as_tensor(raw["deltas"])
        (anchors,) = self.anchors([logits], [STRIDE])
        shift, scale = flatten_level(deltas.float(), 4).split(2, dim=-1)
        most = STRIDE / (anchors[:, 2:] - anchors[:, :2])
        near = torch.cat([shift.clamp(-most, most), scale], dim=-1)
        return logits, anchors, deltas_to_boxes(anchors, near)


class DilatedBlock(nn.Module):
    """A bottleneck whose 3x3 convolution is dilated, and an identity around it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        mid = channels // 4
        self.main = nn.Sequential(
            *_conv_norm(channels, mid, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(mid, mid, 3, dilation),
            nn.ReLU(inplace=True),
            *_conv_norm(mid, channels, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        change: Tensor = self.main(x)
        return x + change


@torch.no_grad()
def match(anchors: Tensor, predictions: Tensor, boxes: Tensor) -> Tensor:
    """Return the box that each anchor is to predict, (A,): its index, or `BACKGROUND` or `IGNORED` (uniform matching).

    Every box, however large, chooses four anchors and four anchors' predictions: those closest to it, by the L1
    distance of center, width and height. Of several boxes an anchor gets the one that it overlaps most.

    Args:
        anchors: (A, 4).
        predictions: (A, 4), what the network makes of them so far.
        boxes: (N, 4).
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    truth = box_convert(boxes, "xyxy", "cxcywh")
    chosen = torch.zeros(len(boxes), len(anchors), dtype=torch.bool, device=anchors.device)
    for candidates in (anchors, predictions):
        distance = torch.cdist(truth, box_convert(candidates, "xyxy", "cxcywh"), p=1)
        chosen.scatter_(1, distance.topk(NUM_CLOSEST, dim=1, largest=False).indices, True)
    overlap, index = (box_iou(boxes, anchors) * chosen).max(dim=0)
    ignored = chosen.any(dim=0) | (box_iou(boxes, predictions) > NEGATIVE_IOU).any(dim=0)
    return torch.where(overlap >= POSITIVE_IOU, index, torch.where(ignored, IGNORED, BACKGROUND))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """Return a convolution that keeps height and width, and its norm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return [conv, nn.BatchNorm2d(out_channels)]
