"""The supernet of DetNAS: in every place the four kinds of ShuffleNetV2 blocks, of which one runs.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, section 3.2.

Differs from the released code in:
- Norms of blocks on the path learn their weight and bias in a detector too; there, a hook passes over its own
  synchronized norms, so that they stay as pre-training left them.
- No parameter off the path is decayed or carried on by its momentum in a detector either, as section 3.2 demands.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nasray.models.shufflenet import ShuffleNet
from nasray.models.supernets.choice import ChoiceSupernet, OneOf
from nasray.spaces import ShuffleNetSpace
from nasray.spaces.shufflenet import CHOICES


class ShuffleNetSupernet(ChoiceSupernet):
    """Stem and stages of `ShuffleNet`, with a `OneOf` of four blocks in every place.

    Args:
        space: Space whose architectures are the paths.
        out_levels: Which of C1 to C5 `forward` returns.
        momentum: Momentum of the batch norms.
    """

    space: ShuffleNetSpace

    def __init__(
        self, space: ShuffleNetSpace, out_levels: Sequence[int] = (2, 3, 4, 5), *, momentum: float = 0.1
    ) -> None:
        super().__init__(space)
        self.out_levels, self.momentum = tuple(out_levels), momentum
        # Four networks, each of one kind of block, woven into one.
        strands = [self.standalone(np.full(space.num_genes, choice)) for choice in range(len(CHOICES))]
        network = strands[0]
        for index, stage in enumerate(network.stages):
            assert isinstance(stage, nn.Sequential)
            for place in range(len(stage)):
                stage[place] = OneOf([strand.stages[index][place] for strand in strands])  # type: ignore[index]
        self.network = network
        self.feature_info = [info | {"module": f"network.{info['module']}"} for info in network.feature_info]
        self.out_channels = network.out_channels

    def standalone(self, row: NDArray[np.int64]) -> ShuffleNet:
        """Return the `ShuffleNet` of a path, with any weights."""
        spec = self.space.to_architecture(row).spec
        return ShuffleNet(**spec, out_levels=self.out_levels, momentum=self.momentum)
