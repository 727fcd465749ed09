"""Heads of detectors made of two cells of transformations: the space of FAD.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020.

A cell has two inputs and three nodes. Each node is the sum of two transformed states, of the inputs and the nodes
before it; the cell's output is its nodes, concatenated. A transformation is one to three 3x3 convolutions, dense or
depthwise separable, and perhaps a dilated one behind them (`nasray.spaces.transformations`).

Differs from the paper in, or reads it as:
- Its 13th transformation, `none`, is for the gradient search alone: a derived cell has none, so no row has it here.
- "2.3 x 10^13 unique paths" are 13^12, all choices of twelve edges; which edges they are, and that none is left out,
  makes 2,888,816,545,234,944 different heads.

Genes: of every node of every cell its two `inputs` as two digits, the earlier state first (0 and 1 are the cell's
inputs, 2 the first node; the first node has no choice), and the transformations of the `first` and the `second`, places
in `TRANSFORMATIONS`, or in `DARTS`.

Shapes: N architectures; G genes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Population, Space
from nasray.spaces.errors import NasrayError
from nasray.spaces.layers import halved
from nasray.spaces.ranges import MAX_WIDTH, Range, Width, check_image_hw, check_whole
from nasray.spaces.transformations import DARTS, TRANSFORMATIONS, Transformation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Operations = Literal["fad", "rf-5", "rf-7", "standard", "separable", "darts"]

NUM_NODES, NUM_EDGES, MAX_CELLS = 3, 9, 16
EDGES = ("first", "second")
PAIRS = tuple(
    tuple(sorted(10 * first + second for first, second in combinations(range(node + 2), 2)))
    for node in range(NUM_NODES)
)
"""Inputs of each node: two earlier states as two digits."""


def _places(is_wanted: Callable[[Transformation], bool]) -> tuple[int, ...]:
    return tuple(index for index, each in enumerate(TRANSFORMATIONS) if is_wanted(each))


OPERATIONS: dict[str, tuple[tuple[Transformation, ...], tuple[int, ...]]] = {
    "fad": (TRANSFORMATIONS, tuple(range(len(TRANSFORMATIONS)))),
    "rf-5": (TRANSFORMATIONS, _places(lambda each: each.receptive_field <= 5)),
    "rf-7": (TRANSFORMATIONS, _places(lambda each: each.receptive_field <= 7)),
    "standard": (TRANSFORMATIONS, _places(lambda each: each.stream == "standard")),
    "separable": (TRANSFORMATIONS, _places(lambda each: each.stream == "separable")),
    "darts": (DARTS, tuple(range(len(DARTS)))),
}
"""Transformations, and places of those to choose from: FAD's, its subsets of Table 2, and DARTS's."""


GROUPS = {1: ("mask",), 2: ("box", "class")}
"""What each group of cells makes features of, by the number of groups."""


class FADSpace(Space):
    """Heads of cells whose edges choose among twelve transformations: the space of FAD.

    Args:
        groups: 2 for dense detectors: cells for boxes, and behind them cells for classes; 1 for masks.
        channels: Channels within the edges of all cells.
        class_channels: Channels within the edges of the cells for classes, instead of `channels`.
        cells: Cells of each group, one behind the other, all alike.
        in_channels: Channels of the levels, and of what a head returns.
        operations: Transformations to choose from: the twelve of FAD; of these, those that see at most 5, or at most 7
            pixels; the dense ones; the separable ones; or the seven operations of DARTS.
        image_hw: Height and width in pixels of the input for which costs are counted.

    Attributes:
        names: Names of the groups.
        channels: Channels within edges, of each group.
        transformations: Transformations that genes are places in.
        places: Places of those to choose from.

    Raises:
        ValueError: for an option that is not allowed.
    """

    family = "fad"
    cost_scope = "head"
    image_hw: tuple[int, int]

    def __init__(
        self,
        *,
        groups: Annotated[int, Range(1, 2)] = 2,
        channels: Width = 96,
        class_channels: Width | None = None,
        cells: Annotated[int, Range(1, MAX_CELLS)] = 2,
        in_channels: Width = 256,
        operations: Operations = "fad",
        image_hw: tuple[int, int] = (800, 1280),
    ) -> None:
        if operations not in OPERATIONS:
            raise NasrayError(f"operations is one of {', '.join(OPERATIONS)}; got {operations!r}")
        if class_channels is not None and groups == 1:
            raise NasrayError("class_channels is of the second group of cells, and groups is 1. Leave it out")
        self.names = GROUPS[check_whole("groups", groups, 1, 2)]
        self.cells = check_whole("cells", cells, 1, MAX_CELLS)
        self.in_channels = check_whole("in_channels", in_channels, 1, MAX_WIDTH)
        self.channels = tuple(
            check_whole("channels", width, 1, MAX_WIDTH) for width in (channels, class_channels or channels)[:groups]
        )
        self.image_hw = check_image_hw(image_hw)
        self._chosen_by, genes = operations, []
        self.transformations, self.places = OPERATIONS[operations]
        for name in self.names:
            for node in range(NUM_NODES):
                if node:
                    genes.append(Gene(f"{name}.{node}.inputs", PAIRS[node], ordered=False))
                genes += [Gene(f"{name}.{node}.{edge}", self.places, ordered=False) for edge in EDGES]
        self.genes = tuple(genes)

    def network_options(self) -> dict[str, Any]:
        """See `Space.network_options`."""
        options: dict[str, Any] = {"groups": len(self.names), "channels": self.channels[0], "cells": self.cells}
        if len(set(self.channels)) > 1:
            options["class_channels"] = self.channels[1]
        return options if self._chosen_by == "fad" else {**options, "operations": self._chosen_by}

    @property
    def chosen(self) -> tuple[Transformation, ...]:
        """Transformations to choose from, in the order of `places`."""
        return tuple(self.transformations[place] for place in self.places)

    # ---- architectures ----------------------------------------------------------------------------------------------

    def to_architecture(self, row: Ints) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        groups = {}
        for (name, edges), channels in zip(self.edges(row).items(), self.channels, strict=True):
            nodes: list[list[list[Any]]] = [[] for _ in range(NUM_NODES)]
            for (node, state), place in edges.items():
                nodes[node].append([state, self.transformations[place].name])
            groups[name] = {"channels": channels, "nodes": nodes}
        return Architecture.create(self.family, {"cells": self.cells, "groups": groups})

    def edges(self, row: Ints) -> dict[str, dict[tuple[int, int], int]]:
        """Return of each group what stands on its six edges: the place of a transformation by node and state."""
        found: dict[str, dict[tuple[int, int], int]] = {}
        for number, name in enumerate(self.names):
            values = iter(int(value) for value in row[self._columns(number)])
            found[name] = {}
            for node in range(NUM_NODES):
                for state in divmod(next(values), 10) if node else (0, 1):
                    found[name][node, state] = next(values)
        return found

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec, row = self._own_spec(architecture), []
        places = {transformation.name: place for place, transformation in enumerate(self.transformations)}
        try:
            for name in self.names:
                for node, edges in enumerate(spec["groups"][name]["nodes"]):
                    (first, one), (second, other) = edges
                    row += [10 * first + second] if node else []
                    row += [places[one], places[other]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        if len(row) != self.num_genes:
            raise ValueError(f"not an architecture of this space: {len(row)} genes instead of {self.num_genes}")
        return self._same(self.checked_row(np.array(row, dtype=np.int64)), architecture)

    def _columns(self, group: int) -> slice:
        each = self.num_genes // len(self.names)
        return slice(group * each, (group + 1) * each)

    def derive(self, scores: Floats) -> Ints:
        """Return the (G,) row of the head that scores of transformations stand for, as a gradient search makes it.

        Of every edge the transformation with the highest score is taken; of every node the two edges whose highest
        scores are the highest. Equal ones: the first. The paper's `none` is not asked: it takes no edge away.

        Args:
            scores: (groups, 9, T) finite scores of all `transformations`, of each group's edges: those of the first
                node from states 0 and 1, of the second from 0 to 2, of the third from 0 to 3.

        Raises:
            NasrayError: if they are not finite, or of another shape.
        """
        shape = (len(self.names), NUM_EDGES, len(self.transformations))
        if scores.shape != shape or not np.isfinite(scores).all():
            raise NasrayError(f"scores are {' x '.join(map(str, shape))} finite numbers; got {scores.shape}")
        allowed = np.asarray(self.places)
        row: list[int] = []
        for group in scores:
            begin = 0
            for node in range(NUM_NODES):
                edges = group[begin : begin + node + 2][:, allowed]
                begin += node + 2
                states = np.sort(np.argsort(-edges.max(axis=1), kind="stable")[:2])
                row += [int(10 * states[0] + states[1])] if node else []
                row += [int(allowed[edges[state].argmax()]) for state in states]
        return np.array(row, dtype=np.int64)

    # ---- costs ------------------------------------------------------------------------------------------------------

    def cost(self, population: Population, image_hw: tuple[int, int] | None = None) -> Costs:
        """Return `gmacs` and `params_m` of the head at `image_hw`, each (N,): convolutions alone, no predictions.

        Args:
            population: (N, G) rows.
            image_hw: Height and width in pixels; the space's own by default.
        """
        macs, params = np.zeros(len(population)), np.zeros(len(population))
        for number, channels in enumerate(self.channels):
            own = population[:, self._columns(number)]
            edges = own[:, [column for column, gene in enumerate(self._genes_of(number)) if gene in EDGES]]
            table = np.array([each.cost(channels) for each in self.transformations], dtype=np.float64)
            edge_macs, edge_params = table[edges].sum(axis=1).T
            around, joints = self._around(channels), self._joints()
            macs += self.cells * (edge_macs + around[0]) + joints[0]
            params += self.cells * (edge_params + around[1]) + joints[1]
        return {"gmacs": macs * num_pixels(image_hw or self.image_hw) / 1e9, "params_m": params / 1e6}

    def _genes_of(self, group: int) -> list[str]:
        return [gene.name.rpartition(".")[2] for gene in self.genes[self._columns(group)]]

    def _around(self, channels: int) -> tuple[int, int]:
        """Return what the two 1x1 convolutions of all edges of a cell cost: multiply-adds a pixel, and parameters."""
        weights = 2 * self.in_channels * channels * NUM_NODES * len(EDGES)
        return weights, weights + (self.in_channels + channels) * NUM_NODES * len(EDGES)

    def _joints(self) -> tuple[int, int]:
        """Return what joins the cells of a group: a 1x1 convolution behind each, and norms between them."""
        weights = NUM_NODES * self.in_channels**2 * self.cells
        return weights, weights + self.in_channels * self.cells + 2 * self.in_channels * (self.cells - 1)


def num_pixels(image_hw: tuple[int, int]) -> int:
    """Return the pixels of all levels, P3 to P7, of an input of `image_hw` pixels."""
    sides, total = image_hw, 0
    for level in range(1, 8):
        sides = halved(sides)
        total += sides[0] * sides[1] if level >= 3 else 0
    return total
