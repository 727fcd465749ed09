"""Relaxed heads of FAD: on every edge all transformations at once, weighted, from shared representations.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, section 3.

The transformations of a stream share Figure 2's row of three convolutions, off whose outputs all of them branch. An
edge has 12 representations instead of 26.

Differs from the paper in, or reads it as:
- One softmax weighs all transformations of an edge and `none`, both streams together (Equation 2 has one for each).
- The decoupling function H is a 1x1 convolution without bias, and a ReLU, behind the first and the second convolution
  of a row; the last one has none, and the row goes on from what H is not applied to.

What a path here computes is what the derived head (`nasray.models.fad.FADHead`) of one cell a group computes with the
same weights, but for what only one of the two has: H here, of `standard-1`, `standard-2` and the separable ones of the
same shape; there the biases of the 1x1 convolutions of edges, and norms between the cells of a group.

Shapes: B images, C channels of a level, E channels within an edge, T transformations, H x W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.models.detectors.heads import reset
from nasray.models.fad import FADHead, unit, units_of
from nasray.models.supernets.base import Genes, Supernet
from nasray.spaces import FADSpace
from nasray.spaces.fad import NAMES, NUM_EDGES, NUM_NODES, TRANSFORMATIONS, Transformation

ALPHA_DEVIATION = 1e-3
"""Standard deviation of fresh alphas, as in the released code."""


Shape = tuple[int, int]
"""Convolutions of a transformation, and the dilation of a further one; see `SHAPES`."""


class SharedStream(nn.Module):
    """The transformations of one kind of convolution, which share a row of them.

    Args:
        channels: E.
        shapes: Shapes of the transformations, in the order of `SHAPES`.
        is_separable: Whether the convolutions are separable.
        decouple: Whether transformations that are a part of the row have H behind it.
    """

    def __init__(self, channels: int, shapes: tuple[Shape, ...], *, is_separable: bool, decouple: bool) -> None:
        super().__init__()
        longest = max(num for num, _ in shapes)
        self.shapes = shapes
        self.row = nn.ModuleList(unit(channels, is_separable=is_separable) for _ in range(longest))
        self.ends = nn.ModuleDict()
        for num, dilation in shapes:
            if dilation:
                self.ends[_key(num, dilation)] = unit(channels, is_separable=True, dilation=dilation)
            elif decouple and num < longest:
                decoupling = nn.Conv2d(channels, channels, 1, bias=False)
                self.ends[_key(num, dilation)] = nn.Sequential(decoupling, nn.ReLU(inplace=True))

    def forward(self, x: Tensor, wanted: Collection[Shape]) -> Iterator[tuple[Shape, Tensor]]:
        """Yield the shape and the (B, E, H, W) output of each transformation that is wanted."""
        for num in range(1, max(num for num, _ in wanted) + 1):
            x = self.row[num - 1](x)
            for shape in self.shapes:
                if shape[0] == num and shape in wanted:
                    key = _key(*shape)
                    yield shape, self.ends[key](x) if key in self.ends else x

    def units(self, shape: Shape) -> list[nn.Module]:
        """Return the convolutions of a transformation, in their order, without H."""
        num, dilation = shape
        return [*self.row[:num], *([self.ends[_key(num, dilation)]] if dilation else [])]


class SeparateStream(nn.Module):
    """The same transformations, each with convolutions of its own.

    Args:
        channels: E.
        shapes: Shapes of the transformations, in the order of `SHAPES`.
        is_separable: Whether the convolutions are separable.
    """

    def __init__(self, channels: int, shapes: tuple[Shape, ...], *, is_separable: bool) -> None:
        super().__init__()
        self.shapes = shapes
        self.chains = nn.ModuleList(
            nn.Sequential(*units_of(channels, Transformation(is_separable, *shape))) for shape in shapes
        )

    def forward(self, x: Tensor, wanted: Collection[Shape]) -> Iterator[tuple[Shape, Tensor]]:
        """Yield the shape and the (B, E, H, W) output of each transformation that is wanted."""
        for shape, chain in zip(self.shapes, self.chains, strict=True):
            if shape in wanted:
                yield shape, chain(x)

    def units(self, shape: Shape) -> list[nn.Module]:
        """Return the convolutions of a transformation, in their order."""
        chain = self.chains[self.shapes.index(shape)]
        assert isinstance(chain, nn.Sequential)
        return list(chain)


def _key(num: int, dilation: int) -> str:
    return f"{num}-d{dilation}"


class Mixture(nn.Module):
    """All transformations of an edge: their weighted sum.

    Args:
        channels: E.
        places: Places of the transformations in `TRANSFORMATIONS`, ascending.
        shared: Whether those of a stream share representations.
        decouple: Whether those that are a part of another have H behind it; of no meaning where nothing is shared.
    """

    def __init__(self, channels: int, places: tuple[int, ...], *, shared: bool = True, decouple: bool = True) -> None:
        super().__init__()
        self.index = {(_stream(place), _shape(place)): index for index, place in enumerate(places)}
        self.streams = nn.ModuleDict()
        for name in dict.fromkeys(map(_stream, places)):
            shapes = tuple(_shape(place) for place in places if _stream(place) == name)
            is_separable = name == "separable"
            if shared:
                self.streams[name] = SharedStream(channels, shapes, is_separable=is_separable, decouple=decouple)
            else:
                self.streams[name] = SeparateStream(channels, shapes, is_separable=is_separable)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map (B, E, H, W) by the sum of all transformations, each times its weight.

        Args:
            x: Input.
            weights: (T,) weights, in the order of `places`.
        """
        total: Tensor | None = None
        for name, stream in self.streams.items():
            for shape, out in stream(x, stream.shapes):
                weighted: Tensor = out * weights[self.index[name, shape]]
                total = weighted if total is None else total + weighted
        assert total is not None
        return total

    def one(self, x: Tensor, place: int) -> Tensor:
        """Map (B, E, H, W) by one transformation, of which only what it needs is computed."""
        stream = self.streams[_stream(place)]
        found: list[tuple[Shape, Tensor]] = list(stream(x, (_shape(place),)))
        return found[0][1]

    def units(self, place: int) -> list[nn.Module]:
        """Return the convolutions of a transformation, in their order, without H."""
        stream = self.streams[_stream(place)]
        assert isinstance(stream, SharedStream | SeparateStream)
        return stream.units(_shape(place))


def _shape(place: int) -> Shape:
    return TRANSFORMATIONS[place].num_convs, TRANSFORMATIONS[place].dilation


def _stream(place: int) -> str:
    return "separable" if TRANSFORMATIONS[place].is_separable else "standard"


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

    def forward(self, x: Tensor, choice: Tensor | int) -> Tensor:
        """Map (B, C, H, W) by a mixture with (T,) weights, or by the transformation at a place."""
        x = self.reduce(x)
        out: Tensor = self.expand(self.mixture.one(x, choice) if isinstance(choice, int) else self.mixture(x, choice))
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

    def forward(self, first: Tensor, second: Tensor, choices: Mapping[tuple[int, int], Tensor | int]) -> Tensor:
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
        self._chosen: dict[str, dict[tuple[int, int], int]] = {}  # what the path has on its edges
        self.cells = nn.ModuleDict()
        self.alphas = nn.ParameterDict()
        for name, channels in zip(space.names, space.channels, strict=True):
            mixtures = [Mixture(channels, space.places, shared=shared, decouple=decouple) for _ in range(NUM_EDGES)]
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

    def _choices(self, name: str) -> Mapping[tuple[int, int], Tensor | int]:
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
        self._chosen = self.space.edges(row)

    def standalone(self, row: NDArray[np.int64]) -> nn.Module:
        """See `Supernet.standalone`; one cell a group, as here."""
        spec = self.space.to_architecture(row).spec
        return FADHead(cells=1, groups=spec["groups"], in_channels=int(self.out_channels), num_levels=1)  # type: ignore[call-overload]

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """See `Supernet.path_state`; biases that only the derived head has are zeros of their own."""
        state: dict[str, Tensor] = {}
        for name, cell in self.cells.items():
            assert isinstance(cell, RelaxedCell)
            seen: dict[int, int] = {}
            for (node, source), place in self.space.edges(row)[name].items():
                edge = cell.edges[edge_number(node, source)]
                assert isinstance(edge, RelaxedEdge)
                number = seen[node] = seen.get(node, -1) + 1
                prefix = f"groups.{name}.cells.0.edges.{node}.{number}"
                units = edge.mixture.units(place)
                for index, module in enumerate((edge.reduce, *units, edge.expand)):
                    for key, value in module.state_dict(keep_vars=True).items():
                        state[f"{prefix}.{index}.{key}"] = value
                for index, conv in ((0, edge.reduce), (len(units) + 1, edge.expand)):
                    state[f"{prefix}.{index}.bias"] = conv.weight.new_zeros(conv.out_channels)
            for key, value in cell.end.state_dict(keep_vars=True).items():
                state[f"groups.{name}.end.{key}"] = value
        return state

    # ---- the gradient's choice --------------------------------------------------------------------------------------

    def derive(self) -> NDArray[np.int64]:
        """Return the (G,) row of the head that the alphas stand for; see `FADSpace.derive`."""
        scores = np.zeros((len(self.space.names), NUM_EDGES, len(NAMES)))
        for group, name in enumerate(self.space.names):
            scores[group][:, list(self.space.places)] = self.alphas[name].detach()[:, :-1].double().cpu().numpy()
        return self.space.derive(scores)

    def shares(self) -> dict[str, Tensor]:
        """Return of each group the (9, T + 1) shares of an edge's choices, `none` the last."""
        return {name: alphas.detach().softmax(dim=1) for name, alphas in self.alphas.items()}
