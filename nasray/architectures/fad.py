"""Heads of FAD: two cells of transformations, for boxes and for classes.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020; the two
published ones are those of its released code.
"""

from __future__ import annotations

from typing import Any

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys
from nasray.spaces import Architecture, FADSpace, NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.fad import GROUPS, MAX_CELLS, NUM_NODES
from nasray.spaces.ranges import MAX_WIDTH, check_whole, shortened
from nasray.spaces.transformations import BY_NAME


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the checked spec of a head: `cells`, the cells of each group, and `groups`.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    check_keys(spec, "spec", needed=("cells", "groups"))
    check_whole("spec.cells", spec["cells"], 1, MAX_CELLS)
    groups = spec["groups"]
    if not isinstance(groups, dict) or set(groups) not in map(set, GROUPS.values()):
        raise NasrayError(f"spec.groups is an object with the keys box and class, or mask; got {shortened(groups)}")
    for name, group in groups.items():
        place = f"spec.groups.{name}"
        check_keys(group, place, needed=("channels", "nodes"))
        check_whole(f"{place}.channels", group["channels"], 1, MAX_WIDTH)
        nodes = group["nodes"]
        if not isinstance(nodes, list) or len(nodes) != NUM_NODES:
            raise NasrayError(f"{place}.nodes is a list of {NUM_NODES} nodes; got {shortened(nodes)}")
        for number, node in enumerate(nodes):
            _check_node(node, f"{place}.nodes[{number}]", number + 2)
    return dict(spec)


def _check_node(node: Any, place: str, num_states: int) -> None:
    """Refuse what is not two pairs of a state, the earlier first, and a transformation."""
    is_pairs = isinstance(node, list) and len(node) == 2 and all(isinstance(e, list) and len(e) == 2 for e in node)
    if not is_pairs:
        raise NasrayError(f"{place} is a list of two edges, each a state and a transformation; got {shortened(node)}")
    for state, name in node:
        check_whole(f"{place}: a state", state, 0, num_states - 1)
        if not isinstance(name, str) or name not in BY_NAME:
            hint = did_you_mean(name, BY_NAME) if isinstance(name, str) else "."
            known = ", ".join(BY_NAME)
            raise NasrayError(f"{place}: unknown transformation {shortened(name)}{hint} There are: {known}")
    if node[0][0] >= node[1][0]:
        raise NasrayError(f"{place} has edges from two states, the earlier first; got {node[0][0]} and {node[1][0]}")


Edges = tuple[tuple[int, str], tuple[int, str]]


def _head(box: tuple[Edges, ...], classes: tuple[Edges, ...]) -> Architecture:
    groups = {
        name: {"channels": 96, "nodes": [[list(edge) for edge in node] for node in nodes]}
        for name, nodes in (("box", box), ("class", classes))
    }
    return Architecture.create(FADSpace.family, {"cells": 2, "groups": groups})


NAMED = {
    "fad-paper": _head(
        (
            ((0, "separable-3"), (1, "standard-3")),
            ((1, "separable-1+d2"), (2, "standard-1")),
            ((2, "separable-2"), (3, "standard-2")),
        ),
        (
            ((0, "standard-3"), (1, "separable-2+d2")),
            ((0, "separable-2+d2"), (2, "separable-1")),
            ((2, "separable-2"), (3, "standard-1")),
        ),
    ),
    "fad-other": _head(
        (
            ((0, "standard-3"), (1, "standard-2")),
            ((0, "standard-1"), (2, "standard-1+d2")),
            ((2, "standard-1+d2"), (3, "standard-2+d2")),
        ),
        (
            ((0, "separable-1+d2"), (1, "standard-3")),
            ((0, "separable-1"), (2, "separable-1+d2")),
            ((0, "standard-3"), (1, "standard-1")),
        ),
    ),
}
"""Those of the paper's tables, and of the release's "other good" one."""
FAMILIES = {FADSpace.family: Family(slot="head", network="nasray.models.fad:FADHead", check=check_spec, named=NAMED)}
