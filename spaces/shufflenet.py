"""ShuffleNetV2 blocks, four choices for each: the spaces of DetNAS.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, Table 1 (channels and blocks);
mutation and crossover from its released code (Guo et al., "Single Path One-Shot Neural Architecture Search with
Uniform Sampling", ECCV 2020, has the same).

Differs from the paper in:
- The stem has a bias beside its norm, and the first blocks of stages have all four choices, as in the released code.
- "FLOPs" are multiply-adds of the backbone, which the released search limits, at `image_hw` (the paper: 224x224);
  `classifier_cost` counts the whole ImageNet network, which the paper's tables and the released pre-training mean.

Genes: the choice of every block of C2 to C5, an index into `CHOICES`. The first block of a stage halves the resolution.

Shapes: N architectures; G genes, one for each block.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Population, Space
from nasray.spaces.errors import NasrayError
from nasray.spaces.layers import Floats, LayerRows, LayerTable, halved
from nasray.spaces.ranges import (
    MAX_BLOCKS,
    MAX_WIDTH,
    Depth,
    Width,
    check_four_stages,
    check_image_hw,
    check_whole,
)

CHOICES = ("3x3", "5x5", "7x7", "xception")
"""What a block can be: the kernel of ShuffleNetV2's depthwise convolution, or three separable 3x3 convolutions."""

SHUFFLES = ("interleave", "even-odd")
"""How a block of stride 1 divides its input's channels in two. "interleave" shuffles the two halves into each other
and cuts the result in half (DetNAS's supernet); "even-odd" takes every second channel (DetNAS's retrained networks).
The same weights compute different functions with either."""

MUTATION_PROBABILITY = 0.1
KERNELS = np.array([3.0, 5.0, 7.0, 3.0])
XCEPTION = CHOICES.index("xception")

Ints = NDArray[np.int64]
SizeName = Literal["small", "large", "large-wide"]


class Size(NamedTuple):
    """Channels and blocks: of the stem, and of the stages C2 to C5."""

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]


SIZES: dict[str, Size] = {
    "small": Size(16, (64, 160, 320, 640), (4, 4, 8, 4)),
    "large": Size(48, (96, 240, 480, 960), (8, 8, 16, 8)),
    "large-wide": Size(72, (172, 432, 864, 1728), (8, 8, 16, 8)),
}
"""DetNAS's spaces of about 300 M and 1.3 G multiply-adds, and the second 1.8 times as wide (3.8 G)."""

CLASSIFIER_WIDTHS = {SIZES["large-wide"]: 1728}
"""Channels of a classifier's last convolution in the released code as it stands, where they are not 1024. The paper's
29.5 M parameters of the widened network are those of the code's first commit, which had 1024 there too."""


class ShuffleNetSpace(Space):
    """Networks of a stem and ShuffleNetV2 blocks in four stages (C2 to C5), four choices a block.

    Args:
        size: Channels and blocks as in one of DetNAS's spaces.
        stem_width: Channels of the stem, instead of the size's.
        widths: Channels of C2 to C5, instead of the size's; multiples of 4, each more than the one before.
        depths: Blocks of C2 to C5, instead of the size's.
        shuffle: How channels are divided; see `SHUFFLES`.
        image_hw: Height and width in pixels of the input for which costs are counted.

    Raises:
        ValueError: for an option that is not allowed.
    """

    family = "shufflenet"
    cost_scope = "backbone"
    image_hw: tuple[int, int]

    def __init__(
        self,
        size: SizeName = "small",
        *,
        stem_width: Width | None = None,
        widths: tuple[Width, Width, Width, Width] | None = None,
        depths: tuple[Depth, Depth, Depth, Depth] | None = None,
        shuffle: Literal["interleave", "even-odd"] = "interleave",
        image_hw: tuple[int, int] = (224, 224),
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"size is one of {', '.join(SIZES)}; got {size!r}")
        if shuffle not in SHUFFLES:
            raise ValueError(f"shuffle is one of {', '.join(SHUFFLES)}; got {shuffle!r}")
        named = SIZES[size]
        self.size = Size(
            named.stem_width if stem_width is None else stem_width,
            named.widths if widths is None else tuple(widths),
            named.depths if depths is None else tuple(depths),
        )
        check_size(self.size)
        self.shuffle = shuffle
        self.image_hw = check_image_hw(image_hw)
        values = tuple(range(len(CHOICES)))
        self.genes = tuple(
            Gene(f"c{level}.{index}", values, ordered=False)
            for level, depth in enumerate(self.size.depths, start=2)
            for index in range(depth)
        )

    def network_options(self) -> dict[str, Any]:
        """Return what the networks of this space follow from: its arguments but for those that are about costs."""
        stem_width, widths, depths = self.size
        return {"stem_width": stem_width, "widths": list(widths), "depths": list(depths), "shuffle": self.shuffle}

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) mutants: each block's choice is drawn anew with probability 0.1, and may stay as it was."""
        fresh = rng.integers(len(CHOICES), size=population.shape)
        return np.where(rng.random(population.shape) < MUTATION_PROBABILITY, fresh, population)

    # ---- architectures ----------------------------------------------------------------------------------------------

    def to_architecture(self, row: Ints) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        parts = np.split(np.asarray(row), np.cumsum(self.size.depths)[:-1])
        stages = [
            {"width": width, "blocks": [CHOICES[choice] for choice in part]}
            for width, part in zip(self.size.widths, parts, strict=True)
        ]
        spec = {"stem": {"width": self.size.stem_width}, "stages": stages, "shuffle": self.shuffle}
        return Architecture.create(self.family, spec)

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec = self._own_spec(architecture)
        try:
            names = [name for stage in spec["stages"] for name in stage["blocks"]]
            row = np.array([CHOICES.index(name) for name in names], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        if len(row) != self.num_genes:
            raise ValueError(f"not an architecture of this space: {len(row)} blocks instead of {self.num_genes}")
        return self._same(self.checked_row(row), architecture)

    # ---- costs ------------------------------------------------------------------------------------------------------

    def cost(self, population: Population, image_hw: tuple[int, int] | None = None) -> Costs:
        """Return `gmacs`, `params_m`, `layers` of the backbone at `image_hw`, each (N,), by one look-up per block."""
        tables = block_tables(self.size, image_hw or self.image_hw)
        return {
            "gmacs": tables.look_up(tables.macs, population) / 1e9,
            "params_m": tables.look_up(tables.params, population) / 1e6,
            "layers": tables.look_up(tables.layers, population),
        }

    def classifier_cost(
        self,
        population: Population,
        image_hw: tuple[int, int] | None = None,
        *,
        width: int | None = None,
        num_classes: int = 1000,
    ) -> Costs:
        """Return `cost` of the backbone with its classifier: a 1x1 convolution and a linear layer.

        Args:
            population: (N, G) rows.
            image_hw: Height and width in pixels; the space's own by default.
            width: Channels of the convolution; those of the released code by default.
            num_classes: Outputs of the linear layer.
        """
        width = CLASSIFIER_WIDTHS.get(self.size, 1024) if width is None else width
        height, width_c5 = image_hw or self.image_hw
        for _ in range(5):
            height, width_c5 = halved((height, width_c5))
        channels = self.size.widths[-1]
        macs = channels * width * height * width_c5 + width * num_classes
        params = (channels + 3) * width + (width + 1) * num_classes
        costs = self.cost(population, image_hw)
        return {
            "gmacs": (costs["gmacs"] * 1e9 + macs) / 1e9,
            "params_m": (costs["params_m"] * 1e6 + params) / 1e6,
            "layers": costs["layers"] + 2,
        }

    def map_channels(self, population: Population) -> dict[int, Ints]:
        """See `Space.map_channels`; the same of all rows."""
        return {4 << index: np.full(len(population), width) for index, width in enumerate(self.size.widths)}

    def layers(self, population: Population, image_hw: tuple[int, int] | None = None) -> LayerTable:
        """Return the layers of the whole population."""
        return shufflenet_layers(self.size, population, image_hw or self.image_hw)


def check_size(size: Size) -> None:
    """Refuse what is no network of four stages.

    Raises:
        NasrayError: naming the value.
    """
    check_four_stages(size.widths, size.depths)
    for width in (size.stem_width, *size.widths):
        check_whole("channels", width, 1, MAX_WIDTH)
    for depth in size.depths:
        check_whole("blocks of a stage", depth, 1, MAX_BLOCKS)
    if sum(size.depths) > MAX_BLOCKS:
        raise NasrayError(f"networks have at most {MAX_BLOCKS:,} blocks, got {sum(size.depths):,} in {size.depths}")
    ascending = all(low < high for low, high in zip((size.stem_width, *size.widths), size.widths, strict=False))
    if not ascending or any(width % 4 for width in size.widths):
        raise NasrayError(
            "widths are multiples of 4, each more than the one before, the first more than the stem's "
            f"{size.stem_width}; got {size.widths}"
        )


class BlockTables(NamedTuple):
    """What every block costs with every choice: (G + 1, 4) each, of which the first row is the stem's."""

    macs: Floats
    params: Floats
    layers: Floats

    @staticmethod
    def look_up(table: Floats, population: Population) -> Floats:
        """Return (N,) sums over the stem and the blocks; whole numbers, and so exact in any order."""
        sums: Floats = table[0, 0] + table[np.arange(1, len(table)), population].sum(axis=1)
        return sums


@lru_cache(maxsize=64)
def block_tables(size: Size, image_hw: tuple[int, int]) -> BlockTables:
    """Return the costs of blocks, from the layers of the four networks in which all blocks are alike."""
    num_blocks = sum(size.depths)
    layers = shufflenet_layers(size, np.tile(np.arange(len(CHOICES))[:, None], num_blocks), image_hw)
    tables = BlockTables(*(np.zeros((num_blocks + 1, len(CHOICES))) for _ in BlockTables._fields))
    main = (layers.role == "main")[:, None]
    for table, rows in zip(tables, (layers.macs, layers.params, layers.repeats * main), strict=True):
        np.add.at(table, layers.block, rows)
        table.flags.writeable = False
    return tables


def shufflenet_layers(size: Size, population: Population, image_hw: tuple[int, int]) -> LayerTable:
    """Return the layer table of a population of (N, G) choices; block positions are the blocks, the stem's is 0."""
    rows, hw = LayerRows(), halved(image_hw)
    rows.add(
        block=0,
        level=1,
        kernel=3.0,
        in_channels=3.0,
        out_channels=float(size.stem_width),
        repeats=1.0,
        out_hw=hw,
        stride=2,
        relu_in=False,
        bias=True,
    )
    for block, (level, stride, width_in, width_out) in enumerate(block_shapes(size)):
        in_hw, hw = hw, halved(hw) if stride == 2 else hw
        choice = population[:, block]
        kernel, is_xception = KERNELS[choice], (choice == XCEPTION).astype(np.float64)
        half, mid = float(width_out // 2), float(width_out // 2)
        inner, outer = (float(width_in), float(width_out - width_in)) if stride == 2 else (half, half)
        common: dict[str, Any] = {"block": block + 1, "level": level}
        if stride == 2:
            side = {**common, "role": "shortcut", "in_channels": inner, "out_channels": inner, "out_hw": hw}
            rows.add(**side, kernel=kernel, repeats=1.0, stride=2, depthwise=True, relu_out=False)
            rows.add(**side, kernel=1.0, repeats=1.0, relu_in=False)
        separable = [(inner, mid, stride), (mid, mid, 1), (mid, outer, 1)]
        once: dict[str, Any] = {**common, "repeats": is_xception, "out_hw": hw}
        for channels_in, channels_out, step in separable:
            rows.add(
                **once,
                kernel=3.0,
                in_channels=channels_in,
                out_channels=channels_in,
                stride=step,
                depthwise=True,
                relu_out=False,
            )
            rows.add(**once, kernel=1.0, in_channels=channels_in, out_channels=channels_out, relu_in=False)
        once["repeats"] = 1.0 - is_xception
        rows.add(**once | {"out_hw": in_hw}, kernel=1.0, in_channels=inner, out_channels=mid)
        rows.add(
            **once, kernel=kernel, in_channels=mid, out_channels=mid, stride=stride, depthwise=True, relu_out=False
        )
        rows.add(**once, kernel=1.0, in_channels=mid, out_channels=outer, relu_in=False)
    return rows.table(len(population))


def block_shapes(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Yield level, stride, channels in and channels out of every block."""
    width_in = size.stem_width
    for level, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True), start=2):
        for index in range(depth):
            yield level, 2 if index == 0 else 1, width_in, width
            width_in = width
