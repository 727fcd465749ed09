"""Supernets: every architecture of a space as a path through one network. PyTorch is imported when one is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nasray.models.supernets.sampling import DETNAS_WINDOWS, PathSampler
from nasray.spaces import NasrayError, Space

if TYPE_CHECKING:
    from nasray.models.supernets.base import Supernet


def build_supernet(space: Space, **options: Any) -> Supernet:
    """The supernet of a space, on the current default device, with fresh weights and no path set.

    Args:
        space: whose architectures it holds.
        options: of this kind of supernet, such as `momentum` of the batch norms.

    Raises:
        NasrayError: for a space of whose family there is no supernet.
    """
    if space.family not in SUPERNETS:
        raise NasrayError(f"there is no supernet of space {space.family!r}; there are those of {', '.join(SUPERNETS)}")
    return SUPERNETS[space.family](space, **options)


def _shufflenet(space: Any, **options: Any) -> Supernet:
    from nasray.models.supernets.shufflenet import ShuffleNetSupernet

    return ShuffleNetSupernet(space, **options)


SUPERNETS: dict[str, Callable[..., Supernet]] = {"shufflenet": _shufflenet}

__all__ = ["DETNAS_WINDOWS", "SUPERNETS", "PathSampler", "build_supernet"]
