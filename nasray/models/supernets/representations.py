"""All transformations of an edge at once, from shared representations: RepShare.

Reference: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, section
3.2.

The transformations of a stream share Figure 2's row of three convolutions, off whose outputs all of them branch. An
edge has 12 representations instead of 26.

Reads it as: the decoupling function H is a 1x1 convolution without bias, and a ReLU, behind the first and the second
convolution of a row; the last one has none, and the row goes on from what H is not applied to.

Shapes: B images, E channels within an edge, T transformations, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from torch import Tensor, nn

from nasray.models.fad import unit, units_of
from nasray.spaces.transformations import Transformation

ALONE = "alone"
"""Name of those of no stream."""


class SharedStream(nn.Module):
    """The transformations of one kind of convolution, which share a row of them.

    Args:
        channels: E.
        transformations: Transformations, all of one stream.
        decouple: Whether transformations that are a part of the row have H behind it.
    """

    def __init__(self, channels: int, transformations: Sequence[Transformation], *, decouple: bool) -> None:
        super().__init__()
        self.transformations = tuple(transformations)
        longest = max(transformations, key=lambda each: each.num_convs)
        self.row = nn.ModuleList(unit(channels, what) for what in longest.units[: longest.num_convs])
        self.ends = nn.ModuleDict()
        for each in transformations:
            if each.dilation:
                self.ends[_key(each)] = unit(channels, each.units[-1])
            elif decouple and each.num_convs < longest.num_convs:
                decoupling = nn.Conv2d(channels, channels, 1, bias=False)
                self.ends[_key(each)] = nn.Sequential(decoupling, nn.ReLU(inplace=True))

    def forward(self, x: Tensor, wanted: Collection[Transformation]) -> Iterator[tuple[Transformation, Tensor]]:
        """Yield each transformation that is wanted, and its (B, E, H, W) output."""
        for num in range(1, max(each.num_convs for each in wanted) + 1):
            x = self.row[num - 1](x)
            for each in self.transformations:
                if each.num_convs == num and each in wanted:
                    key = _key(each)
                    yield each, self.ends[key](x) if key in self.ends else x

    def units(self, transformation: Transformation) -> list[nn.Module]:
        """Return the convolutions of a transformation, in their order, without H."""
        last = [self.ends[_key(transformation)]] if transformation.dilation else []
        return [*self.row[: transformation.num_convs], *last]

    def parts(self, transformation: Transformation) -> list[nn.Module]:
        """Return all that computes a transformation, with H."""
        has_end = _key(transformation) in self.ends
        return [*self.row[: transformation.num_convs], *([self.ends[_key(transformation)]] if has_end else [])]

    def is_decoupled(self, transformation: Transformation) -> bool:
        """Return whether a transformation has H."""
        return not transformation.dilation and _key(transformation) in self.ends


class SeparateStream(nn.Module):
    """Transformations, each with convolutions of its own.

    Args:
        channels: E.
        transformations: Transformations.
    """

    def __init__(self, channels: int, transformations: Sequence[Transformation]) -> None:
        super().__init__()
        self.transformations = tuple(transformations)
        self.chains = nn.ModuleList(nn.Sequential(*units_of(channels, each)) for each in transformations)

    def forward(self, x: Tensor, wanted: Collection[Transformation]) -> Iterator[tuple[Transformation, Tensor]]:
        """Yield each transformation that is wanted, and its (B, E, H, W) output."""
        for each, chain in zip(self.transformations, self.chains, strict=True):
            if each in wanted:
                yield each, chain(x)

    def units(self, transformation: Transformation) -> list[nn.Module]:
        """Return the parts of a transformation, in their order."""
        chain = self.chains[self.transformations.index(transformation)]
        assert isinstance(chain, nn.Sequential)
        return list(chain)

    def parts(self, transformation: Transformation) -> list[nn.Module]:
        """Return all that computes a transformation."""
        return self.units(transformation)

    def is_decoupled(self, transformation: Transformation) -> bool:
        """Return False: none has H."""
        del transformation
        return False


def _key(transformation: Transformation) -> str:
    return f"{transformation.num_convs}-d{transformation.dilation}"


class Mixture(nn.Module):
    """All transformations of an edge: their weighted sum.

    Args:
        channels: E.
        transformations: T transformations.
        shared: Whether those of a stream share representations; of no meaning for those of none.
        decouple: Whether those that are a part of another have H behind it; of no meaning where nothing is shared.
    """

    def __init__(
        self,
        channels: int,
        transformations: Sequence[Transformation],
        *,
        shared: bool = True,
        decouple: bool = True,
    ) -> None:
        super().__init__()
        self.index = {each: index for index, each in enumerate(transformations)}
        self.streams = nn.ModuleDict()
        for name in dict.fromkeys(each.stream for each in transformations):
            own = [each for each in transformations if each.stream == name]
            if shared and name:
                self.streams[name] = SharedStream(channels, own, decouple=decouple)
            else:
                self.streams[name or ALONE] = SeparateStream(channels, own)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Map (B, E, H, W) by the sum of all transformations, each times its weight.

        Args:
            x: Input.
            weights: (T,) weights.
        """
        total: Tensor | None = None
        for stream in self.streams.values():
            for each, out in stream(x, stream.transformations):
                weighted: Tensor = out * weights[self.index[each]]
                total = weighted if total is None else total + weighted
        assert total is not None
        return total

    def one(self, x: Tensor, transformation: Transformation) -> Tensor:
        """Map (B, E, H, W) by one transformation, of which only what it needs is computed."""
        found: list[tuple[Transformation, Tensor]] = list(self.stream_of(transformation)(x, (transformation,)))
        return found[0][1]

    def stream_of(self, transformation: Transformation) -> SharedStream | SeparateStream:
        """Return where a transformation is computed."""
        stream = self.streams[transformation.stream or ALONE]
        assert isinstance(stream, SharedStream | SeparateStream)
        return stream
