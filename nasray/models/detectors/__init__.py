"""Detectors: any of them on any backbone that has `feature_info`. PyTorch is imported when one is built, not before."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from nasray.architectures import slots
from nasray.models import build
from nasray.options import make_part, options_of
from nasray.registry import Registry
from nasray.spaces import Architecture, NasrayError

if TYPE_CHECKING:
    from torch import nn

    from nasray.models.detectors.base import Detector
    from nasray.models.detectors.heads import MakeHead

DETECTORS = Registry(
    "detector",
    {
        "fcos": "nasray.models.detectors.fcos:FCOS",
        "retinanet": "nasray.models.detectors.retinanet:RetinaNet",
        "gfl": "nasray.models.detectors.gfl:GFL",
        "faster-rcnn": "nasray.models.detectors.faster_rcnn:FasterRCNN",
        "mask-rcnn": "nasray.models.detectors.mask_rcnn:MaskRCNN",
        "centernet": "nasray.models.detectors.centernet:CenterNet",
        "ssdlite": "nasray.models.detectors.ssdlite:SSDLite",
        "yolof": "nasray.models.detectors.yolof:YOLOF",
    },
    given=frozenset({"backbone", "num_classes", "head"}),
    is_slow=True,
)
"""A new detector is one line here."""


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
    chosen, default = options_of(DETECTORS, name, **options), options_of(DETECTORS, name)
    check_slots(name, (["pyramid"] if hasattr(backbone, "num_groups") else []) + (["head"] if head else []))
    own = DETECTORS[name].default_head_options if head is not None else ()
    if foreign := [key for key in own if getattr(chosen, key) != getattr(default, key)]:
        raise NasrayError(
            f"detector {name!r}: {', '.join(foreign)} is an option of its own head, which another one replaces. "
            "Leave it out"
        )
    detector: Detector = make_part(chosen, backbone=backbone, num_classes=num_classes, head=head)
    return detector


def check_slots(name: str, given: Iterable[str]) -> None:
    """Refuse slots that a detector does not have.

    Raises:
        NasrayError: naming the slot, those that the detector has, and the detectors that have it.
    """
    own = DETECTORS.part(name).slots
    for slot in given:
        if slot not in own:
            others = [other for other in DETECTORS if slot in DETECTORS[other].slots]
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

    DETECTORS.check(name)
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
    "check_slots",
]
