"""What nasray knows about a family of architectures, in one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nasray.spaces import Architecture, LayerTable

Slot = Literal["backbone", "pyramid", "head"]
"""The place of a detector that an architecture fills. A pyramid stands where a backbone and its neck do."""

SLOTS: tuple[Slot, ...] = ("backbone", "pyramid", "head")


@dataclass(frozen=True)
class Family:
    """A family of architectures.

    Attributes:
        slot: Slot of a detector that its architectures fill.
        network: Class or function that builds the network, as "module:name", imported when one is built. It is called
            with the keys of the checked spec as keywords, and that of a head with `in_channels` and `num_levels` too.
        check: Check of a spec: it returns the spec with its defaults filled in, or raises `NasrayError` naming the
            first key or value that is not understood.
        layers: Layer table (N = 1) of a checked spec at an image size; None where a network is counted by building it.
        named: Published architectures by name.
        describe: Phrase about the members that are not in `named`; empty where there are none.
        find: Lookup of the members that are not in `named`; None for a name that is none of them.
    """

    slot: Slot
    network: str
    check: Callable[[Any], dict[str, Any]]
    layers: Callable[[dict[str, Any], tuple[int, int]], LayerTable] | None = None
    named: Mapping[str, Architecture] = field(default_factory=dict)
    describe: str = ""
    find: Callable[[str], Architecture | None] | None = None
