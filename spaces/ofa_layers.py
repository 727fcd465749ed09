"""Channels, layers and costs of once-for-all residual networks; see `nasray.spaces.ofa_resnet` for genes and sources.

Shapes: N architectures; G genes; B block positions, those of absent blocks included.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Population
from nasray.spaces.chains import Chain, Part
from nasray.spaces.errors import NasrayError
from nasray.spaces.layers import Floats, LayerRows, LayerTable, halved
from nasray.spaces.ranges import MAX_BLOCKS, MAX_WIDTH, check_four_stages, check_whole

Ints = NDArray[np.int64]

WIDTHS = (65, 80, 100)
"""Widths of stem and stages in percent of the widest."""
EXPANSIONS = (20, 25, 35)
"""Channels in the middle of a block in percent of its outputs."""
DEPTHS = (0, 1, 2)
"""Blocks of a stage beyond its least number."""
STEM_DEPTHS = (0, 2)
"""Values of the stem's depth; 2, the deepest, keeps the residual convolution."""
STEM_COLUMNS = 3
CHUNK = 4096
"""Rows whose costs are looked up at a time, few enough to stay in a processor's cache."""


class Size(NamedTuple):
    """Channels of the widest network, least number of blocks of C2 to C5, and of what channels are multiples."""

    stem_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    divisor: int


SIZES: dict[str, Size] = {
    "resnet50": Size(64, (256, 512, 1024, 2048), (2, 2, 4, 2), 8),
    "laptop": Size(32, (64, 128, 256, 384), (1, 1, 2, 1), 2),
    "tiny": Size(16, (64, 80, 96, 128), (1, 1, 1, 1), 2),
}
"""The released space, and narrow ones of the same kind for processors."""


def divisible(value: float, divisor: int) -> int:
    """Return the multiple of a divisor that is nearest to a number of channels, and not below 90 % of it."""
    channels = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return channels + divisor if channels < 0.9 * value else channels


class Channels(NamedTuple):
    """Channels of every choice, by the places of widths and expansions among their values."""

    stem_mid: tuple[int, ...]
    stem: tuple[int, ...]
    stages: tuple[tuple[int, ...], ...]
    mids: tuple[tuple[tuple[int, ...], ...], ...]


@lru_cache(maxsize=64)
def channels_of(size: Size) -> Channels:
    """Return the channels of every choice of a size: mids by stage, width and expansion."""

    def scaled(width: float) -> tuple[int, ...]:
        return tuple(divisible(width * percent / 100, size.divisor) for percent in WIDTHS)

    stages = tuple(scaled(width) for width in size.widths)
    mids = tuple(
        tuple(tuple(divisible(round(out * percent / 100), size.divisor) for percent in EXPANSIONS) for out in outs)
        for outs in stages
    )
    return Channels(scaled(size.stem_width // 2), scaled(size.stem_width), stages, mids)


def check_size(size: Size) -> None:
    """Refuse sizes of which no space can be made, or in which different choices have the same channels.

    The stem's middle is exempt, whose two narrower choices coincide in the released space too.

    Raises:
        NasrayError: naming the value.
    """
    check_four_stages(size.widths, size.depths)
    for width in (size.stem_width, *size.widths):
        check_whole("channels", width, 2, MAX_WIDTH)
    for depth in size.depths:
        check_whole("blocks of a stage", depth, 1, MAX_BLOCKS - DEPTHS[-1])
    check_whole("divisor", size.divisor, 1, MAX_WIDTH)
    channels = channels_of(size)
    choices = {f"stage C{level}": widths for level, widths in enumerate(channels.stages, start=2)}
    choices["the stem"] = channels.stem
    for level, by_width in enumerate(channels.mids, start=2):
        choices |= {
            f"the middle of blocks of C{level}, {out} wide": mids
            for out, mids in zip(channels.stages[level - 2], by_width, strict=True)
        }
    for place, values in choices.items():
        if len(set(values)) < len(values):
            raise NasrayError(
                f"different choices of {place} have the same channels, {', '.join(map(str, values))}. Take wider "
                f"stages or a smaller divisor than {size.divisor}"
            )


def stage_columns(size: Size) -> tuple[slice, ...]:
    """Return the columns of each stage in a row."""
    ends = np.cumsum([STEM_COLUMNS, *(2 + least + DEPTHS[-1] for least in size.depths)]).tolist()
    return tuple(slice(begin, end) for begin, end in itertools.pairwise(ends))


@lru_cache(maxsize=8)
def places_of(values: tuple[int, ...]) -> Ints:
    """Return the place of each value among `values`, by the value; 0 for others."""
    table = np.zeros(max(values) + 1, dtype=np.int64)
    table[list(values)] = range(len(values))
    table.flags.writeable = False
    return table


class BlockTables(NamedTuple):
    """Costs of the stem and of every block by their channels, end to end; absent blocks cost nothing.

    Attributes:
        size: Size of the space.
        costs: (3, K) multiply-adds, parameters, and layers.
        starts: (1 + B,) where the stem's and each block's costs begin.
    """

    size: Size
    costs: Floats
    starts: Ints

    def sums(self, population: Population) -> Floats:
        """Return (3, N) sums over the stem and all blocks; whole numbers, and so exact in any order."""
        sums = np.empty((len(self.costs), len(population)))
        for begin in range(0, len(population), CHUNK):
            chunk = slice(begin, begin + CHUNK)
            codes = block_codes(self.size, population[chunk]) + self.starts
            for total, costs in zip(sums, self.costs, strict=True):
                np.take(costs, codes).sum(axis=1, out=total[chunk])
        return sums


NUM_WIDTHS, NUM_EXPANSIONS = len(WIDTHS), len(EXPANSIONS) + 1
STEM_CODES = len(STEM_DEPTHS) * NUM_WIDTHS * NUM_WIDTHS
BLOCK_CODES = NUM_WIDTHS * NUM_WIDTHS * NUM_EXPANSIONS


def block_codes(size: Size, population: Population) -> Ints:
    """Return (N, 1 + B) what the stem and each block cost depends on, coded: channels in and out, and expansion."""
    widths, expansions = places_of(WIDTHS), places_of((0, *EXPANSIONS))
    stages = stage_columns(size)
    codes = np.empty((len(population), 1 + sum(stage.stop - stage.start - 2 for stage in stages)), dtype=np.int64)
    before = widths[population[:, 2]]
    codes[:, 0] = (population[:, 0] // 2 * NUM_WIDTHS + widths[population[:, 1]]) * NUM_WIDTHS + before
    column = 1
    for stage in stages:
        width = widths[population[:, stage.start + 1]]
        expand = expansions[population[:, stage.start + 2 : stage.stop]]
        end = column + expand.shape[1]
        codes[:, column:end] = (width * NUM_WIDTHS + width)[:, None] * NUM_EXPANSIONS + expand
        codes[:, column] = (before * NUM_WIDTHS + width) * NUM_EXPANSIONS + expand[:, 0]
        before, column = width, end
    return codes


class Counted(NamedTuple):
    """Images that a chain counts for, and what it counts beside its parts.

    Attributes:
        image_hw: Height and width in pixels.
        constant: What every network costs besides.
        per_channel: What each channel of the maps of C2 to C5 costs besides.
    """

    image_hw: tuple[int, int]
    constant: int = 0
    per_channel: tuple[int, ...] = (0, 0, 0, 0)


COSTS = ("gmacs", "params_m")
"""Costs that are counted by chains, as the first rows of the tables of blocks have them."""


@lru_cache(maxsize=16)
def chain_of(size: Size, cost: str, settings: tuple[bytes, ...], images: tuple[Counted, ...]) -> Chain:
    """Return the chain of the stem's settings and of each stage's.

    Of several sizes of images, setting k of the first part is setting k modulo K of the stem, for images number k // K.

    Args:
        size: Size of the space.
        cost: One of `COSTS`.
        settings: Settings of the stem and of each stage, as the bytes of (K, C) rows.
        images: Sizes of images among which the first part chooses.
    """
    stages, channels = stage_columns(size), channels_of(size)
    tables = [block_tables(size, each.image_hw) for each in images]
    columns = (slice(0, STEM_COLUMNS), *stages)
    ends = np.cumsum([0, 1, *(stage.stop - stage.start - 2 for stage in stages)]).tolist()
    parts = []
    for number, (own, content) in enumerate(zip(columns, settings, strict=True)):
        listed = np.frombuffer(content, dtype=np.int64).reshape(-1, own.stop - own.start)
        states = range(NUM_WIDTHS if number else 1)
        rows = np.zeros((len(states), len(listed), stages[-1].stop), dtype=np.int64)
        rows[:, :, own] = listed
        if number:  # the width before: the stem's, or that of the stage before
            rows[:, :, 2 if number == 1 else columns[number - 1].start + 1] = np.asarray(WIDTHS)[:, None]
        codes = block_codes(size, rows.reshape(-1, rows.shape[2])) + tables[0].starts  # the same of every size
        codes = codes[:, ends[number] : ends[number + 1]]
        width = np.tile(places_of(WIDTHS)[listed[:, 2 if number == 0 else 1]], len(states))
        before, setting = np.repeat(states, len(listed)), np.tile(np.arange(len(listed)), len(states))
        pieces = []
        for place, (table, counted) in enumerate(zip(tables, images, strict=True)):
            beside: Ints | int = counted.constant
            if number:
                beside = np.asarray(channels.stages[number - 1])[width] * counted.per_channel[number - 1]
            macs = table.costs[COSTS.index(cost)][codes].sum(axis=1).astype(np.int64)
            moved = place * NUM_WIDTHS  # a state is a width, and the size of the images
            first = (before, setting + place * len(listed)) if number == 0 else (before + moved, setting)
            pieces.append((first[0], width + moved, first[1], macs + beside))
        parts.append(Part(*(np.concatenate(column) for column in zip(*pieces, strict=True))))
    return Chain(parts)


@lru_cache(maxsize=64)
def block_tables(size: Size, image_hw: tuple[int, int]) -> BlockTables:
    """Return the costs of blocks, read off the layers of networks that have every setting of every block."""
    stages, num = stage_columns(size), max(STEM_CODES, BLOCK_CODES)
    number = np.arange(num)
    expand, width = number % NUM_EXPANSIONS, number // NUM_EXPANSIONS % NUM_WIDTHS
    before = number // (NUM_EXPANSIONS * NUM_WIDTHS) % NUM_WIDTHS
    rows = np.zeros((num, stages[-1].stop), dtype=np.int64)
    rows[:, 0] = number // NUM_WIDTHS**2 % len(STEM_DEPTHS) * 2
    rows[:, 1], rows[:, 2] = (np.asarray(WIDTHS)[number // step % NUM_WIDTHS] for step in (NUM_WIDTHS, 1))
    stem = _costs_by_block(size, rows, image_hw)[:, 0]
    # For the blocks of a stage, all that comes before it is as wide as their code says of their input.
    found = [stem[:, :STEM_CODES]]
    for index, stage in enumerate(stages):
        rows[:, 2] = np.asarray(WIDTHS)[before]
        for other, columns in enumerate(stages):
            rows[:, columns.start] = DEPTHS[-1]
            rows[:, columns.start + 1] = np.asarray(WIDTHS)[width if other == index else before]
            rows[:, columns.start + 2 : columns.stop] = np.asarray((0, *EXPANSIONS))[expand][:, None]
        blocks = _costs_by_block(size, rows, image_hw)
        first = 1 + sum(each.stop - each.start - 2 for each in stages[:index])
        found += [blocks[:, first + place, :BLOCK_CODES] for place in range(stage.stop - stage.start - 2)]
    starts = np.cumsum([0, *(costs.shape[1] for costs in found[:-1])])
    costs = np.concatenate(found, axis=1)
    costs.flags.writeable = False
    return BlockTables(size, costs, starts)


def _costs_by_block(size: Size, rows: Population, image_hw: tuple[int, int]) -> Floats:
    """Return (3, 1 + B, N) multiply-adds, parameters and layers of the stem and every block."""
    layers = ofa_layers(size, rows, image_hw)
    num_blocks = 1 + sum(least + DEPTHS[-1] for least in size.depths)
    costs = np.zeros((3, num_blocks, len(rows)))
    main = (layers.role == "main")[:, None]
    for table, values in zip(costs, (layers.macs, layers.params, layers.repeats * main), strict=True):
        np.add.at(table, layers.block, values)
    return costs


def ofa_layers(size: Size, population: Population, image_hw: tuple[Any, Any]) -> LayerTable:
    """Return the layer table of (N, G) rows; block positions are the blocks, the stem's is 0.

    Args:
        size: Size of the space.
        population: (N, G) rows.
        image_hw: Height and width of the input in pixels; (N,) heights and (N,) widths where rows differ.
    """
    channels, places, expansions = channels_of(size), places_of(WIDTHS), places_of((0, *EXPANSIONS))
    mid = np.asarray(channels.stem_mid, dtype=np.float64)[places[population[:, 1]]]
    width = np.asarray(channels.stem, dtype=np.float64)[places[population[:, 2]]]
    rows, hw = LayerRows(), halved(image_hw)
    stem: dict[str, Any] = {"block": 0, "level": 1, "kernel": 3.0, "out_hw": hw}
    kept = (population[:, 0] > 0).astype(np.float64)
    rows.add(**stem, in_channels=3.0, out_channels=mid, repeats=1.0, stride=2, relu_in=False)
    rows.add(**stem, in_channels=mid, out_channels=mid, repeats=kept, skip=1.0)
    rows.add(**stem, in_channels=mid, out_channels=width, repeats=1.0, pooled_elements=width * (hw[0] * hw[1]))
    hw, block = halved(hw), 0
    for index, (stage, outs, mids) in enumerate(zip(stage_columns(size), channels.stages, channels.mids, strict=True)):
        place = places[population[:, stage.start + 1]]
        out = np.asarray(outs, dtype=np.float64)[place]
        expand = expansions[population[:, stage.start + 2 : stage.stop]]
        table = np.concatenate([np.zeros((NUM_WIDTHS, 1)), np.asarray(mids, dtype=np.float64)], axis=1)
        for number in range(expand.shape[1]):
            stride = 2 if number == 0 and index > 0 else 1
            in_hw, hw, block = hw, halved(hw) if stride == 2 else hw, block + 1
            present, inner = (expand[:, number] > 0).astype(np.float64), table[place, expand[:, number]]
            common: dict[str, Any] = {"block": block, "level": index + 2, "repeats": present}
            if number == 0:
                pooled = width * (in_hw[0] * in_hw[1]) if stride == 2 else 0.0
                rows.add(
                    **common,
                    role="shortcut",
                    kernel=1.0,
                    in_channels=width,
                    out_channels=out,
                    out_hw=hw,
                    pooled_elements=pooled,
                )
            rows.add(**common, kernel=1.0, in_channels=width, out_channels=inner, out_hw=in_hw)
            rows.add(**common, kernel=3.0, in_channels=inner, out_channels=inner, out_hw=hw, stride=stride)
            skip = 1.0 if number > 0 else 0.0
            rows.add(**common, kernel=1.0, in_channels=inner, out_channels=out, out_hw=hw, skip=skip)
            width = out
    return rows.table(len(population))
