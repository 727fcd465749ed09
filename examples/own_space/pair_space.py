"""A space of one's own: every stage of a backbone chooses between two blocks. Needs no PyTorch.

Shapes: N architectures in a population, one row of 12 genes each: kind, width and depth of C2 to C5.
"""

import math

import numpy as np

from nasray.architectures.family import Family
from nasray.spaces import Gene, NasrayError, Space

LEVELS = (2, 3, 4, 5)
STEM = 16
DENSE, SPLIT = 0, 1
GENES = tuple(
    gene
    for level in LEVELS
    for gene in (
        Gene(f"kind{level}", (DENSE, SPLIT), ordered=False),
        Gene(f"width{level}", tuple(range(8, 129, 8)), log=True),
        Gene(f"depth{level}", (1, 2, 3, 4)),
    )
)


class PairSpace(Space):
    """Backbones whose stages are dense 3x3 convolutions, or depthwise 5x5 ones with a 1x1 convolution behind each.

    Args:
        image_hw: Height and width in pixels of the input for which costs are counted.
    """

    family = "pair"
    genes = GENES
    cost_scope = "backbone"

    def __init__(self, *, image_hw: tuple[int, int] = (240, 320)) -> None:
        self.image_hw = image_hw

    def cost(self, population):
        """Return the exact costs of a population, each an (N,) array."""
        kind, width, depth = (population[:, column::3] for column in range(3))  # each (N, 4)
        before = np.concatenate([np.full_like(width[:, :1], STEM), width[:, :-1]], axis=1)
        weights = block_weights(kind, before, width) + (depth - 1) * block_weights(kind, width, width)
        normed = (kind * before + width) + (depth - 1) * (kind * width + width)
        stem, *stages = (math.prod(-(-side // 2**level) for side in self.image_hw) for level in (1, *LEVELS))
        return {
            "gmacs": (27 * STEM * stem + weights @ np.array(stages)) / 1e9,
            "params_m": (29 * STEM + (weights + 2 * normed).sum(axis=1)) / 1e6,
        }


def block_weights(kind, inputs, outputs):
    """Return the number of weights of one block's convolutions."""
    return np.where(kind == DENSE, 9 * inputs * outputs, 25 * inputs + inputs * outputs)


def check_spec(spec):
    """Return the spec of an architecture: its genes by name, which are the keywords of the network.

    Raises:
        NasrayError: naming what is missing, unknown, or not allowed.
    """
    allowed = {gene.name: gene.values for gene in GENES}
    if set(spec) != set(allowed):
        raise NasrayError(f"a pair network has the keys {', '.join(allowed)}; got {', '.join(spec)}")
    for name, value in spec.items():
        if value not in allowed[name]:
            raise NasrayError(f"{name} of a pair network is one of {allowed[name]}; got {value!r}")
    return dict(spec)


FAMILY = Family(slot="backbone", network="pair_net:PairNet", check=check_spec)
