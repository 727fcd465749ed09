"""Anchors and points on the levels of a pyramid, and which of them match the boxes of an image.

Shapes: A anchors or points of all locations, N boxes of one image. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from nasray.models.detectors.base import Target

BACKGROUND = -1
IGNORED = -2
MAX_STRETCH = math.log(1000 / 16)
"""Logarithm of the most that a delta enlarges an anchor by."""


class Anchors(nn.Module):
    """Boxes around the upper left corners of locations, the same as torchvision's `AnchorGenerator` has.

    Its own grid is for any size of the maps in an export, and its anchors are on the module's device.

    Args:
        sizes: Per level, square roots of the anchors' areas in pixels.
        ratios: Height over width.

    Attributes:
        num_per_location: Anchors of one location.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float] = (0.5, 1.0, 2.0)) -> None:
        super().__init__()
        self.num_per_location = len(sizes[0]) * len(ratios)
        cells = AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes)).cell_anchors
        for level, cell in enumerate(cells):
            cell = cell.to(torch.get_default_device())  # torchvision's are on the CPU whatever the default
            self.register_buffer(f"cell{level}", cell, persistent=False)

    def forward(self, maps: Sequence[Tensor], strides: Sequence[int]) -> list[Tensor]:
        """Return the anchors of every level, (H * W * anchors of a location, 4).

        Args:
            maps: Map (B, C, H, W) of each level; several levels may share one.
            strides: Pixels between two locations of each map.
        """
        anchors = []
        for level, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            points = grid_points(x, stride, offset=0.0)
            cell = self.get_buffer(f"cell{level}")
            anchors.append((points.repeat(1, 2)[:, None] + cell).reshape(-1, 4))
        return anchors


def grid_points(level: Tensor, stride: int, offset: float = 0.5) -> Tensor:
    """Return the points (x, y) of a level of (B, C, H, W), row by row: (H * W, 2) float32.

    Args:
        level: Map that has the height, width and device.
        stride: Pixels between two points.
        offset: Offset of the first point, in strides: 0.5 is in the middle of a location.
    """
    height, width = level.shape[-2:]
    y = (torch.arange(height, dtype=torch.float32, device=level.device) + offset) * stride
    x = (torch.arange(width, dtype=torch.float32, device=level.device) + offset) * stride
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(-1, 2)


def distances_to_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Return the boxes (..., 4) whose left, top, right, bottom edges are (..., 4) `distances` from (..., 2) points."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def boxes_to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Return how far left, top, right, bottom edges of (..., 4) boxes are from (..., 2) points; negative if outside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def boxes_to_deltas(anchors: Tensor, boxes: Tensor, scales: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return how far boxes are from anchors, (..., 4): in anchors' edges the centers, as logarithms the edges.

    The same as torchvision's `BoxCoder`, which makes a GPU's host wait; so is `deltas_to_boxes`.

    Args:
        anchors: (..., 4).
        boxes: (..., 4).
        scales: Factors of the centers' and of the edges' deltas.
    """
    center, edges = _center_and_edges(anchors)
    box_center, box_edges = _center_and_edges(boxes)
    shift = scales[0] * (box_center - center) / edges
    return torch.cat([shift, scales[1] * torch.log(box_edges / edges)], dim=-1)


def deltas_to_boxes(anchors: Tensor, deltas: Tensor, scales: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return the (..., 4) boxes that are (..., 4) deltas away from anchors, see `boxes_to_deltas`; all broadcast."""
    center, edges = _center_and_edges(anchors)
    center = deltas[..., :2] / scales[0] * edges + center
    half = 0.5 * (torch.exp((deltas[..., 2:] / scales[1]).clamp(max=MAX_STRETCH)) * edges)
    return torch.cat([center - half, center + half], dim=-1)


def _center_and_edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    edges = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * edges, edges


def match(anchors: Tensor, boxes: Tensor, low: float, high: float, *, every_box: bool = True) -> Tensor:
    """Return the box that each anchor is to predict: (A,) int64, its index, or `BACKGROUND` or `IGNORED`.

    As `Matcher` of torchvision, but without waiting for a GPU, for no boxes too, and an anchor never matches a box that
    it does not touch.

    Args:
        anchors: (A, 4).
        boxes: (N, 4).
        low: An anchor that overlaps no box by this much is background.
        high: An anchor that overlaps a box by this much matches the one that it overlaps most; between the two it is
            ignored.
        every_box: Whether an anchor of which a box overlaps no other one more matches in any case (again the box that
            the anchor overlaps most).
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, dtype=torch.int64, device=anchors.device)
    overlap = box_iou(boxes, anchors)
    best, index = overlap.max(dim=0)
    matches = best >= high
    if every_box:
        matches |= ((overlap == overlap.amax(dim=1, keepdim=True)) & (overlap > 0)).any(dim=0)
    return torch.where(matches, index, torch.where(best < low, BACKGROUND, IGNORED))


class Positives(NamedTuple):
    """The P anchors of a batch that are to predict a box, level by level.

    Attributes:
        image: (P,) index of the image.
        anchor: (P,) index among the A anchors of all levels.
        boxes: (P, 4) float32, what they are to predict.
        labels: (P,) the same.
        where: Per level, index of the image and of the anchor among the level's own.
        ignored: The same of anchors that take no part in the loss of classes.
    """

    image: Tensor
    anchor: Tensor
    boxes: Tensor
    labels: Tensor
    where: list[tuple[Tensor, Tensor]]
    ignored: list[tuple[Tensor, Tensor]]


def positives(
    matches: Sequence[Tensor], targets: Sequence[Target], levels: Sequence[Tensor], per_location: int = 1
) -> Positives:
    """Gather what the anchors of a batch are to predict.

    Args:
        matches: (A,) of each image: index of a box, `BACKGROUND` or `IGNORED`.
        targets: Targets of each image.
        levels: Maps of (B, ..., H, W) that tell the size of each level.
        per_location: Anchors of one location.
    """
    sizes = [level.shape[-2] * level.shape[-1] * per_location for level in levels]
    first = 0  # of the image's boxes among those of the batch
    numbered = []
    for one, target in zip(matches, targets, strict=True):
        numbered.append(torch.where(one >= 0, one + first, one))
        first += len(target["boxes"])
    match = torch.stack(numbered)
    places = find([*(match >= 0).split(sizes, dim=1), *(match == IGNORED).split(sizes, dim=1)])
    where, ignored = places[: len(levels)], places[len(levels) :]
    image = torch.cat([images for images, _ in where])
    anchor = torch.cat([index + sum(sizes[:level]) for level, (_, index) in enumerate(where)])
    box = match[image, anchor]
    boxes, labels = (torch.cat([target[name] for target in targets])[box] for name in ("boxes", "labels"))
    return Positives(image, anchor, boxes.float(), labels, where, ignored)


def find(masks: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the row and the column of what is true in each of several (B, A) masks, row by row.

    As `nonzero` of each, but the host waits once for a GPU that has to count, instead of once for each mask.
    """
    ends = [mask.flatten().cumsum(0) for mask in masks]
    counts = torch.stack([mask.sum() for mask in masks]).tolist()
    places = []
    for mask, end, count in zip(masks, ends, counts, strict=True):
        index = torch.searchsorted(end, torch.arange(1, count + 1, device=end.device))
        places.append((index // mask.shape[1], index % mask.shape[1]))
    return places
