"""What an edge of a searched cell can do between its two 1x1 convolutions: the transformations of FAD, and of DARTS.

References: Guo et al., "Representation Sharing for Fast Object Detector Search and Beyond" (FAD), ECCV 2020, section
3.1 and Figure 2; Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, whose operations FAD
compares with (Table 2).

Differs from them in, or reads them as:
- Which transformation Figure 2 calls t4 and which t6 is not said; here their names say what they are.
- DARTS's convolutions are followed by a group norm and a ReLU, as all others are, where DARTS begins with the ReLU and
  has a batch norm. As there, its separable convolutions are applied twice, its dilated ones once; pools have no norm.
- DARTS's convolutions have the biases that FAD's of the same kind have.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Unit(NamedTuple):
    """A convolution with a norm and a ReLU behind it.

    Attributes:
        is_separable: Whether it is a depthwise convolution with a 1x1 convolution behind it.
        kernel: Side of its kernel, odd.
        dilation: Distance of the pixels that it looks at; a dilated one is separable.
    """

    is_separable: bool
    kernel: int = 3
    dilation: int = 1

    def cost(self, channels: int) -> tuple[int, int]:
        """Return multiply-adds a pixel, and parameters: weights, biases, and the norm."""
        taps = self.kernel**2
        weights = taps * channels + channels**2 if self.is_separable else taps * channels**2
        biases = channels * (2 if self.dilation > 1 else 1)  # a depthwise convolution has one where it is dilated
        return weights, weights + biases + 2 * channels


class Transformation(NamedTuple):
    """What an edge does.

    Attributes:
        name: Name in a spec, such as "standard-2+d2": two convolutions, then one of dilation 2.
        units: Convolutions, one after the other.
        pool: Kind of a 3x3 pool of stride 1 instead of them; empty where there is none.
        stream: Kind of those that begin with the same convolutions, and so can share what they compute; empty where
            none does.
    """

    name: str
    units: tuple[Unit, ...]
    pool: Literal["", "max", "average"] = ""
    stream: Literal["", "standard", "separable"] = ""

    @property
    def receptive_field(self) -> int:
        """Side of what a pixel sees, in pixels."""
        return 1 + sum((unit.kernel - 1) * unit.dilation for unit in self.units) + 2 * bool(self.pool)

    @property
    def num_convs(self) -> int:
        """Number of its convolutions that are not dilated."""
        return sum(unit.dilation == 1 for unit in self.units)

    @property
    def dilation(self) -> int:
        """Dilation of its last convolution; 0 where that is not dilated."""
        return self.units[-1].dilation if len(self.units) > self.num_convs else 0

    def cost(self, channels: int) -> tuple[int, int]:
        """Return multiply-adds of convolutions a pixel, and parameters."""
        costs = [unit.cost(channels) for unit in self.units]
        return sum(macs for macs, _ in costs), sum(params for _, params in costs)


def _of_fad(stream: Literal["standard", "separable"], num_convs: int, dilation: int) -> Transformation:
    units = (Unit(stream == "separable"),) * num_convs
    if not dilation:
        return Transformation(f"{stream}-{num_convs}", units, stream=stream)
    dilated = Unit(is_separable=True, dilation=dilation)
    return Transformation(f"{stream}-{num_convs}+d{dilation}", (*units, dilated), stream=stream)


SHAPES = ((1, 0), (1, 3), (1, 2), (2, 0), (2, 2), (3, 0))
"""Convolutions and dilation of each stream's transformations."""
TRANSFORMATIONS = (
    *(_of_fad("standard", *shape) for shape in SHAPES),
    *(_of_fad("separable", *shape) for shape in SHAPES),
)
"""Those of FAD."""
NAMES = tuple(transformation.name for transformation in TRANSFORMATIONS)
DARTS = (
    Transformation("max-pool-3x3", (), pool="max"),
    Transformation("avg-pool-3x3", (), pool="average"),
    Transformation("skip-connect", ()),
    Transformation("sep-conv-3x3", (Unit(is_separable=True),) * 2),
    Transformation("sep-conv-5x5", (Unit(is_separable=True, kernel=5),) * 2),
    Transformation("dil-conv-3x3", (Unit(is_separable=True, dilation=2),)),
    Transformation("dil-conv-5x5", (Unit(is_separable=True, kernel=5, dilation=2),)),
)
"""Those of DARTS, in its order, without `none`."""
BY_NAME = {transformation.name: transformation for transformation in (*TRANSFORMATIONS, *DARTS)}
