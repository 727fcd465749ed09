"""The supernet of DetNAS: in every place the four kinds of ShuffleNetV2 blocks, of which one runs.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, section 3.2.

Differs from the released code in:
- Norms of blocks on the path learn their weight and bias in a detector too; there, a hook passes over its own
  synchronized norms, so that they stay as pre-training left them.
- No parameter off the path is decayed or carried on by its momentum in a detector either, as section 3.2 demands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.models.shufflenet import ShuffleNet
from nasray.models.supernets.base import Supernet
from nasray.spaces import ShuffleNetSpace
from nasray.spaces.shufflenet import CHOICES


class OneOf(nn.ModuleList):
    """Modules for the same place, of which one runs.

    Attributes:
        chosen: its index; None before the first choice.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__(modules)
        self.chosen: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """What the chosen module makes of x."""
        if self.chosen is None:
            raise RuntimeError("no path is set: call set_path(genes) of the supernet first")
        return self[self.chosen](x)


class ShuffleNetSupernet(Supernet):
    """Stem and stages of `ShuffleNet`, with a `OneOf` of four blocks in every place.

    Args:
        space: whose architectures are the paths.
        out_levels: which of C1 to C5 `forward` returns.
        momentum: of the batch norms.
    """

    space: ShuffleNetSpace

    def __init__(
        self, space: ShuffleNetSpace, out_levels: Sequence[int] = (2, 3, 4, 5), *, momentum: float = 0.1
    ) -> None:
        super().__init__(space)
        self.out_levels, self.momentum = tuple(out_levels), momentum
        # Four networks, each of one kind of block, woven into one.
        strands = [self.standalone(np.full(space.num_genes, choice)) for choice in range(len(CHOICES))]
        self.network = strands[0]
        for index, stage in enumerate(self.network.stages):
            assert isinstance(stage, nn.Sequential)
            for place in range(len(stage)):
                stage[place] = OneOf([strand.stages[index][place] for strand in strands])  # type: ignore[index]
        self.feature_info = [info | {"module": f"network.{info['module']}"} for info in self.network.feature_info]
        self.out_channels = self.network.out_channels

    def places(self) -> list[OneOf]:
        """The places in the order of the genes."""
        return [place for stage in self._stages() for place in stage]

    def _stages(self) -> list[list[OneOf]]:
        return [list(stage) for stage in self.network.stages]  # type: ignore[call-overload]

    def select(self, row: NDArray[np.int64]) -> None:
        """Let every place run the block that its gene names."""
        for place, choice in zip(self.places(), row.tolist(), strict=True):
            place.chosen = choice

    def standalone(self, row: NDArray[np.int64]) -> ShuffleNet:
        """The `ShuffleNet` of a path, with any weights."""
        spec = self.space.to_architecture(row).spec
        return ShuffleNet(**spec, out_levels=self.out_levels, momentum=self.momentum)

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """The stem's state, and of every place the chosen block's."""
        state: dict[str, Tensor] = {}
        self.network.stem.state_dict(destination=state, prefix="stem.", keep_vars=True)
        genes = iter(row.tolist())
        for index, stage in enumerate(self._stages()):
            for place, blocks in enumerate(stage):
                block = blocks[next(genes)]
                block.state_dict(destination=state, prefix=f"stages.{index}.{place}.", keep_vars=True)
        return state

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary from "c2" to (B, C, H', W'), along the path that is set."""
        return self.network(images)
