"""The supernet of MSNAS: a block for every stride in every place, laterals and maps that all paths share.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021, section
3.2: "One additional 1x1 lateral convolution attached after every mix-block".

Reads the paper as: the lateral convolution belongs to the block that it comes from, whichever later block it goes to;
and all paths share one 3x3 convolution behind the map of each absolute stride, whichever block it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.models.msnas import Route, StrideBlock, StridePyramid, draw_weights, lateral_conv, output_conv
from nasray.models.supernets.choice import ChoiceSupernet, OneOf
from nasray.spaces import Space, msnas_paths


class MSNASSupernet(ChoiceSupernet):
    """A `StridePyramid` with a `OneOf` of three blocks in every place, and all laterals and outputs; a pyramid itself.

    Args:
        space: Space whose architectures are the paths.
        momentum: Momentum of the batch norms.

    Attributes:
        out_channels: Channels of the maps, one number.
        num_groups: Number of groups of objects.
        stride: 64, what height and width of images are padded to multiples of.
    """

    network: StridePyramid

    def __init__(self, space: Space, *, momentum: float = 0.1) -> None:
        super().__init__(space)
        self.momentum = momentum
        path = space.sample(1, np.random.default_rng(0))[0]
        network, spec = self.standalone(path), space.to_architecture(path).spec
        width, mid = spec["width"], spec.get("mid")
        inputs = [spec["stem_width"]] + [width] * (len(network.blocks) - 1)
        network.blocks = nn.ModuleList(
            OneOf(StrideBlock(num, width, stride, mid, momentum=momentum) for stride in msnas_paths.STRIDES)
            for num in inputs
        )
        network.blocks.apply(draw_weights)
        network.laterals = nn.ModuleDict({str(source): lateral_conv(width) for source in range(len(inputs) - 1)})
        network.outputs = nn.ModuleDict(
            {str(scale): output_conv(width, network.out_channels) for scale in msnas_paths.SCALES}
        )
        self.network = network
        self.num_groups, self.stride = network.num_groups, network.stride
        self.out_channels = network.out_channels  # type: ignore[assignment]  # of a pyramid: one number
        self.feature_info = [{"num_chs": network.out_channels}] * network.num_groups

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between two locations of each group's map, on the path that is set."""
        if self.path is None:
            raise RuntimeError("no path is set: call set_path(genes) of the supernet first")
        return self.network.strides

    def standalone(self, row: NDArray[np.int64]) -> StridePyramid:
        """Return the `StridePyramid` of a path, with any weights."""
        return StridePyramid(**self.space.to_architecture(row).spec, momentum=self.momentum)

    def select(self, row: NDArray[np.int64]) -> None:
        """Let every place run the block of its stride, and the maps of the path be read."""
        route = self._route(row)
        super().select(row[: len(self.network.blocks)])
        self.network.route = route

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the state of stem and chosen blocks, and of the laterals and outputs that the path uses."""
        route = self._route(row)
        state = super().path_state(row[: len(self.network.blocks)])
        used = {f"laterals.{source}" for source in route.laterals} | {f"outputs.{scale}" for scale in route.outputs}
        return {
            name: value
            for name, value in state.items()
            if not name.startswith(("laterals.", "outputs.")) or name.rpartition(".")[0] in used
        }

    def path_modules(self, row: NDArray[np.int64]) -> Iterator[tuple[str, nn.Module]]:
        """See `ChoiceSupernet.path_modules`; blocks that no head needs run, and get no gradient."""
        route = self._route(row)
        needed = range(route.last + 1)
        used = {f"blocks.{index}" for index in needed} | {f"outputs.{scale}" for scale in route.outputs}
        used |= {f"laterals.{route.laterals[index]}" for index in needed}
        for name, module in super().path_modules(row[: len(self.network.blocks)]):
            kind, _, rest = name.partition(".")
            if kind not in ("blocks", "laterals", "outputs") or f"{kind}.{rest.partition('.')[0]}" in used:
                yield name, module

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Map (B, 3, H, W) images to the map of each group of objects, along the path that is set."""
        maps: list[Tensor] = self.network(images)
        return maps

    def _route(self, row: NDArray[np.int64]) -> Route:
        spec = self.space.to_architecture(row).spec
        return Route.of(spec["strides"], spec["heads"])
