"""Options of path filters and of their fitting; read without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_BATCH, Range

MAX_DIM = 4096
MAX_EPOCHS = 100_000


@dataclass(frozen=True)
class FilterOptions:
    """What the network of a path filter is.

    Attributes:
        dim: Dimensions of tokens and layers; a multiple of the heads and of 2.
        depth: Encoder layers.
        heads: Heads of their attention.
        literal_positions: Whether positions are encoded as Equation 3 of DetOFA literally says.
        condition: Whether it knows the bucket (Table 2: "budget condition").
        block_positions: Whether positions of blocks are encoded beside those of layers (Table 2).

    Raises:
        NasrayError: If the dimensions are no multiple of the heads and of 2.
    """

    dim: Annotated[int, Range(2, MAX_DIM)] = 128
    depth: Annotated[int, Range(1, 100)] = 3
    heads: Annotated[int, Range(1, MAX_DIM)] = 4
    literal_positions: bool = False
    condition: bool = True
    block_positions: bool = True

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % 2:
            raise NasrayError(f"dim is a multiple of 2 and of the {self.heads} heads; got {self.dim}")


@dataclass(frozen=True)
class FitOptions:
    """How a path filter is fitted.

    Attributes:
        epochs: Passes over the architectures.
        batch_size: Architectures of each bucket in one step.
        learning_rate: Learning rate of Adam.
        weight_decay: Decay of weights, added to their gradients.
        margin: Difference of scores beyond which a pair costs nothing.
        holdout: Share of each bucket by which the best epoch is chosen.
        bounded: Whether pairs are of one bucket (Table 2: "FLOPs-bounded loss"); otherwise any two are one.
    """

    epochs: Annotated[int, Range(1, MAX_EPOCHS)] = 100
    batch_size: Annotated[int, Range(2, MAX_BATCH)] = 100
    learning_rate: Annotated[float, Range(above=0)] = 1e-3
    weight_decay: Annotated[float, Range(0)] = 1e-4
    margin: Annotated[float, Range(above=0)] = 1.0
    holdout: Annotated[float, Range(0, 0.9)] = 0.2
    bounded: bool = True
