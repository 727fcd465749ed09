"""The architecture that stands for a whole supernet, wherever a network is named by one."""

from __future__ import annotations

from typing import Any

from nasray.architectures.family import Family
from nasray.spaces import NasrayError
from nasray.spaces.ranges import shortened

FAMILY = "supernet"


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the spec of a supernet: `space`, the family of its paths, and options of the space.

    Raises:
        NasrayError: if it names no space.
    """
    if not isinstance(spec, dict) or not isinstance(spec.get("space"), str):
        raise NasrayError(f"spec of a supernet is an object with the key space; got {shortened(spec)}")
    return dict(spec)


FAMILIES = {FAMILY: Family(slot="backbone", network="nasray.models.supernets:from_spec", check=check_spec)}
"""A supernet fills the slot that the architectures of its space fill, see `nasray.architectures.slot_of`."""
