"""Once-for-all residual networks: elastic depth and width of every stage, expansion of every block, and stem.

Reference: Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020, whose
released ResNet-50 (a ResNet-50-D) has this space; Oyama et al., "DetOFA", searches detectors in it; coupled depths and
widths after Sahni et al., "CompOFA", ICLR 2021.

Differs from the released code in:
- With two of its three widths the released stem has 24 channels in the middle, so that a third of all settings have a
  twin with the same network; settings are counted as the papers do.
- Costs are the backbone's; `classifier_cost` adds the fully connected layer.

Genes: `stem.depth`, 2 where the stem keeps its residual convolution; widths of the stem's `mid` and output, in percent;
for each stage C2 to C5 its `depth`, the number of blocks beyond the least; its `width` in percent; the `expand` of
every block, the channels in its middle in percent of those behind it, 0 where the block is not there; last, of spaces
with `resolutions`, the height of the images.

Shapes: N architectures; G genes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Population, Settings, Space
from nasray.spaces.budget import Budget
from nasray.spaces.chains import Chain
from nasray.spaces.groups import group_settings
from nasray.spaces.layers import LayerTable
from nasray.spaces.ofa_layers import (
    COSTS,
    DEPTHS,
    EXPANSIONS,
    SIZES,
    STEM_COLUMNS,
    STEM_DEPTHS,
    WIDTHS,
    Counted,
    Size,
    block_tables,
    chain_of,
    channels_of,
    check_size,
    ofa_layers,
    places_of,
    stage_columns,
)
from nasray.spaces.ranges import Depth, Width, check_image_hw
from nasray.spaces.resolutions import NAME, by_size, check_resolutions, resolution_gene, size_of
from nasray.spaces.tokens import ABSENT, Tokens
from nasray.spaces.windows import Surcharge, Surcharges, counts_within

Ints = NDArray[np.int64]
SizeName = Literal["resnet50", "laptop", "tiny"]
MUTATION_PROBABILITY = 0.1


class Chained(NamedTuple):
    """A chain of one cost, and the rows that its settings stand for.

    Attributes:
        chain: The chain.
        constant: What every network costs besides.
        settings: Settings of the stem and of each stage.
        heights: Values of the gene of the resolution; none in a space without.
    """

    chain: Chain
    constant: int
    settings: list[Population]
    heights: tuple[int, ...]

    def rows(self, places: Ints) -> Population:
        """Return (N, G) rows of (N, P) places of the chain's settings."""
        image, first = np.divmod(places[:, 0], len(self.settings[0]))
        parts = [part[place] for part, place in zip(self.settings, (first, *places.T[1:]), strict=True)]
        if self.heights:
            parts.append(np.asarray(self.heights)[image][:, None])
        return np.concatenate(parts, axis=1)


class OFAResNetSpace(Space):
    """Once-for-all ResNets: depth and width of four stages, expansion of each block, an elastic stem.

    Args:
        size: Channels and least blocks; `resnet50` is the released space.
        stem_width: Channels of the widest stem, instead of the size's.
        widths: Channels of the widest C2 to C5, instead of the size's.
        depths: Least blocks of C2 to C5, instead of the size's; up to two more are chosen.
        divisor: What all channels are multiples of, instead of the size's.
        coupled: Whether a stage's depth decides its width, as in CompOFA: the deeper, the wider.
        image_hw: Height and width in pixels of the input for which costs are counted.
        resolutions: Heights and widths of images, of which each architecture has one, such as [[160, 224], [224, 320]];
            the largest is `image_hw`. Costs are counted, paths trained and measured, and networks exported at their
            own. All have the size `image_hw` if left out.

    Raises:
        ValueError: for an option that is not allowed, and where different choices have the same channels.
    """

    family = "ofa-resnet"
    cost_scope = "backbone"
    image_hw: tuple[int, int]

    def __init__(
        self,
        size: SizeName = "resnet50",
        *,
        stem_width: Width | None = None,
        widths: tuple[Width, Width, Width, Width] | None = None,
        depths: tuple[Depth, Depth, Depth, Depth] | None = None,
        divisor: int | None = None,
        coupled: bool = False,
        image_hw: tuple[int, int] = (224, 224),
        resolutions: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"size is one of {', '.join(SIZES)}; got {size!r}")
        named = SIZES[size]
        self.size = Size(
            named.stem_width if stem_width is None else stem_width,
            named.widths if widths is None else tuple(widths),
            named.depths if depths is None else tuple(depths),
            named.divisor if divisor is None else divisor,
        )
        check_size(self.size)
        self.coupled = coupled
        self.image_hw = check_image_hw(image_hw)
        if resolutions:
            self.resolutions = check_resolutions(resolutions, self.image_hw)
        genes = [
            Gene("stem.depth", STEM_DEPTHS),
            Gene("stem.mid.width", WIDTHS),
            Gene("stem.width", WIDTHS),
        ]
        for level, least in enumerate(self.size.depths, start=2):
            genes += [Gene(f"c{level}.depth", DEPTHS), Gene(f"c{level}.width", WIDTHS)]
            for index in range(least + DEPTHS[-1]):
                name = f"c{level}.{index}.expand"
                genes.append(Gene(name, EXPANSIONS) if index < least else Gene(name, (0, *EXPANSIONS), absent=0))
        if self.resolutions:
            genes.append(resolution_gene(self.resolutions))
        self.genes = tuple(genes)

    @cached_property
    def stages(self) -> tuple[slice, ...]:
        """Columns of each stage: its depth, its width, and the expansions of its blocks."""
        return stage_columns(self.size)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Each gene of the stem by itself, every stage, and the resolution."""
        stem = [(column,) for column in range(STEM_COLUMNS)]
        last = [(self.num_genes - 1,)] if self.resolutions else []
        return (*stem, *(tuple(range(stage.start, stage.stop)) for stage in self.stages), *last)

    def repair(self, population: Population) -> Population:
        """Remove the expansions of absent blocks, and give present ones without any the least."""
        rows = population.copy()
        for stage, least in zip(self.stages, self.size.depths, strict=True):
            depth, expand = rows[:, stage.start], rows[:, stage.start + 2 : stage.stop]
            present = np.arange(expand.shape[1]) < least + depth[:, None]
            expand[:] = np.where(present, np.maximum(expand, EXPANSIONS[0]), 0)
            if self.coupled:
                rows[:, stage.start + 1] = np.asarray(WIDTHS)[depth]
        return rows

    @cached_property
    def _settings(self) -> list[Population]:
        """The settings of each stage."""
        found = [group_settings(self, range(stage.start, stage.stop)) for stage in self.stages]
        return [settings for settings in found if settings is not None]

    def sample(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) valid rows, uniform over all settings: each setting of a stage is as likely as any other."""
        rows = np.empty((num, self.num_genes), dtype=np.int64)
        for column in range(STEM_COLUMNS):
            rows[:, column] = self.genes[column].draw(num, rng)
        for stage, settings in zip(self.stages, self._settings, strict=True):
            rows[:, stage] = settings[rng.integers(len(settings), size=num)]
        if self.resolutions:
            rows[:, -1] = self.genes[-1].draw(num, rng)
        return rows

    def sample_near(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        allowed: Settings | None = None,
        added: Surcharges | None = None,
    ) -> Population | None:
        """See `Space.sample_near`; gmacs, or else params_m, are met by counting: a rare window is as quick as any."""
        name = next((name for name in COSTS if name in budget.names), None)
        if name is None or not set(allowed or {}) <= set(self.groups):
            return None
        chained = self._chain(name, allowed or {}, added or {})
        return chained.rows(chained.chain.draw(num, *counts_within(budget, chained.constant, name), rng))

    def count(self, budget: Budget, allowed: Settings | None = None, added: Surcharges | None = None) -> int | None:
        """See `Space.count`; of budgets on gmacs, or params_m, alone."""
        if budget.names not in ([name] for name in COSTS) or not set(allowed or {}) <= set(self.groups):
            return None
        (name,) = budget.names
        chained = self._chain(name, allowed or {}, added or {})
        return chained.chain.count(*counts_within(budget, chained.constant, name))

    def _chain(self, name: str, allowed: Settings, surcharges: Surcharges) -> Chained:
        """Return the chain of one cost, of the allowed settings."""
        stem, stages = self.groups[:STEM_COLUMNS], self.groups[STEM_COLUMNS : STEM_COLUMNS + len(self.stages)]
        values = [allowed.get(group, np.asarray(self.genes[group[0]].values)[:, None]).ravel() for group in stem]
        grid = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, STEM_COLUMNS)
        settings = [grid, *(allowed.get(group, own) for group, own in zip(stages, self._settings, strict=True))]
        left = allowed[self.groups[-1]] if self.resolutions and self.groups[-1] in allowed else None
        heights = self.genes[-1].values if left is None else left.ravel().tolist()
        sizes = [size for size in self.resolutions if size[0] in heights] or [self.image_hw]
        around = [surcharges.get((name, size), Surcharge()) for size in sizes]
        constant = min(each.constant for each in around)
        images = tuple(
            Counted(
                size,
                each.constant - constant,
                tuple(each.per_channel.get(4 << index, 0) for index in range(len(stages))),
            )
            for size, each in zip(sizes, around, strict=True)
        )
        chain = chain_of(self.size, name, tuple(part.tobytes() for part in settings), images)
        return Chained(chain, constant, settings, tuple(size[0] for size in sizes) if self.resolutions else ())

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) mutants: every gene is drawn anew with probability 0.1, and may be drawn as it was."""
        fresh = np.stack([gene.draw(len(population), rng) for gene in self.genes], axis=1)
        return self.repair(np.where(rng.random(population.shape) < MUTATION_PROBABILITY, fresh, population))

    def operations(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Return every block's expansions, with each depth of its stage that has the block, and with each width."""
        found = []
        for stage, least in zip(self.stages, self.size.depths, strict=True):
            depth, width, *blocks = (self.genes[column] for column in range(stage.start, stage.stop))
            for more in depth.values:
                for block in blocks[: least + more]:
                    found += [
                        ((depth.name, more), (width.name, wide), (block.name, expand))
                        for wide in width.values
                        for expand in EXPANSIONS
                    ]
        return tuple(found)

    @property
    def lasting_genes(self) -> tuple[int, ...]:
        """Columns of the stages' depths."""
        return tuple(stage.start for stage in self.stages)

    def network_options(self) -> dict[str, Any]:
        """See `Space.network_options`."""
        stem_width, widths, depths, divisor = self.size
        return {"stem_width": stem_width, "widths": list(widths), "depths": list(depths), "divisor": divisor}

    # ---- architectures ----------------------------------------------------------------------------------------------

    def to_architecture(self, row: Ints) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        row = np.asarray(row)
        keep, mid, width = (int(value) for value in row[:STEM_COLUMNS])
        stages = []
        for stage in self.stages:
            depth, stage_width, *expand = (int(value) for value in row[stage])
            stages.append({"depth": depth, "width": stage_width, "expand": [value for value in expand if value]})
        stem = {"depth": keep, "mid": mid, "width": width}
        image = size_of(self, row)
        spec = {**self.network_options(), "stem": stem, "stages": stages}
        return Architecture.create(self.family, spec | ({NAME: list(image)} if image is not None else {}))

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec, own = self._own_spec(architecture), self.network_options()
        if {name: spec.get(name) for name in own} != own:
            raise ValueError(f"not an architecture of this space, whose networks have {own}: {architecture.text}")
        if (spec.get(NAME) is not None) != bool(self.resolutions):
            has = f"has the resolution {spec[NAME]}" if spec.get(NAME) is not None else "has no resolution"
            raise ValueError(f"not an architecture of this space, whose resolutions are {self.resolutions}: it {has}")
        try:
            row = row_of(spec, self.size)
            if self.resolutions:
                row = np.append(row, spec[NAME][0])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        return self._same(self.checked_row(row), architecture)

    def tokens(self, population: Population) -> Tokens:
        """Return one token for each block position: its width and expansion, `ABSENT` where the block is not there.

        The stem has no token, as in DetOFA: freeze its genes where architectures shall differ by their tokens. The
        resolution, where there is one, is the last token, in a block of its own.
        """
        widths, expansions = places_of(WIDTHS), places_of((0, *EXPANSIONS))
        ids, block = [], []
        for number, stage in enumerate(self.stages):
            width = widths[population[:, stage.start + 1]][:, None]
            expand = expansions[population[:, stage.start + 2 : stage.stop]]
            ids.append(np.where(expand > 0, width * len(EXPANSIONS) + expand, ABSENT))
            block += [number] * expand.shape[1]
        vocabulary = 1 + len(WIDTHS) * len(EXPANSIONS)
        if self.resolutions:
            ids.append(vocabulary + np.searchsorted(self.genes[-1].values, population[:, -1:]))
            vocabulary += len(self.resolutions)
            block.append(len(self.stages))
        return Tokens(np.concatenate(ids, axis=1), vocabulary, np.arange(len(block)), np.array(block, dtype=np.int64))

    # ---- costs ------------------------------------------------------------------------------------------------------

    def cost(self, population: Population, image_hw: tuple[int, int] | None = None) -> Costs:
        """Return `gmacs`, `params_m`, `layers` of the backbone, each (N,), by one look-up per block.

        Args:
            population: (N, G) rows.
            image_hw: Height and width in pixels; each row's resolution, or the space's own size, by default.
        """
        macs, params, layers = self._sums(population, image_hw)
        return {"gmacs": macs / 1e9, "params_m": params / 1e6, "layers": layers}

    def classifier_cost(
        self, population: Population, image_hw: tuple[int, int] | None = None, *, num_classes: int = 1000
    ) -> Costs:
        """Return `cost` of the backbone with a fully connected layer behind its pooled last map.

        Args:
            population: (N, G) rows.
            image_hw: As of `cost`.
            num_classes: Outputs of the layer.
        """
        macs, params, layers = self._sums(population, image_hw)
        widths = np.asarray(channels_of(self.size).stages[-1])[
            places_of(WIDTHS)[population[:, self.stages[-1].start + 1]]
        ]
        return {
            "gmacs": (macs + widths * num_classes) / 1e9,
            "params_m": (params + (widths + 1) * num_classes) / 1e6,
            "layers": layers + 1,
        }

    def _sums(self, population: Population, image_hw: tuple[int, int] | None) -> NDArray[np.float64]:
        """Return (3, N) multiply-adds, parameters and layers."""
        if image_hw is not None or not self.resolutions:
            return block_tables(self.size, image_hw or self.image_hw).sums(population)
        sums = np.empty((3, len(population)))
        for size, chosen in by_size(self, population):
            sums[:, chosen] = block_tables(self.size, size).sums(population[chosen])
        return sums

    def map_channels(self, population: Population) -> dict[int, Ints]:
        """See `Space.map_channels`."""
        widths = [population[:, stage.start + 1] for stage in self.stages]
        channels = [np.asarray(choices, dtype=np.int64) for choices in channels_of(self.size).stages]
        return {4 << index: channels[index][places_of(WIDTHS)[width]] for index, width in enumerate(widths)}

    def layers(self, population: Population, image_hw: tuple[int, int] | None = None) -> LayerTable:
        """Return the layers of the whole population, at sizes as of `cost`."""
        if image_hw is not None or not self.resolutions:
            return ofa_layers(self.size, population, image_hw or self.image_hw)
        heights, widths = (np.array(sides) for sides in zip(*self.resolutions, strict=True))
        place = np.searchsorted(heights, population[:, -1])
        return ofa_layers(self.size, population, (heights[place], widths[place]))


def row_of(spec: dict[str, Any], size: Size) -> Ints:
    """Return the (G,) row of a checked spec, whether or not all depths and widths go together in a space."""
    stem = spec["stem"]
    row = [stem["depth"], stem["mid"], stem["width"]]
    for stage, least in zip(spec["stages"], size.depths, strict=True):
        absent = least + DEPTHS[-1] - len(stage["expand"])
        row += [stage["depth"], stage["width"], *stage["expand"], *[0] * absent]
    return np.array(row, dtype=np.int64)
