"""Relaxed heads of FAD: on every edge all transformations at once, weighted, from shared representations.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, section 3.

What stands on an edge, with shared representations and the decoupling function H, is `representations.Mixture`.

Differs from the paper in, or reads it as:
- One softmax weighs all transformations of an edge and `none`, both streams together (Equation 2 has one for each).

What a path here computes is what the derived head (`nasray.models.fad.FADHead`) computes with the same weights, but for
what only one of the two has:
- here H, behind `standard-1`, `standard-2`, and the separable ones of the same shape, where `decouple` is on;
- there biases of the 1x1 convolutions at the ends of edges, which are 0 in what is taken out of here;
- there further cells of a group, and before each a 1x1 convolution with norm and ReLU: here a group has one cell.
A path with H, or of a space of several cells, is therefore not taken out.

Shapes: B images, C channels of a level, E channels within an edge, T transformations, H x W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.models.detectors.heads import reset
from nasray.models.fad import PLACES, FADHead, purpose_of
from nasray.models.supernets.base import Genes, Supernet
from nasray.models.supernets.representations import Mixture
from nasray.spaces import FADSpace, NasrayError
from nasray.spaces.fad import NUM_EDGES, NUM_NODES
from nasray.spaces.transformations import Transformation

ALPHA_DEVIATION = 1e-3
"""Standard deviation of fresh alphas, as in the released code."""
Choice = Tensor | Transformation
"""What an edge does: a mixture with (T,) weights, or one transformation."""


class RelaxedEdge(nn.Module):
    """A 1x1 convolution to fewer channels, a mixture, and a 1x1 convolution back; neither with a bias.

    Args:
        in_channels: C.
        channels: E.
        mixture: What is between the two.
    """

    def __init__(self, in_channels: int, channels: int, mixture: Mixture) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.mixture = mixture
        self.expand = nn.Conv2d(channels, in_channels, 1, bias=False)

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        """Map (B, C, H, W) by a mixture with (T,) weights, or by one transformation."""
        x = self.reduce(x)
        mixed = self.mixture(x, choice) if isinstance(choice, Tensor) else self.mixture.one(x, choice)
        out: Tensor = self.expand(mixed)
        return out


class RelaxedCell(nn.Module):
    """Three nodes, each the sum of edges from all earlier states, and a 1x1 convolution at the end.

    Args:
        edges: The nine edges: those of the first node from states 0 and 1, of the second from 0 to 2, and so on.
        in_channels: C.
    """

    def __init__(self, edges: Sequence[RelaxedEdge], in_channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(edges)
        self.end = nn.Conv2d(NUM_NODES * in_channels, in_channels, 1)

    def forward(self, first: Tensor, second: Tensor, choices: Mapping[tuple[int, int], Choice]) -> Tensor:
        """Map two (B, C, H, W) inputs to (B, C, H, W) features.

        Args:
            first: State 0.
            second: State 1.
            choices: What an edge does, by node and state; edges that are not there do nothing.
        """
        states = [first, second]
        for node in range(NUM_NODES):
            own = [state for state in range(node + 2) if (node, state) in choices]
            outs = [self.edges[edge_number(node, state)](states[state], choices[node, state]) for state in own]
            states.append(functools.reduce(torch.add, outs))
        features: Tensor = self.end(torch.cat(states[2:], dim=1))
        return features


def edge_number(node: int, state: int) -> int:
    """Return the place of an edge among the nine of a cell."""
    return node * (node + 3) // 2 + state


class RelaxedHead(Supernet):
    """Head that holds every head of a space of FAD: a mixture on every edge, or a path through it.

    Without a path (`set_path(None)`) it is the mixture of all, weighted by a softmax of each edge's alphas; the last of
    these is `none`, which adds nothing. It has one cell a group, whatever number the derived heads have.

    Args:
        space: Space of the heads.
        in_channels: C; the space's if left out.
        num_levels: Number of levels that share it; not used.
        shared: Whether transformations share representations.
        decouple: Whether those that are a part of another have a function of their own behind it.

    Attributes:
        purpose: "boxes" or "masks".
        out_channels: Channels of all features, C.
        alphas: Of each group (9, T + 1) architecture parameters, by its name.
    """

    space: FADSpace

    def __init__(
        self,
        space: FADSpace,
        *,
        in_channels: int | None = None,
        num_levels: int = 5,
        shared: bool = True,
        decouple: bool = True,
    ) -> None:
        super().__init__(space)
        del num_levels
        width = in_channels or space.in_channels
        self.out_channels = width  # type: ignore[assignment]  # of a head: one number
        self.purpose = purpose_of(space.names)
        self._chosen: dict[str, dict[tuple[int, int], Transformation]] = {}  # what the path has on its edges
        self.cells = nn.ModuleDict()
        self.alphas = nn.ParameterDict()
        for name, channels in zip(space.names, space.channels, strict=True):
            mixtures = [Mixture(channels, space.chosen, shared=shared, decouple=decouple) for _ in range(NUM_EDGES)]
            self.cells[name] = RelaxedCell([RelaxedEdge(width, channels, mixture) for mixture in mixtures], width)
            self.alphas[name] = nn.Parameter(torch.empty(NUM_EDGES, len(space.places) + 1))
            nn.init.normal_(self.alphas[name], std=ALPHA_DEVIATION)
        if "class" in self.cells:
            end = self.cells["class"].end
            assert isinstance(end, nn.Conv2d)
            reset(end)

    # ---- what it computes -------------------------------------------------------------------------------------------

    def towers(self, level: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Map a (B, C, H, W) level to features of classes and of boxes, both of the same shape; see `DenseHead`."""
        del index
        boxes = self._group("box", level, level)
        return self._group("class", boxes, level), boxes

    def forward(self, images: Tensor) -> Any:
        """Map (R, C, 14, 14) regions to features of masks of the same shape."""
        return self._group("mask", images, images)

    def _group(self, name: str, first: Tensor, second: Tensor) -> Tensor:
        features: Tensor = self.cells[name](first, second, self._choices(name))
        return features

    def _choices(self, name: str) -> Mapping[tuple[int, int], Choice]:
        if self.path is not None:
            return self._chosen[name]
        weights = self.alphas[name].softmax(dim=1)
        return {
            (node, state): weights[edge_number(node, state), :-1]
            for node in range(NUM_NODES)
            for state in range(node + 2)
        }

    # ---- paths ------------------------------------------------------------------------------------------------------

    def set_path(self, genes: Genes | None) -> None:
        """Let it compute this path from now on; None: the mixture of all.

        Raises:
            ValueError: for genes that are no architecture of the space.
        """
        if genes is None:
            self.path = None
        else:
            super().set_path(genes)

    def select(self, row: NDArray[np.int64]) -> None:
        """See `Supernet.select`."""
        self._chosen = self._edges(row)

    def _edges(self, row: NDArray[np.int64]) -> dict[str, dict[tuple[int, int], Transformation]]:
        """Return of each group the transformations on its six edges, by node and state."""
        return {
            name: {edge: self.space.transformations[place] for edge, place in places.items()}
            for name, places in self.space.edges(row).items()
        }

    def standalone(self, row: NDArray[np.int64]) -> nn.Module:
        """See `Supernet.standalone`; one cell a group, as here."""
        spec = self.space.to_architecture(row).spec
        return FADHead(cells=1, groups=spec["groups"], in_channels=int(self.out_channels), num_levels=1)  # type: ignore[call-overload]

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """See `Supernet.path_state`; biases that only the derived head has are zeros of their own.

        Raises:
            NasrayError: for a path that computes what no head of the space does.
        """
        if self.space.cells > 1:
            raise NasrayError(
                f"heads of this space have {self.space.cells} cells a group, paths of their supernet one: none can be "
                "taken out. Train the head by itself, or search with space.cells 1"
            )
        state: dict[str, Tensor] = {}
        for prefix, edge, transformation in self._on_path(row):
            if edge.mixture.stream_of(transformation).is_decoupled(transformation):
                raise NasrayError(
                    f"{transformation.name} of this path has a function behind it (supernet.decouple) that no head "
                    "has: it cannot be taken out. Train the head by itself, or a supernet with supernet.decouple false"
                )
            units = edge.mixture.stream_of(transformation).units(transformation)
            for index, module in enumerate((edge.reduce, *units, edge.expand)):
                for key, value in module.state_dict(keep_vars=True).items():
                    state[f"{prefix}.{index}.{key}"] = value
            for index, conv in ((0, edge.reduce), (len(units) + 1, edge.expand)):
                state[f"{prefix}.{index}.bias"] = conv.weight.new_zeros(conv.out_channels)
        for name, cell in self.cells.items():
            assert isinstance(cell, RelaxedCell)
            for key, value in cell.end.state_dict(keep_vars=True).items():
                state[f"groups.{PLACES[name]}.end.{key}"] = value
        return state

    def path_parameters(self, genes: Genes) -> Iterator[tuple[nn.Parameter, tuple[slice, ...]]]:
        """See `Supernet.path_parameters`; H is among them."""
        used: list[nn.Module] = []
        for _, edge, transformation in self._on_path(self._checked(genes)):
            used += [edge.reduce, *edge.mixture.stream_of(transformation).parts(transformation), edge.expand]
        for cell in self.cells.values():
            assert isinstance(cell, RelaxedCell)
            used.append(cell.end)
        for module in used:
            for parameter in module.parameters():
                yield parameter, tuple(slice(0, size) for size in parameter.shape)

    def _on_path(self, row: NDArray[np.int64]) -> Iterator[tuple[str, RelaxedEdge, Transformation]]:
        """Yield the edges of a path: its place in the derived head, the edge here, and the transformation on it."""
        for name, edges in self._edges(row).items():
            cell = self.cells[name]
            assert isinstance(cell, RelaxedCell)
            seen: dict[int, int] = {}
            for (node, source), transformation in edges.items():
                edge = cell.edges[edge_number(node, source)]
                assert isinstance(edge, RelaxedEdge)
                number = seen[node] = seen.get(node, -1) + 1
                yield f"groups.{PLACES[name]}.cells.0.edges.{node}.{number}", edge, transformation

    # ---- the gradient's choice --------------------------------------------------------------------------------------

    def derive(self) -> NDArray[np.int64]:
        """Return the (G,) row of the head that the alphas stand for; see `FADSpace.derive`."""
        scores = np.zeros((len(self.space.names), NUM_EDGES, len(self.space.transformations)))
        for group, name in enumerate(self.space.names):
            scores[group][:, list(self.space.places)] = self.alphas[name].detach()[:, :-1].double().cpu().numpy()
        return self.space.derive(scores)

    def shares(self) -> dict[str, Tensor]:
        """Return of each group the (9, T + 1) shares of an edge's choices, `none` the last."""
        return {name: alphas.detach().softmax(dim=1) for name, alphas in self.alphas.items()}
