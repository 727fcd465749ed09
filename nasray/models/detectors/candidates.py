"""From dense scores to a fixed number of detections, in operations that export to ONNX for any image size.

Shapes: A candidates of one image, C classes, K detections. Nothing here has a shape that depends on the values of
the data: what is no detection has score 0. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from nasray.models.detectors.base import Detections


def top_candidates(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The best `num` of (A,) scores and their indices, both (num,); where A is less, score 0 and index 0 fill up.

    The scores are padded whatever A is, so that an export does not fix whether A exceeds `num`.
    """
    best, index = torch.cat([scores, scores.new_zeros(num)]).topk(num)
    return best, torch.where(best > 0, index, 0).clamp(max=scores.shape[0] - 1)


def top_class_candidates(scores: Tensor, boxes: Tensor, num: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The best `num` pairs of box and class: boxes (num, 4), scores (num,), labels (num,).

    Args:
        scores: (A, C) in [0, 1].
        boxes: (A, 4).
        num: how many.
        threshold: pairs that do not score more get score 0.
    """
    num_classes = scores.shape[1]
    flat = scores.flatten()
    best, index = top_candidates(torch.where(flat > threshold, flat, 0.0), num)
    return boxes[torch.div(index, num_classes, rounding_mode="floor")], best, index % num_classes


def select(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression within each class, then the best `num`: boxes, scores, labels, best first.

    Args:
        boxes: (A, 4).
        scores: (A,); those of 0 are no candidates.
        labels: (A,).
        iou_threshold: a box is dropped if it overlaps a better one of its class by more.
        num: entries to give; those without a detection have score 0.
    """
    keep = suppress(boxes, scores, labels, iou_threshold)
    best, index = top_candidates(scores * keep, num)
    return boxes[index], best, labels[index]


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """(A,) whether each box survives non-maximum suppression within its group; scores of 0 take no part."""
    # Groups are laid side by side, so that boxes of different ones do not overlap.
    offset = groups.to(boxes) * (boxes.detach().max() + 1)
    shifted = boxes + offset[:, None]
    shifted = torch.where(scores[:, None] > 0, shifted, torch.zeros_like(shifted))
    kept = nms(shifted.float(), scores.float(), iou_threshold)
    return torch.zeros_like(scores, dtype=torch.bool).index_fill(0, kept, True) & (scores > 0)


def stack(images: list[tuple[Tensor, Tensor, Tensor]]) -> Detections:
    """The detections of several images as one batch."""
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
    return Detections(boxes, scores, labels)


def clip(boxes: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """(..., 4) boxes within an image of `height` x `width` pixels."""
    x = boxes[..., 0::2].clamp(min=0).minimum(torch.as_tensor(width).to(boxes))
    y = boxes[..., 1::2].clamp(min=0).minimum(torch.as_tensor(height).to(boxes))
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)
