"""A backbone with a classifier, as it is pre-trained.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, and its released code.

Differs from the released code in: the pool averages the whole map, whatever its size, instead of 7x7 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasray.models.pixels import Normalize
from nasray.models.shufflenet import reset_layers


class Classifier(nn.Module):
    """A backbone, whose last map a `ClassifierHead` takes. The backbone may be a supernet.

    Args:
        backbone: Network from (B, 3, H, W) images to an ordered dictionary of maps, with `out_channels`.
        num_classes: Number of classes.
        width: Channels of the head's convolution.
        dropout: Share of its channels that are dropped in training.
        label_smoothing: What the loss takes from the right class and spreads over all (Szegedy et al., CVPR 2016).

    Attributes:
        teacher: Function from images to (B, num_classes) probabilities that are learned beside the labels, or None.
        teacher_weight: Factor of that loss.
    """

    slots: ClassVar[Mapping[str, str]] = {"backbone": "backbone"}

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int = 1000,
        *,
        width: int = 1024,
        dropout: float = 0.2,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.backbone, self.label_smoothing = backbone, label_smoothing
        self.teacher: Callable[[Tensor], Tensor] | None = None
        self.teacher_weight = 1.0
        channels: int = backbone.out_channels[-1]  # type: ignore[index, assignment]
        self.head = ClassifierHead(channels, num_classes, width=width, dropout=dropout)

    def forward(
        self, images: Tensor, targets: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Return the losses if there are targets, else (B, num_classes) logits.

        Args:
            images: (B, 3, H, W) RGB, 0 to 255.
            targets: (B,) int64 labels.
            generator: Not used; detectors take it.
        """
        del generator
        logits: Tensor = self.head(next(reversed(self.backbone(self.normalize(images)).values())))
        if targets is None:
            return logits
        losses = {"loss_classes": F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)}
        if self.teacher is not None:
            losses["loss_teacher"] = self.teacher_weight * F.cross_entropy(logits, self.teacher(images))
        return losses


class ClassifierHead(nn.Module):
    """A 1x1 convolution with bias, norm and ReLU; dropout of whole channels; the mean over the map; a linear layer."""

    def __init__(self, channels: int, num_classes: int = 1000, *, width: int = 1024, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout2d(dropout)
        self.linear = nn.Linear(width, num_classes)
        reset_layers(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, num_classes) logits."""
        logits: Tensor = self.linear(self.dropout(self.conv(x)).mean(dim=(2, 3)))
        return logits
