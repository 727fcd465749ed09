"""Architectures: families, published members by name, layer tables, and slots of detectors. Needs no PyTorch.

A module of this package describes a family: what a spec may hold, which network is built of it, which layers that has,
and which members are published. Networks are in `nasray.models`; what a user names an architecture by (a name, a file,
the folder of a run) is looked up in `nasray.finding`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasray.architectures import fad, libraries, msnas, ofa_resnet, shufflenet, staged, supernet
from nasray.architectures.family import SLOTS, Family, Slot
from nasray.architectures.scaling import scaled
from nasray.architectures.staged import PUBLISHED
from nasray.cluster.reading import read_json, shown
from nasray.registry import Registry
from nasray.spaces import Architecture, LayerTable, NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import MAX_PARAMS_M, MIN_SIDE, shortened
from nasray.spaces.resolutions import NAME

SCALED = re.compile(r"(.+)@([0-9]+(?:\.[0-9]+)?)")
"""Names of scaled networks: another one's, and the factor of its widths."""

COMPOSITE = "composite"
"""Family of an architecture that fills several slots."""

_OURS: dict[str, Any] = {
    **staged.FAMILIES,
    **shufflenet.FAMILIES,
    **ofa_resnet.FAMILIES,
    **fad.FAMILIES,
    **msnas.FAMILIES,
    **supernet.FAMILIES,
    **libraries.FAMILIES,
}
FAMILIES = Registry("architecture", _OURS)
"""Name to `Family`. A new one is a module of this package and one entry above; another package registers a `Family` by
an entry point of the group `nasray.architectures`, whose name is the family's."""

ARCHITECTURES: dict[str, Architecture] = {
    name: architecture for family in _OURS.values() for name, architecture in family.named.items()
}
"""nasray's own published architectures by name; those of other packages' families are found by `named_architecture`."""


def family_of(architecture: Architecture) -> Family:
    """Return the family of an architecture.

    Raises:
        NasrayError: if there is no such family, or the architecture is a composite.
    """
    if architecture.family == COMPOSITE:
        raise NasrayError(
            f"architecture {architecture.id} fills several slots: {', '.join(slots(architecture))}. Name one that "
            "fills one"
        )
    if architecture.family not in FAMILIES:
        raise NasrayError(
            f"unknown family {architecture.family!r} of architectures{did_you_mean(architecture.family, FAMILIES)} "
            f"There are: {', '.join(FAMILIES)}"
        )
    family: Family = FAMILIES[architecture.family]
    return family


def checked_spec(architecture: Architecture) -> dict[str, Any]:
    """Return the spec of an architecture, checked and with the defaults of its family filled in.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    return family_of(architecture).check(architecture.spec)


def layer_table(architecture: Architecture, image_hw: tuple[int, int]) -> LayerTable:
    """Return the layers of one architecture (N = 1), whether or not a space holds it.

    Args:
        architecture: Architecture of a family that describes its layers.
        image_hw: Height and width of the input in pixels.

    Raises:
        NasrayError: if its family has no layer table, or its spec is not one of its family.
    """
    family = family_of(architecture)
    if family.layers is None:
        tables = [name for name, other in FAMILIES.items() if other.layers is not None]
        raise NasrayError(f"family {architecture.family!r} has no layer table; those that have: {', '.join(tables)}")
    return family.layers(family.check(architecture.spec), image_hw)


def has_layers(architecture: Architecture) -> bool:
    """Return whether `layer_table` knows the layers of an architecture."""
    return architecture.family in FAMILIES and family_of(architecture).layers is not None


def check_size_to_build(architecture: Architecture) -> None:
    """Refuse a network whose weights would not fit, before memory is taken for them.

    Raises:
        NasrayError: if it has more than `MAX_PARAMS_M` parameters / 1e6.
    """
    if not has_layers(architecture):
        return
    params_m = float(layer_table(architecture, (MIN_SIDE, MIN_SIDE)).cost()["params_m"][0])
    if params_m > MAX_PARAMS_M:
        raise NasrayError(
            f"this network has {params_m:,.0f} M parameters; those that are built have at most {MAX_PARAMS_M:,} M. "
            "Lower widths or depths (in a search: budget.params_m)"
        )


def read_architecture(path: Path) -> Architecture:
    """Return the architecture in a JSON file, its spec checked where its family is known.

    Raises:
        NasrayError: if the file cannot be read, is not JSON, or holds no architecture.
    """
    try:
        architecture = Architecture.from_dict(read_json(path))
        for part in slots(architecture).values():
            checked_spec(part)
    except NasrayError as error:
        raise NasrayError(f"{error}" if shown(path) in str(error) else f"{shown(path)}: {error}") from error
    except ValueError as error:
        raise NasrayError(f"{shown(path)} holds no architecture: {error}") from error
    return architecture


def named_architecture(name: str) -> Architecture | None:
    """Return the architecture of a name that a family knows, ours before those of other packages; None for any other.

    `NAME@FACTOR` is a network with all widths times a factor, such as resnet18@0.5.

    Raises:
        NasrayError: if the name is of a library that is not installed, or has no such model; or what is to be scaled
            cannot be.
    """
    if match := SCALED.fullmatch(name):
        base = named_architecture(match[1])
        return None if base is None else scaled(base, float(match[2]))
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    families: list[Family] = list(FAMILIES.values())
    for family in families:
        found = family.named.get(name) or (family.find(name) if family.find is not None else None)
        if found is not None:
            return found
    return None


# ---- slots -------------------------------------------------------------------------------------------------------


def slot_of(architecture: Architecture) -> Slot:
    """Return the slot that an architecture of one family fills; a supernet fills that of its space.

    Raises:
        NasrayError: if there is no such family.
    """
    family = family_of(architecture)
    if is_supernet(architecture):
        family = FAMILIES.get(architecture.spec["space"], family)
    return family.slot


def compose(parts: Mapping[Slot, Architecture]) -> Architecture:
    """Return one architecture that fills several slots; a single part is itself, so that its id stays.

    Args:
        parts: Architecture of each slot, at least one.

    Raises:
        NasrayError: if an architecture does not fill its slot, or a backbone and a pyramid are given.
    """
    for slot, part in parts.items():
        if slot_of(part) != slot:
            raise NasrayError(f"{part.family} {part.id} is a {slot_of(part)}, not a {slot}. Name another")
    if "backbone" in parts and "pyramid" in parts:
        raise NasrayError("a pyramid stands where a backbone and its neck do: name one of the two")
    if len(parts) == 1:
        return next(iter(parts.values()))
    spec: dict[str, Any] = {slot: {"family": part.family, "spec": part.spec} for slot, part in parts.items()}
    return Architecture.create(COMPOSITE, spec)


def slots(architecture: Architecture) -> dict[Slot, Architecture]:
    """Return the architecture of each slot, in the order of `SLOTS`.

    An architecture of an unknown family counts as a backbone.

    Raises:
        NasrayError: if the spec of a composite is not understood.
    """
    if architecture.family != COMPOSITE:
        return {slot_of(architecture) if architecture.family in FAMILIES else "backbone": architecture}
    spec = architecture.spec
    if unknown := [slot for slot in spec if slot not in SLOTS]:
        raise NasrayError(f"spec of a composite has the slots {', '.join(SLOTS)}; got {shortened(unknown[0])}")
    try:
        return {slot: Architecture.from_dict(spec[slot]) for slot in SLOTS if slot in spec}
    except ValueError as error:
        raise NasrayError(f"spec of a composite: {error}") from error


def resolution_of(architecture: Architecture) -> tuple[int, int] | None:
    """Return height and width of the images that an architecture is for; None where its space has no resolutions."""
    for part in slots(architecture).values():
        if isinstance(part.spec, dict) and isinstance(size := part.spec.get(NAME), list):
            height, width = size
            return int(height), int(width)
    return None


def is_supernet(architecture: Architecture) -> bool:
    """Return whether an architecture stands for a whole supernet, or has one in a slot."""
    if architecture.family == COMPOSITE:
        return any(is_supernet(part) for part in slots(architecture).values())
    return architecture.family == supernet.FAMILY


__all__ = [
    "ARCHITECTURES",
    "COMPOSITE",
    "FAMILIES",
    "PUBLISHED",
    "SLOTS",
    "Family",
    "Slot",
    "check_size_to_build",
    "checked_spec",
    "compose",
    "family_of",
    "has_layers",
    "is_supernet",
    "layer_table",
    "named_architecture",
    "read_architecture",
    "resolution_of",
    "slot_of",
    "slots",
]
