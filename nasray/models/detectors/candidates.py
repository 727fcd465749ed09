"""From dense scores to a fixed number of detections, in operations that export to ONNX for any image size.

Shapes: A candidates of one image, C classes, K detections. Nothing here has a shape that depends on the values of
the data: what is no detection has score 0. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from nasray.models.detectors.base import Detections

CANDIDATES = 1000
"""Pairs of box and class, of one level, that take part in non-maximum suppression."""
GRID = 16


def detect(
    scores: Sequence[Tensor],
    boxes: Sequence[Tensor],
    image_hw: Tensor,
    threshold: float,
    iou_threshold: float,
    num: int,
) -> Detections:
    """Return the detections of a batch from the dense scores of several levels: (B, num).

    Of each level the best pairs of box and class take part in non-maximum suppression within each class.

    Args:
        scores: (B, A, C) in [0, 1] of each level.
        boxes: (B, A, 4) of each level.
        image_hw: (B, 2) height and width of the images without padding; boxes that lie in the padding are dropped.
        threshold: Pairs that do not score more are dropped.
        iou_threshold: A box is dropped if it overlaps a better one of its class by more.
        num: K.
    """
    images = []
    for image in range(len(scores[0])):
        levels = [
            top_class_candidates(score[image], box[image], CANDIDATES, threshold)
            for score, box in zip(scores, boxes, strict=True)
        ]
        image_boxes, image_scores, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))
        image_boxes = clip(image_boxes, *image_hw[image])
        inside = (image_boxes[:, 2:] > image_boxes[:, :2]).all(dim=1)
        images.append(select(image_boxes, image_scores * inside, labels, iou_threshold, num))
    return stack(images)


def top_candidates(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return the best `num` of (..., A) scores and their indices, both (..., num); padded by score and index 0.

    The scores are padded whatever A is, so that an export does not fix whether A exceeds `num`.
    """
    best, index = torch.cat([scores, scores.new_zeros(*scores.shape[:-1], num)], dim=-1).topk(num)
    return best, torch.where(best > 0, index, 0).clamp(max=scores.shape[-1] - 1)


def top_class_candidates(scores: Tensor, boxes: Tensor, num: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best `num` pairs of box and class: boxes (num, 4), scores (num,), labels (num,).

    Args:
        scores: (A, C) in [0, 1].
        boxes: (A, 4).
        num: Number of candidates.
        threshold: Pairs that do not score more get score 0.
    """
    num_classes = scores.shape[1]
    flat = scores.flatten()
    best, index = top_candidates(torch.where(flat > threshold, flat, 0.0), num)
    return boxes[torch.div(index, num_classes, rounding_mode="floor")], best, index % num_classes


def select(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Suppress non-maxima within each class; return the best `num` boxes, scores, labels, best first.

    Args:
        boxes: (A, 4).
        scores: (A,); those of 0 are no candidates.
        labels: (A,).
        iou_threshold: A box is dropped if it overlaps a better one of its class by more.
        num: Number of entries to return; those without a detection have score 0.
    """
    keep = suppress(boxes, scores, labels, iou_threshold)
    best, index = top_candidates(scores * keep, num)
    return boxes[index], best, labels[index]


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Return (A,) whether each box survives non-maximum suppression within its group; scores of 0 take no part."""
    if boxes.is_meta:  # where operations are counted, no box has a place
        return scores > 0
    # Groups are laid out on a grid, so that boxes of different ones do not overlap. On a line the coordinates of many
    # groups would be too large for float32 to tell parts of a pixel. What takes no part is one and the same box away
    # from all: the first of these suppresses the others at once.
    cells = torch.stack([groups % GRID, torch.div(groups, GRID, rounding_mode="floor")], dim=1).to(boxes)
    shifted = boxes + (cells * (boxes.max() + 1)).repeat(1, 2)
    takes_part = scores[:, None] > 0  # a tensor of these four numbers would make a GPU's host wait
    shifted = torch.cat(
        [torch.where(takes_part, shifted[:, :2], -2.0), torch.where(takes_part, shifted[:, 2:], -1.0)], dim=1
    )
    kept = nms(shifted.float(), scores.float(), iou_threshold)
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, kept, True) & (scores > 0)


def stack(images: list[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """Stack the detections of several images to one batch."""
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
    return Detections(boxes, scores, labels)


def clip(boxes: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Clip (..., 4) boxes to an image of `height` x `width` pixels."""
    x, y = _within(boxes[..., 0::2], width), _within(boxes[..., 1::2], height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def _within(values: Tensor, most: Tensor | int) -> Tensor:
    # A number must not become a tensor here: an export would fix the image's size.
    return values.clamp(min=0).minimum(most.to(values)) if isinstance(most, Tensor) else values.clamp(0, most)
