"""Networks: from an architecture to a PyTorch module. PyTorch is imported when one is built, not before."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from nasray.architectures import check_size_to_build, shufflenet_spec, staged_spec
from nasray.spaces import Architecture, NasrayError

if TYPE_CHECKING:
    from torch import nn


def build(architecture: Architecture) -> nn.Module:
    """The network of an architecture, on the current default device, with fresh weights.

    Raises:
        NasrayError: for a family that has no builder, or a spec that its builder does not understand.
    """
    builder = FAMILIES.get(architecture.family)
    if builder is None:
        near = difflib.get_close_matches(str(architecture.family), FAMILIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise NasrayError(
            f"no network can be built of family {architecture.family!r}; there are: {', '.join(FAMILIES)}.{hint}"
        )
    return builder(architecture)


def _staged(architecture: Architecture) -> nn.Module:
    from nasray.models.backbone import Backbone

    spec = staged_spec(architecture)
    check_size_to_build(architecture)
    return Backbone(architecture.family, spec["stem"], spec["stages"], spec["shortcut"])


def _shufflenet(architecture: Architecture) -> nn.Module:
    from nasray.models.shufflenet import ShuffleNet

    spec = shufflenet_spec(architecture)
    check_size_to_build(architecture)
    return ShuffleNet(**spec)


def _supernet(architecture: Architecture) -> nn.Module:
    from nasray.models.supernets import build_supernet, space_of_supernet

    return build_supernet(space_of_supernet(architecture))


FAMILIES: dict[str, Callable[[Architecture], nn.Module]] = {
    "bottleneck": _staged,
    "basic": _staged,
    "inverted": _staged,
    "inverted-se": _staged,
    "shufflenet": _shufflenet,
    "supernet": _supernet,
}

__all__ = ["FAMILIES", "build"]
