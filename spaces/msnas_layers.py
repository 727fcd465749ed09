"""What the parts of an MSNAS network are made of and cost: stem, blocks, laterals, output convolutions, RPN.

The paper names neither what up-samples nor the widths beside the blocks'; these are the ones with which its FLOPs are
met to 2 % in all 15 networks of its tables:
- Stem of a ResNet: a 7x7 convolution and a max-pool, both of stride 2.
- A block of stride 0.5 is an ordinary one on its input enlarged by repeating pixels. Blocks that change the scale, and
  the first where the stem has other channels, have a 1x1 projection as their shortcut.
- Laterals: 1x1 with bias. Behind the last block of every stride that a head reads: 3x3 with bias, to the channels of
  the pyramid, those of the 3x3 convolutions in blocks. RPN: 3x3 of the same width and two 1x1 with biases, for each of
  the five groups, with shared weights.

Images are padded to multiples of 64, as the detector pads them.

Shapes: N architectures; B blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Mask
from nasray.spaces.errors import NasrayError
from nasray.spaces.layers import LayerRows, LayerTable, Role
from nasray.spaces.msnas_paths import NONE, NUM_GROUPS, SCALES, START, STRIDES, laterals
from nasray.spaces.ranges import MAX_WIDTH, check_whole

Ints = NDArray[np.int64]
BlockKind = Literal["basic", "bottleneck"]
BLOCK_KINDS = ("basic", "bottleneck")
NUM_ANCHORS = 3
"""Anchors of the RPN at each location."""
MAX_BLOCKS = 32
"""Blocks of an encoder: numbers of paths are whole numbers of 64 bits."""
DOWN = STRIDES.index(2.0)


class Size(NamedTuple):
    """What all encoders of a space have in common.

    Attributes:
        block: Kind of the blocks.
        blocks: Number of blocks.
        stem_width: Channels of the stem.
        width: Channels of the blocks' maps.
        mid: Channels within a bottleneck; None of basic blocks.
    """

    block: BlockKind
    blocks: int
    stem_width: int
    width: int
    mid: int | None = None

    @property
    def channels(self) -> int:
        """Channels of the maps that the heads read."""
        return self.width if self.mid is None else self.mid


VARIANTS: dict[str, Size] = {
    "r18": Size("basic", 13, 64, 180),
    "r34": Size("basic", 21, 64, 160),
    "r50": Size("bottleneck", 21, 64, 576, 144),
    "laptop": Size("basic", 9, 16, 32),
    "tiny": Size("basic", 6, 8, 16),
}
"""The paper's encoders of as many multiply-adds as ResNet-18, -34 and -50 with FPN have, and two for processors."""


def check_size(size: Size) -> None:
    """Refuse what no encoder can be built of.

    Raises:
        NasrayError: naming the value.
    """
    if size.block not in BLOCK_KINDS:
        raise NasrayError(f"block is one of {', '.join(BLOCK_KINDS)}; got {size.block!r}")
    check_whole("blocks", size.blocks, 1, MAX_BLOCKS)
    check_whole("stem_width", size.stem_width, 1, MAX_WIDTH)
    check_whole("width", size.width, 1, MAX_WIDTH)
    if size.block == "bottleneck":
        check_whole("mid, the channels within a bottleneck,", size.mid, 1, MAX_WIDTH)
    elif size.mid is not None:
        raise NasrayError(f"mid is of bottlenecks, and block is basic; got {size.mid}. Leave it out")


class Conv(NamedTuple):
    """One convolution of a part.

    Attributes:
        kernel: Height and width of its kernel.
        in_channels: Channels of its input.
        out_channels: Channels of its output.
        role: Its role, see `LayerTable`.
        stride: Its stride.
        finer: Whether its output is twice as fine as the part's.
        relu_in: Whether its input has passed a ReLU.
        relu_out: Whether its output passes a ReLU.
        plain: Whether it has a bias and no norm.
        skip: Whether the identity is added to its output.
    """

    kernel: int
    in_channels: int
    out_channels: int
    role: Role = "main"
    stride: int = 1
    finer: bool = False
    relu_in: bool = True
    relu_out: bool = True
    plain: bool = False
    skip: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds of an output pixel: the weights."""
        return self.kernel**2 * self.in_channels * self.out_channels

    @property
    def params(self) -> int:
        """Weights, and what a norm or a bias has."""
        return self.macs + (1 if self.plain else 2) * self.out_channels


def block_convs(size: Size, move: int, *, is_first: bool) -> tuple[Conv, ...]:
    """Return the convolutions of a block.

    Args:
        size: Size of the encoder.
        move: Place of its stride in `STRIDES`.
        is_first: Whether it stands behind the stem.
    """
    channels, stride = size.stem_width if is_first else size.width, 2 if move == DOWN else 1
    projects = STRIDES[move] != 1 or channels != size.width
    found = [Conv(1, channels, size.width, "shortcut", stride)] if projects else []
    if size.mid is None:
        found.append(Conv(3, channels, size.width, stride=stride))
        last = Conv(3, size.width, size.width)
    else:
        found += [Conv(1, channels, size.mid, finer=move == DOWN), Conv(3, size.mid, size.mid, stride=stride)]
        last = Conv(1, size.mid, size.width)
    return (*found, last._replace(skip=not projects))


def lateral_conv(size: Size) -> Conv:
    """Return the convolution of a lateral connection."""
    return Conv(1, size.width, size.width, "shortcut", plain=True)


def output_conv(size: Size) -> Conv:
    """Return the convolution behind a map that heads read."""
    return Conv(3, size.width, size.channels, "head", relu_out=False, plain=True)


def rpn_convs(size: Size, objectness: int = 1) -> tuple[Conv, ...]:
    """Return the convolutions of the RPN; `objectness` is the number of outputs that say whether there is something."""
    inner = Conv(3, size.channels, size.channels, "head", relu_in=False, plain=True)
    outputs = [
        Conv(1, size.channels, NUM_ANCHORS * each, "head", relu_out=False, plain=True) for each in (objectness, 4)
    ]
    return (inner, *outputs)


STEM_KERNEL = 7


def stem_conv(size: Size) -> Conv:
    """Return the convolution of the stem, at half of the image's resolution."""
    return Conv(STEM_KERNEL, 3, size.stem_width, stride=2, relu_in=False)


def map_hw(image_hw: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return height and width of a map of an absolute stride, of an image padded to multiples of the largest one."""
    height, width = (-(-side // SCALES[-1]) * SCALES[-1] // scale for side in image_hw)
    return height, width


# ---- costs -------------------------------------------------------------------------------------------------------


class PartCosts(NamedTuple):
    """What each part costs, whole numbers: multiply-adds by the place of its map in `SCALES`, and parameters.

    Attributes:
        stem: Multiply-adds, parameters.
        block: (2, 3, 5) multiply-adds of blocks: of the first or another, by move.
        block_params: (2, 3) their parameters.
        lateral: (5,) multiply-adds.
        output: (5,) multiply-adds.
        rpn: (5,) multiply-adds of one group.
        params: Parameters of a lateral, an output convolution, the RPN.
        depth: Layers of a block.
    """

    stem: tuple[int, int]
    block: Ints
    block_params: Ints
    lateral: Ints
    output: Ints
    rpn: Ints
    params: tuple[int, int, int]
    depth: int


@lru_cache(maxsize=64)
def part_costs(size: Size, image_hw: tuple[int, int]) -> PartCosts:
    """Return the costs of the parts of a network at an image size."""
    pixels = np.array([np.prod(map_hw(image_hw, scale)) for scale in SCALES], dtype=np.int64)

    def macs(convs: tuple[Conv, ...]) -> Ints:
        return pixels * sum(conv.macs * (4 if conv.finer else 1) for conv in convs)

    def params(*convs: Conv) -> int:
        return sum(conv.params for conv in convs)

    blocks = [
        [block_convs(size, move, is_first=is_first) for move in range(len(STRIDES))] for is_first in (True, False)
    ]
    stem, lateral, output, rpn = stem_conv(size), lateral_conv(size), output_conv(size), rpn_convs(size)
    return PartCosts(
        (stem.macs * int(np.prod(map_hw(image_hw, 2))), stem.params),
        np.array([[macs(convs) for convs in moves] for moves in blocks]),
        np.array([[params(*convs) for convs in moves] for moves in blocks]),
        macs((lateral,)),
        macs((output,)),
        macs(rpn),
        (params(lateral), params(output), params(*rpn)),
        sum(conv.role == "main" for conv in blocks[0][0]),
    )


def cost_sums(
    size: Size, moves: Ints, places: Ints, heads: Ints, alive: Mask, image_hw: tuple[int, int]
) -> tuple[Ints, Ints, Ints]:
    """Return (N,) multiply-adds, parameters and layers, whole numbers.

    Args:
        size: Size of the encoders.
        moves: (N, B) places of the blocks' strides in `STRIDES`.
        places: (N, B) places of their maps' absolute strides in `SCALES`.
        heads: (N, G) places of the absolute strides that the heads read.
        alive: (N, B) which blocks are counted.
        image_hw: Height and width of the image in pixels.
    """
    parts = part_costs(size, image_hw)
    first = (np.arange(moves.shape[1]) > 0).astype(np.int64)
    sideways = (laterals(np.asarray(STRIDES)[moves]) != NONE) & alive
    is_read = (heads[:, :, None] == np.arange(len(SCALES))).any(axis=1)
    macs = (parts.block[first, moves, places] * alive).sum(axis=1) + (parts.lateral[places] * sideways).sum(axis=1)
    macs += (parts.output * is_read).sum(axis=1) + parts.rpn[heads].sum(axis=1) + parts.stem[0]
    params = (parts.block_params[first, moves] * alive).sum(axis=1) + parts.stem[1] + parts.params[2]
    params += parts.params[0] * sideways.sum(axis=1) + parts.params[1] * is_read.sum(axis=1)
    return macs, params, 1 + parts.depth * alive.sum(axis=1)


# ---- layers ------------------------------------------------------------------------------------------------------


def msnas_layers(
    size: Size,
    moves: Ints,
    places: Ints,
    heads: Ints,
    alive: Mask,
    image_hw: tuple[int, int],
    *,
    objectness: int = 1,
) -> LayerTable:
    """Return the layer table of a population, of the layers that any of them has; see `cost_sums` for the arguments.

    Block positions are 0 of the stem, 1 to B of the blocks with their laterals, then one for each stride with its
    output convolution, then one for each group with its RPN.
    """
    rows, num_blocks = LayerRows(), moves.shape[1]
    add_stem(rows, size, image_hw)
    sideways = laterals(np.asarray(STRIDES)[moves]) != NONE
    for block in range(num_blocks):
        for move, place in _kinds(moves[:, block], places[:, block]):
            here = (moves[:, block] == move) & (places[:, block] == place) & alive[:, block]
            convs = block_convs(size, move, is_first=block == 0)
            _add(rows, convs, 1 + block, place, here, image_hw)
            _add(rows, (lateral_conv(size),), 1 + block, place, here & sideways[:, block], image_hw)
    for place in range(len(SCALES)):
        is_read = (heads == place).any(axis=1)
        _add(rows, (output_conv(size),), 1 + num_blocks + place, place, is_read, image_hw)
    rpn = rpn_convs(size, objectness)
    for group in range(NUM_GROUPS):
        for place in range(len(SCALES)):
            block = 1 + num_blocks + len(SCALES) + group
            _add(rows, rpn, block, place, heads[:, group] == place, image_hw, shared=group > 0)
    return rows.table(len(moves))


def add_stem(rows: LayerRows, size: Size, image_hw: tuple[int, int]) -> None:
    """Append the stem's row."""
    stem, out_hw = stem_conv(size), map_hw(image_hw, 2)
    rows.add(
        block=0,
        level=1,
        kernel=float(stem.kernel),
        in_channels=float(stem.in_channels),
        out_channels=float(stem.out_channels),
        repeats=1.0,
        out_hw=out_hw,
        stride=stem.stride,
        relu_in=False,
        pooled_elements=float(stem.out_channels * out_hw[0] * out_hw[1]),
    )


def _kinds(moves: Ints, places: Ints) -> Iterator[tuple[int, int]]:
    """Yield the pairs of move and place that occur."""
    for kind in np.unique(moves * len(SCALES) + places).tolist():
        yield divmod(kind, len(SCALES))


def _add(
    rows: LayerRows,
    convs: tuple[Conv, ...],
    block: int,
    place: int,
    here: Mask,
    image_hw: tuple[int, int],
    *,
    shared: bool = False,
) -> None:
    """Append the convolutions of a part, if any architecture has it."""
    if not here.any():
        return
    repeats = here.astype(np.float64)
    for conv in convs:
        fields: dict[str, Any] = {"kernel": float(conv.kernel), "repeats": repeats, "skip": float(conv.skip) * repeats}
        rows.add(
            **fields,
            block=block,
            level=place + START.bit_length() - 1,
            in_channels=float(conv.in_channels),
            out_channels=float(conv.out_channels),
            out_hw=map_hw(image_hw, SCALES[place] // (2 if conv.finer else 1)),
            role=conv.role,
            stride=conv.stride,
            relu_in=conv.relu_in,
            relu_out=conv.relu_out,
            bias=conv.plain,
            norm=not conv.plain,
            shared=shared,
        )
