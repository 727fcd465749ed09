"""CenterNet: an object is a peak of its class's heatmap; its size and its center's offset stand at the same place.

References: Zhou et al., "Objects as points", 2019 (heads, targets, losses, decoding); Law and Deng, "CornerNet", ECCV
2018 (the radius of a peak); Xiao et al., "Simple baselines for human pose estimation", ECCV 2018 (deconvolutions).

Differs from the papers in:
- The deconvolutions are plain, not deformable, and all have 256 channels, as in the ResNets of the authors' code.
- The L1 losses are means over the two coordinates, and the radius has CornerNet's released roots, of which two are not
  those of its derivation: as in the authors' code.
- Peaks that score 0.01 or less are dropped, and nothing is averaged over flipped images.

Shapes: B images, C classes, h x w locations four pixels apart, N boxes of the whole batch. Boxes are xyxy in absolute
pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.detectors.anchors import grid_points
from nasray.models.detectors.base import Detections, Detector, Raw, Target, map_channels
from nasray.models.detectors.candidates import clip, stack, top_class_candidates
from nasray.models.detectors.heads import flatten_level, reset
from nasray.models.detectors.losses import positive_count
from nasray.models.detectors.options import Channels, NumDetections
from nasray.spaces.ranges import Share

STRIDE = 4
HEAD_CHANNELS = 64
PRIOR_BIAS = -2.19
"""The logit of what a fresh heatmap says everywhere, a score of 0.1."""
SIZE_WEIGHT, OFFSET_WEIGHT = 0.1, 1.0
MIN_OVERLAP = 0.7
"""Least IoU with its box of a box whose corners are off by the radius."""


class CenterNet(Detector):
    """CenterNet (Zhou et al., 2019): peaks of a heatmap of stride 4, from three deconvolutions of the last map.

    Args:
        backbone: Backbone with a map of reduction 32.
        num_classes: C, number of classes.
        channels: Channels of the deconvolutions.
        score_threshold: Score above which peaks are kept.
        max_detections: K, largest number of detections of an image.

    Raises:
        ValueError: for an option that is not allowed, or a backbone that lacks the map.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        channels: Channels = 256,
        score_threshold: Share = 0.01,
        max_detections: NumDetections = 100,
    ) -> None:
        super().__init__(backbone, num_classes, score_threshold=score_threshold, max_detections=max_detections)
        (in_channels,) = map_channels(backbone, [32])
        self.neck = nn.Sequential(
            _deconvolution(in_channels, channels),
            _deconvolution(channels, channels),
            _deconvolution(channels, channels),
        )
        self.heatmap = _head(channels, num_classes, PRIOR_BIAS)
        self.size = _head(channels, 2)
        self.offset = _head(channels, 2)

    def forward_raw(self, images: Tensor) -> Raw:
        """Return `heatmap` (B, C, h, w) logits, `size` (width, height), `offset` (x, y), (B, 2, h, w), in strides."""
        (x,) = self.features(images, [32])
        x = self.neck(x)
        return {"heatmap": self.heatmap(x), "size": self.size(x), "offset": self.offset(x)}

    def loss(
        self, images: Tensor, targets: Sequence[Target], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return `loss_heatmap` (focal, reduced near peaks), `loss_size` and `loss_offset` (L1 at the centers)."""
        logits, size, offset = _maps(self.forward_raw(images))
        height, width = logits.shape[-2:]
        boxes = torch.cat([target["boxes"] for target in targets]).float() / STRIDE
        labels = torch.cat([target["labels"] for target in targets])
        image = torch.cat([torch.full_like(target["labels"], index) for index, target in enumerate(targets)])
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        x, y = center[:, 0].long().clamp(0, width - 1), center[:, 1].long().clamp(0, height - 1)
        heatmap = draw_peaks(boxes, image * self.num_classes + labels, logits.flatten(0, 1).shape).view_as(logits)
        num_peaks = positive_count((heatmap == 1).sum(), like=logits)
        num_coordinates = positive_count(len(boxes), like=logits) * 2
        sizes, offsets = boxes[:, 2:] - boxes[:, :2], center - torch.stack([x, y], dim=1)
        size_loss = F.l1_loss(size[image, :, y, x], sizes, reduction="sum")
        offset_loss = F.l1_loss(offset[image, :, y, x], offsets, reduction="sum")
        return {
            "loss_heatmap": peak_loss(logits, heatmap) / num_peaks,
            "loss_size": size_loss * SIZE_WEIGHT / num_coordinates,
            "loss_offset": offset_loss * OFFSET_WEIGHT / num_coordinates,
        }

    def postprocess(self, raw: Raw, image_hw: Tensor) -> Detections:
        """Return the best peaks. A peak is no lower than its eight neighbors; nothing else is suppressed."""
        logits, size, offset = _maps(raw)
        peaks = logits.sigmoid() * (logits == F.max_pool2d(logits, 3, stride=1, padding=1))
        scores = flatten_level(peaks, self.num_classes)
        center, half = grid_points(logits, 1, offset=0) + flatten_level(offset, 2), flatten_level(size, 2) / 2
        boxes = torch.cat([center - half, center + half], dim=-1) * STRIDE
        images = []
        for index in range(len(boxes)):
            clipped = clip(boxes[index], *image_hw[index])
            inside = (clipped[:, 2:] > clipped[:, :2]).all(dim=1, keepdim=True)
            images.append(
                top_class_candidates(scores[index] * inside, clipped, self.max_detections, self.score_threshold)
            )
        return stack(images)


@torch.no_grad()
def draw_peaks(boxes: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return heatmaps of this shape, (M, h, w): 1 at centers, Gaussians around them, and where these meet, the highest.

    Args:
        boxes: (N, 4) in strides.
        index: (N,) of the map that each is drawn on.
        shape: M, h and w.
    """
    num_maps, height, width = shape
    extent = (boxes[:, 2:] - boxes[:, :2]).ceil()
    radius = peak_radius(extent[:, 0], extent[:, 1]).floor().clamp(min=0)[:, None]
    center = ((boxes[:, :2] + boxes[:, 2:]) / 2).floor()
    sides = []
    for middle, length in ((center[:, 1:], height), (center[:, :1], width)):
        away = torch.arange(length, device=boxes.device) - middle.clamp(0, length - 1)
        deviation = (2 * radius + 1) / 6
        sides.append((-(away**2) / (2 * deviation**2)).exp() * (away.abs() <= radius))
    peaks = (sides[0][:, :, None] * sides[1][:, None, :]).flatten(1)
    maps = boxes.new_zeros(num_maps, height * width)
    return maps.scatter_reduce_(0, index[:, None].expand_as(peaks), peaks, "amax").view(num_maps, height, width)


def peak_radius(width: Tensor, height: Tensor) -> Tensor:
    """Return (N,) how far, by CornerNet's code, corners of boxes may be off for an IoU of `MIN_OVERLAP`."""
    total, area = width + height, width * height
    cases = (
        (1, total, area * (1 - MIN_OVERLAP) / (1 + MIN_OVERLAP)),
        (4, 2 * total, area * (1 - MIN_OVERLAP)),
        (4 * MIN_OVERLAP, -2 * MIN_OVERLAP * total, area * (MIN_OVERLAP - 1)),
    )
    # The roots of a x^2 + b x + c are divided by 2 a: all who compare with the published figures leave out the a.
    return torch.stack([(b + (b**2 - 4 * a * c).sqrt()) / 2 for a, b, c in cases]).amin(dim=0)


def peak_loss(logits: Tensor, heatmap: Tensor) -> Tensor:
    """Return the sum of the focal loss with alpha 2 and beta 4 of (B, C, h, w) logits against a heatmap of peaks."""
    peaks = logits[heatmap == 1]
    present = F.softplus(-peaks) * (1 - peaks.sigmoid()).square()
    absent = F.softplus(logits) * logits.sigmoid().square() * (1 - heatmap).pow(4)  # which is 0 at peaks
    return present.sum() + absent.sum()


def _maps(raw: Raw) -> list[Tensor]:
    """Return heatmap, size and offset in float32."""
    return [torch.as_tensor(raw[name]).float() for name in ("heatmap", "size", "offset")]


def _deconvolution(in_channels: int, channels: int) -> nn.Sequential:
    convolution = nn.ConvTranspose2d(in_channels, channels, 4, stride=2, padding=1, bias=False)
    nn.init.normal_(convolution.weight, std=math.sqrt(2 / (4 * in_channels)))  # every output sees 4 of the 16 taps
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _head(in_channels: int, out_channels: int, bias: float = 0.0) -> nn.Sequential:
    hidden = nn.Conv2d(in_channels, HEAD_CHANNELS, 3, padding=1)
    return nn.Sequential(reset(hidden), nn.ReLU(inplace=True), reset(nn.Conv2d(HEAD_CHANNELS, out_channels, 1), bias))
