"""Detectors: any of them on any backbone that has `feature_info`. PyTorch is imported when one is built, not before."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from nasray.configuration import did_you_mean, refuse_foreign
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import nn

    from nasray.models.detectors.base import Detector

DETECTORS = {
    "fcos": ("fcos", "FCOS", "FCOS (Tian et al., ICCV 2019): one point a location, centerness"),
    "retinanet": ("retinanet", "RetinaNet", "RetinaNet (Lin et al., ICCV 2017): nine anchors a location, focal loss"),
    "gfl": ("gfl", "GFL", "GFLV2 (Li et al., CVPR 2021): distributions of distances and the quality they tell"),
    "faster-rcnn": ("faster_rcnn", "FasterRCNN", "Faster R-CNN with FPN (Lin et al., CVPR 2017)"),
    "mask-rcnn": ("mask_rcnn", "MaskRCNN", "Mask R-CNN (He et al., ICCV 2017)"),
    "centernet": ("centernet", "CenterNet", "CenterNet (Zhou et al., 2019): peaks of a heatmap, three deconvolutions"),
    "ssdlite": ("ssdlite", "SSDLite", "SSDLite (Sandler et al., CVPR 2018): depthwise heads for mobile backbones"),
    "yolof": ("yolof", "YOLOF", "YOLOF (Chen et al., CVPR 2021): a single level with dilated convolutions"),
}
"""Name: module, class, and a line about it. A new detector is one line here."""


def check_detector_name(name: str) -> None:
    """Raise `NasrayError` for a name that no detector has."""
    if name not in DETECTORS:
        raise NasrayError(f"unknown detector {name!r}{did_you_mean(name, DETECTORS)} There are: {', '.join(DETECTORS)}")


def detector_class(name: str) -> type[Detector]:
    """The class of a named detector."""
    module, kind, _ = DETECTORS[name]
    return getattr(importlib.import_module(f"nasray.models.detectors.{module}"), kind)


def detector_options(name: str) -> set[str]:
    """The keyword options that a named detector takes."""
    parameters = inspect.signature(detector_class(name)).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def build_detector(name: str, backbone: nn.Module, num_classes: int, **options: Any) -> Detector:
    """A detector around a backbone, with fresh weights.

    Raises:
        NasrayError: if detector, backbone and options do not go together.
    """
    refuse_foreign(options, detector_options(name), f"detector {name!r}")
    try:
        return detector_class(name)(backbone, num_classes, **options)
    except ValueError as error:
        raise NasrayError(f"detector {name!r}: {error}") from error


__all__ = ["DETECTORS", "build_detector", "check_detector_name", "detector_class", "detector_options"]
