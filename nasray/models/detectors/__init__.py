"""Detectors: any of them on any backbone that has `feature_info`. PyTorch is imported when one is built, not before."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from nasray.architectures import slots
from nasray.configuration import did_you_mean, refuse_foreign
from nasray.models import build
from nasray.spaces import Architecture, NasrayError

if TYPE_CHECKING:
    from torch import nn

    from nasray.models.detectors.base import Detector
    from nasray.models.detectors.heads import MakeHead

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


def build_detector(
    name: str, backbone: nn.Module, num_classes: int, head: MakeHead | None = None, **options: Any
) -> Detector:
    """Build a detector around a backbone or a pyramid, with fresh weights.

    Args:
        name: Name of the detector.
        backbone: Network of the slot `backbone` or `pyramid`.
        num_classes: Classes, the background not counted.
        head: What builds the network of the slot `head` from `in_channels` and `num_levels`; the detector's own head
            if left out.
        **options: Options of the detector.

    Raises:
        NasrayError: if detector, slots and options do not go together.
    """
    kind = detector_class(name)
    refuse_foreign(options, detector_options(name), f"detector {name!r}")
    check_slots(name, (["pyramid"] if hasattr(backbone, "num_groups") else []) + (["head"] if head else []))
    if head is not None and (foreign := _of_default_head(kind, options)):
        raise NasrayError(
            f"detector {name!r}: {', '.join(foreign)} is an option of its own head, which another one replaces. "
            "Leave it out"
        )
    try:
        return kind(backbone, num_classes, *([head] if head else []), **options)
    except ValueError as error:
        raise NasrayError(f"detector {name!r}: {error}") from error


def _of_default_head(kind: type[Detector], options: dict[str, Any]) -> list[str]:
    """Options that only the default head has, and that differ from what is left out."""
    usual = inspect.signature(kind).parameters
    return [key for key in kind.default_head_options if options.get(key, usual[key].default) != usual[key].default]


def check_slots(name: str, given: Iterable[str]) -> None:
    """Refuse slots that a detector does not have.

    Raises:
        NasrayError: naming the slot, those that the detector has, and the detectors that have it.
    """
    own = detector_class(name).slots
    for slot in given:
        if slot not in own:
            others = [other for other in DETECTORS if slot in detector_class(other).slots]
            raise NasrayError(
                f"detector {name!r} has no slot for a {slot}; its slots: {', '.join(own)}. Detectors that have one: "
                f"{', '.join(others)}"
            )


def assemble_detector(
    name: str, architecture: Architecture, num_classes: int, *, on_meta: bool = False, **options: Any
) -> Detector:
    """Build a detector whose slots an architecture fills, with fresh weights from the global random state.

    Args:
        name: Name of the detector.
        architecture: Backbone, pyramid, or a composite of one of them and a head.
        num_classes: Classes, the background not counted.
        on_meta: Whether the backbone is left without memory, for a state that is assigned.
        **options: Options of the detector.

    Raises:
        NasrayError: if detector, architecture and options do not go together.
    """
    import torch

    check_detector_name(name)
    parts = slots(architecture)
    check_slots(name, parts)
    body = parts.get("backbone") or parts.get("pyramid")
    if body is None:
        raise NasrayError(
            f"a head alone is no detector: name a backbone beside {architecture.family} {architecture.id}"
        )
    with torch.device("meta") if on_meta else nullcontext():
        backbone = build(body)
    head = partial(build, parts["head"]) if "head" in parts else None
    return build_detector(name, backbone, num_classes, head, **options)


__all__ = [
    "DETECTORS",
    "assemble_detector",
    "build_detector",
    "check_detector_name",
    "check_slots",
    "detector_class",
    "detector_options",
]
