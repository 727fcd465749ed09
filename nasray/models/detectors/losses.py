"""Normalizers and losses that several detectors share. Losses of torchvision.ops are used where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from nasray.models.detectors.anchors import Positives
from nasray.models.detectors.heads import take

EPSILON = 1e-7
"""What is added to an area that is divided by."""
ALPHA = 0.25
"""The focal loss's weight of what is of a class."""


def mean_over_workers(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all training workers, without gradient; the tensor itself for one worker.

    Gradients are averaged over workers. A sum divided by the mean count therefore gives the gradient of the sum over
    all workers divided by the count over all workers.
    """
    value = value.detach()
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return value
    value = value.clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()


def positive_count(count: Tensor | int, like: Tensor) -> Tensor:
    """Return a number of positives as a divisor: its mean over workers, at least 1."""
    if not isinstance(count, Tensor):
        count = torch.full((), count, device=like.device)  # as_tensor would copy it, and wait for a GPU
    return mean_over_workers(count.float()).clamp(min=1.0)


def focal_loss(levels: Sequence[Tensor], chosen: Positives, num_classes: int, alpha: float = ALPHA) -> Tensor:
    """Return the sum of the sigmoid focal loss with gamma 2 over all anchors and classes (Lin et al., ICCV 2017).

    Equal to torchvision's `sigmoid_focal_loss`, but neither targets nor anything else of the logits' size is kept.

    Args:
        levels: (B, A * C, H, W) logits of each level.
        chosen: The anchors that are of a class, and those that take no part.
        num_classes: C.
        alpha: Weight of what is of a class; the weight of the rest is 1 - `alpha`.
    """
    logits = _logits_of_classes(levels, chosen, num_classes)
    present = ((1 - logits.sigmoid()).square() * F.softplus(-logits)).sum()
    return (1 - alpha) * _absent(levels, chosen, num_classes, logits) + alpha * present


def quality_focal_loss(levels: Sequence[Tensor], chosen: Positives, num_classes: int, quality: Tensor) -> Tensor:
    """Return the sum of the quality focal loss with beta 2 over all anchors and classes (Li et al., NeurIPS 2020).

    Args:
        levels: (B, A * C, H, W) logits of each level.
        chosen: The anchors that are of a class, and those that take no part.
        num_classes: C.
        quality: (P,) what the score of each chosen anchor's class is to be, in [0, 1].
    """
    logits = _logits_of_classes(levels, chosen, num_classes)
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    present = ((quality - logits.sigmoid()).square() * entropy).sum()
    return _absent(levels, chosen, num_classes, logits) + present


def generalized_iou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """Return (P,) 1 - the generalized IoU of each of (P, 4) xyxy boxes with its partner (Rezatofighi et al., 2019).

    The same as torchvision's `generalized_box_iou_loss`, which makes the host wait for a GPU.
    """
    (low, high), (other_low, other_high) = ((x[:, :2], x[:, 2:]) for x in (boxes, others))
    inner = torch.minimum(high, other_high) - torch.maximum(low, other_low)
    outer = torch.maximum(high, other_high) - torch.minimum(low, other_low)
    own, other, both, whole = (x[:, 0] * x[:, 1] for x in (high - low, other_high - other_low, inner, outer))
    both = torch.where((inner > 0).all(dim=1), both, 0.0)
    union = own + other - both
    return 1 - (both / (union + EPSILON) - (whole - union) / (whole + EPSILON))


def aligned_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the (...) IoU of each of (..., 4) xyxy boxes with its partner of the other (..., 4), which broadcast."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(dim=-1) for x in (boxes, others)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-7)


def _logits_of_classes(levels: Sequence[Tensor], chosen: Positives, num_classes: int) -> Tensor:
    """Return (P,) the logit of its own class of each chosen anchor."""
    return take(levels, chosen.where, num_classes).gather(1, chosen.labels[:, None])[:, 0]


def _absent(levels: Sequence[Tensor], chosen: Positives, num_classes: int, present: Tensor) -> Tensor:
    """Return the loss of absent classes summed over all logits, except those `present` and those ignored."""
    total = torch.stack([_absent_focal(level) for level in levels]).sum()
    return total - _absent_focal(present) - _absent_focal(take(levels, chosen.ignored, num_classes))


def _absent_focal(logits: Tensor) -> Tensor:
    loss: Tensor = _AbsentFocal.apply(logits)
    return loss


class _AbsentFocal(torch.autograd.Function):
    """The sum of p^2 softplus(x) over logits x, p = sigmoid(x), in float32. Keeps only the logits for its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        x = logits.float()
        return F.softplus(x).mul_(x.sigmoid().square_()).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        # The derivative p^2 (2 (1 - p) softplus(x) + p), in few tensors.
        x = logits.float()
        p = x.sigmoid()
        slope = F.softplus(x).mul_(2).mul_(1 - p).add_(p).mul_(p.square_()).mul_(gradient)
        return slope.to(logits.dtype)
