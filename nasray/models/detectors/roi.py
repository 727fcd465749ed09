"""Regions of interest: those for training, and the head that tells class and box of each.

References: Girshick, "Fast R-CNN", ICCV 2015; Lin et al., "Feature pyramid networks for object detection", CVPR 2017,
section 4.2 (two fully connected layers); Wu and He, "Group normalization", ECCV 2018, section 4.2 (four convolutions
and one fully connected layer, as in DetNAS; MSNAS has two).

Differs from the papers in: smooth L1 turns into a line at 1/9 rather than at 1 (as in torchvision).

Shapes: B images, P proposals of one image, R regions of all images, C classes. Boxes are xyxy in absolute pixels; a
region is (image, x1, y1, x2, y2); class C is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead

from nasray.models.detectors.anchors import IGNORED, boxes_to_deltas, deltas_to_boxes, match
from nasray.models.detectors.base import Target
from nasray.models.detectors.losses import positive_count
from nasray.models.detectors.necks import norm_layer
from nasray.models.detectors.pooling import group_sizes, without_values
from nasray.models.detectors.rpn import SMOOTH, sample

BOX_HEADS = {"2fc": 0, "2conv1fc": 2, "4conv1fc": 4}
"""Name, and number of convolutions before the fully connected layers."""
BOX_SIZE = 7
"""Bins of the pooled maps in each direction."""
WIDTH = 1024
"""Of fully connected layers."""
IOU = 0.5
"""Proposals that overlap a box by this much are positive, others are background."""
POSITIVE_SHARE = 0.25
"""Maximum share of positives among the regions for training."""
DELTA_SCALES = (10.0, 5.0)
"""Factors of the deltas of centers and of edges."""


class BoxHead(nn.Module):
    """Class and box of pooled regions.

    Args:
        channels: Channels of the pyramid, and of the convolutions.
        num_classes: C.
        kind: One of `BOX_HEADS`.
        norm: Norm behind convolutions: "batch", "group" or "none".

    Raises:
        ValueError: for an unknown kind or norm.
    """

    def __init__(self, channels: int, num_classes: int, kind: str = "2fc", norm: str = "none") -> None:
        super().__init__()
        if kind not in BOX_HEADS:
            raise ValueError(f"box_head is one of {', '.join(BOX_HEADS)}; got {kind!r}")
        self.num_classes = num_classes
        self.layers: nn.Module
        if convs := BOX_HEADS[kind]:
            shape = (channels, BOX_SIZE, BOX_SIZE)
            self.layers = FastRCNNConvFCHead(shape, [channels] * convs, [WIDTH], norm_layer(norm))
        else:
            self.layers = TwoMLPHead(channels * BOX_SIZE**2, WIDTH)
        self.classes = nn.Linear(WIDTH, num_classes + 1)
        self.boxes = nn.Linear(WIDTH, num_classes * 4)
        for layer, deviation in ((self.classes, 0.01), (self.boxes, 0.001)):  # Fast R-CNN, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Map (R, channels, 7, 7) to logits (R, C + 1) and deltas (R, C, 4), in float32."""
        x = self.layers(pooled)
        return self.classes(x).float(), self.boxes(x).float().unflatten(1, (self.num_classes, 4))


class BoxHeads(nn.ModuleList):
    """A box head for every group of objects."""

    def of_groups(self, pooled: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each region's own head says, as `BoxHead.forward` does.

        Args:
            pooled: (R, channels, 7, 7).
            group: (R,) index of each region's group.
        """
        if without_values(pooled):
            found = [head(pooled) for head in self]
            logits, deltas = (torch.stack(parts) for parts in zip(*found, strict=True))
            rows = torch.arange(len(group), device=group.device)
            return logits[group, rows], deltas[group, rows]
        order = group.argsort(stable=True)
        counts = group_sizes(group, len(self))
        outputs = []
        for head, part in zip(self, pooled[order].split(counts), strict=True):
            # A head without regions runs on one of another group, so that workers exchange the same messages.
            logits, deltas = head(part if len(part) else pooled[:1])
            outputs.append((logits[: len(part)], deltas[: len(part)]))
        logits, deltas = (torch.cat(parts)[order.argsort()] for parts in zip(*outputs, strict=True))
        return logits, deltas


class Samples(NamedTuple):
    """The regions for training of all images, the positives of each image before its negatives.

    Attributes:
        regions: (R, 5).
        labels: (R,) int64, C for the background.
        truth: (R,) index among its image's boxes, of positives; meaningless for the background.
        boxes: (R, 4) the annotated box of positives.
        positive: (P,) places of the positives among the R regions.
    """

    regions: Tensor
    labels: Tensor
    truth: Tensor
    boxes: Tensor
    positive: Tensor


@torch.no_grad()
def sample_regions(
    proposals: Tensor,
    scores: Tensor,
    targets: Sequence[Target],
    num_classes: int,
    num: int,
    generator: torch.Generator | None = None,
) -> Samples:
    """Return proposals and annotated boxes to train on, matched to the boxes.

    Args:
        proposals: (B, P, 4).
        scores: (B, P); those of 0 are padding.
        targets: Targets of each image.
        num_classes: C.
        num: Number of regions of one image, where there are as many.
        generator: Generator of the sampling; torch's own if None.
    """
    truths = [target["boxes"].to(proposals) for target in targets]
    most = max(map(len, truths))
    boxes, matched = [], []
    for proposal, score, truth in zip(proposals, scores, truths, strict=True):
        rest = most - len(truth)
        every = torch.cat([proposal, truth, truth.new_zeros(rest, 4)])
        takes_part = torch.cat([score, score.new_ones(len(truth)), score.new_zeros(rest)]) > 0
        boxes.append(every)
        matched.append(torch.where(takes_part, match(every, truth, IOU, IOU, every_box=False), IGNORED))
    drawn = zip(*sample(torch.stack(matched), num, POSITIVE_SHARE, generator), strict=True)
    images, num_before = [], 0
    for image, (positive, negative) in enumerate(drawn):
        index, pad = matched[image][positive], len(negative)
        labels = targets[image]["labels"].to(proposals.device)
        images.append(
            (
                F.pad(boxes[image][torch.cat([positive, negative])], (1, 0), value=image),
                F.pad(labels[index], (0, pad), value=num_classes),
                F.pad(index, (0, pad)),
                F.pad(truths[image][index], (0, 0, 0, pad)),
                torch.arange(num_before, num_before + len(positive), device=proposals.device),
            )
        )
        num_before += len(positive) + pad
    return Samples(*(torch.cat(parts) for parts in zip(*images, strict=True)))


def box_loss(logits: Tensor, deltas: Tensor, samples: Samples) -> dict[str, Tensor]:
    """Cross entropy of the class, smooth L1 of the positives' deltas; both over the number of sampled regions.

    Args:
        logits: (R, C + 1).
        deltas: (R, C, 4).
        samples: Samples that they belong to.
    """
    positive = samples.positive
    codes = boxes_to_deltas(samples.regions[positive, 1:], samples.boxes[positive], DELTA_SCALES)
    found = deltas[positive, samples.labels[positive]]
    count = positive_count(len(samples.labels), like=logits)
    return {
        "loss_classes": F.cross_entropy(logits, samples.labels, reduction="sum") / count,
        "loss_boxes": F.smooth_l1_loss(found, codes, beta=SMOOTH, reduction="sum") / count,
    }


def decode(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Return the boxes of every class, (R, C, 4), from (R, C, 4) deltas and (R, 4) boxes."""
    return deltas_to_boxes(boxes[:, None], deltas, DELTA_SCALES)
