"""Networks: from an architecture to a PyTorch module. PyTorch is imported when one is built, not before."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nasray.architectures import ARCHITECTURES, check_size_to_build, family_of, named_architecture
from nasray.spaces import Architecture, NasrayError
from nasray.spaces.errors import did_you_mean

if TYPE_CHECKING:
    from torch import nn


def build(architecture: Architecture | str, **options: Any) -> nn.Module:
    """Build the network of an architecture, on the current default device, with fresh weights.

    Args:
        architecture: Architecture, or the name of one.
        **options: Further keywords of its network, such as `out_levels` of a backbone. That of a head takes
            `in_channels` and `num_levels`.

    Returns:
        The network. A backbone maps (B, 3, H, W) images to an ordered dictionary of maps, finest first, and has
        `feature_info`, a list with `num_chs`, `reduction` and `module` of each map.

    Raises:
        NasrayError: for an architecture of an unknown name or family, a spec that its family does not understand, or a
            network that is too large.

    Examples:
        >>> import torch
        >>> network = build("resnet18")
        >>> [info["num_chs"] for info in network.feature_info]
        [64, 128, 256, 512]
        >>> {name: tuple(x.shape) for name, x in network(torch.zeros(1, 3, 64, 64)).items()}["c5"]
        (1, 512, 2, 2)
    """
    if isinstance(architecture, str):
        found = named_architecture(architecture)
        if found is None:
            raise NasrayError(
                f"unknown architecture {architecture!r}{did_you_mean(architecture, ARCHITECTURES)} "
                "`nasray list architectures` prints all"
            )
        architecture = found
    family = family_of(architecture)
    if family.slot == "head" and "in_channels" not in options:
        raise NasrayError(
            f"{architecture.family} {architecture.id} is a head: it is built for a detector. Name a backbone and a "
            "detector beside it, such as --head NAME --detector fcos"
        )
    spec = family.check(architecture.spec)
    check_size_to_build(architecture)
    module, _, name = family.network.partition(":")
    network: nn.Module = getattr(importlib.import_module(module), name)(**spec, **options)
    return network


__all__ = ["build"]
