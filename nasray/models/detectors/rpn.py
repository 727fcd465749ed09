"""Region proposals on a feature pyramid: where there may be something, whatever it is.

References: Ren et al., "Faster R-CNN", NeurIPS 2015, section 3.1; Lin et al., "Feature pyramid networks for object
detection", CVPR 2017, section 4.1.

Differs from the papers in: one sigmoid output for every anchor rather than two of a softmax; anchors that cross the
border take part; non-maximum suppression within each level (all three as in Detectron2 and torchvision).

Shapes: B images, A anchors of one level (location by location), N annotated boxes, P proposals. Boxes are xyxy in
absolute pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from nasray.models.detectors.anchors import BACKGROUND, boxes_to_deltas, deltas_to_boxes, match
from nasray.models.detectors.base import Target
from nasray.models.detectors.candidates import clip, suppress, top_candidates
from nasray.models.detectors.losses import positive_count
from nasray.models.detectors.pooling import without_values

POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
SAMPLES, POSITIVE_SHARE = 256, 0.5
"""Anchors of an image from which its loss is computed, and the most of them that are positive."""
NMS_IOU = 0.7
LEAST_EDGE = 1e-3
"""Proposals that are thinner, in pixels, are dropped."""
SMOOTH = 1 / 9
"""Where smooth L1 turns from a square into a line (sigma 3 in the authors' code)."""


class RPNHeads(nn.ModuleList):
    """A head of the region proposal network for every group of objects."""

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return what torchvision's `RPNHead` does, each level by its own head."""
        found = [head([level]) for head, level in zip(self, levels, strict=True)]
        return [logits[0] for logits, _ in found], [deltas[0] for _, deltas in found]


@torch.no_grad()
def propose(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_hw: Sequence[int],
    num_before: int,
    num: int,
) -> tuple[Tensor, Tensor]:
    """Return the boxes that are most likely to hold something.

    Args:
        logits: (B, A) objectness of each level, float32.
        deltas: (B, A, 4) of each level, float32.
        anchors: (A, 4) of each level.
        image_hw: Height and width of the padded images, to which proposals are clipped.
        num_before: Number of each level that take part in non-maximum suppression.
        num: P.

    Returns:
        Boxes (B, P, 4) and scores (B, P) as `ranks` returns them, best first; those of score 0 are padding.
    """
    scores, codes, bases = [], [], []
    for logit, delta, anchor in zip(logits, deltas, anchors, strict=True):
        best, index = top_candidates(ranks(logit), num_before)
        scores.append(best)
        codes.append(_take(delta, index))
        bases.append(_take(anchor.expand_as(delta), index))
    code, base = torch.cat(codes, dim=1), torch.cat(bases, dim=1)
    boxes = clip(deltas_to_boxes(base, code), *image_hw)
    best = torch.cat(scores, dim=1) * (boxes[..., 2:] - boxes[..., :2] >= LEAST_EDGE).all(dim=-1)
    best, index = top_candidates(_survivors(boxes, best, num_before), num)
    return _take(boxes, index), best


def ranks(logits: Tensor) -> Tensor:
    """Return scores in (0, 1) in the order of logits of any shape: they tell which is better, not how probable.

    A sigmoid rounds confident logits to the same float32, and low ones to 0, onnxruntime's sooner than PyTorch's.
    """
    return 0.5 + 0.5 * F.softsign(logits)


def rpn_loss(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    targets: Sequence[Target],
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Return the objectness's binary cross entropy and the deltas' smooth L1, over the number of sampled anchors.

    Args:
        logits: (B, A) objectness of each level, float32.
        deltas: (B, A, 4) of each level, float32.
        anchors: (A, 4) of each level.
        targets: Targets of each image.
        generator: Generator of the sampling; torch's own if None.
    """
    anchor = torch.cat(list(anchors))
    boxes = [target["boxes"].to(anchor) for target in targets]
    matched = torch.stack([match(anchor, one, NEGATIVE_IOU, POSITIVE_IOU) for one in boxes])
    positives, negatives = sample(matched, SAMPLES, POSITIVE_SHARE, generator)
    truths = [one[match[index]] for one, match, index in zip(boxes, matched, positives, strict=True)]
    codes = boxes_to_deltas(anchor[torch.cat(positives)], torch.cat(truths))
    first = [image * len(anchor) for image in range(len(targets))]
    chosen = torch.cat([index + one for one, index in zip(first * 2, positives + negatives, strict=True)])
    num_positive = len(codes)
    logit = torch.cat(list(logits), dim=1).flatten()[chosen]
    delta = torch.cat(list(deltas), dim=1).flatten(0, 1)[chosen[:num_positive]]
    truth = (torch.arange(len(chosen), device=logit.device) < num_positive).to(logit)
    count = positive_count(len(chosen), like=logit)
    return {
        "loss_objectness": F.binary_cross_entropy_with_logits(logit, truth, reduction="sum") / count,
        "loss_proposals": F.smooth_l1_loss(delta, codes, beta=SMOOTH, reduction="sum") / count,
    }


def sample(
    matched: Tensor, num: int, positive_share: float, generator: torch.Generator | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Return random indices of positives and of negatives of each image, `num` together where there are enough.

    For their numbers the host waits for a GPU, once for all images.

    Args:
        matched: (B, A) as `anchors.match` returns it for each image.
        num: Number of both together, of an image.
        positive_share: Maximum share of positives; negatives fill up.
        generator: Generator, drawn from on its own device; torch's own if None.
    """
    kinds = torch.stack([matched >= 0, matched == BACKGROUND], dim=1)
    device = matched.device if generator is None else generator.device
    positives: list[Tensor] = []
    negatives: list[Tensor] = []
    for ends, counts in zip(kinds.cumsum(dim=-1), kinds.sum(dim=-1).tolist(), strict=True):
        most = int(num * positive_share)
        for end, count, indices in zip(ends, counts, (positives, negatives), strict=True):
            drawn = torch.randperm(count, generator=generator, device=device)[:most].to(matched.device)
            indices.append(torch.searchsorted(end, drawn + 1))  # where the drawn one of this kind stands
            most = num - len(drawn)
    return positives, negatives


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Return those of (B, P) indices of (B, A, 4) values: (B, P, 4)."""
    return values.gather(1, index[..., None].expand(-1, -1, 4))


def _survivors(boxes: Tensor, scores: Tensor, num: int) -> Tensor:
    """Return the (B, L * num) scores, 0 for those of boxes that non-maximum suppression within their level drops.

    Args:
        boxes: (B, L * num, 4), `num` of each level.
        scores: (B, L * num).
        num: Number of each level.
    """
    if scores.device.type == "cpu" or without_values(scores):  # faster, and does not round coordinates
        levels = zip(boxes.split(num, dim=1), scores.split(num, dim=1), strict=True)
        return torch.cat([_survivors_of_level(*level) for level in levels], dim=1)
    # The host waits for a GPU in each suppression: here once for an image, not once for each of its levels.
    level = torch.arange(scores.shape[1], device=scores.device) // num
    return scores * torch.stack([suppress(*image, level, NMS_IOU) for image in zip(boxes, scores, strict=True)])


def _survivors_of_level(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the (B, A) scores, 0 for those of (B, A, 4) boxes of one level that non-maximum suppression drops."""
    if without_values(scores):  # any number of images at once
        image = torch.arange(len(scores), device=scores.device)[:, None].expand_as(scores)
        keep = suppress(boxes.flatten(0, 1), scores.flatten(), image.flatten(), NMS_IOU)
        return keep.view_as(scores) * scores
    kept = [nms(*image, NMS_IOU) for image in zip(boxes, scores, strict=True)]
    return torch.stack([torch.zeros_like(x).index_copy(0, i, x[i]) for x, i in zip(scores, kept, strict=True)])
