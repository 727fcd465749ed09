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
every block, the channels in its middle in percent of those behind it, 0 where the block is not there.

Shapes: N architectures; G genes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Population, Settings, Space
from nasray.spaces.budget import Budget
from nasray.spaces.chains import Chain
from nasray.spaces.groups import group_settings
from nasray.spaces.layers import LayerTable
from nasray.spaces.ofa_layers import (
    DEPTHS,
    EXPANSIONS,
    SIZES,
    STEM_COLUMNS,
    STEM_DEPTHS,
    WIDTHS,
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
from nasray.spaces.tokens import ABSENT, Tokens
from nasray.spaces.windows import Surcharge, macs_within

Ints = NDArray[np.int64]
SizeName = Literal["resnet50", "laptop", "tiny"]
MUTATION_PROBABILITY = 0.1


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
        self.genes = tuple(genes)

    @cached_property
    def stages(self) -> tuple[slice, ...]:
        """Columns of each stage: its depth, its width, and the expansions of its blocks."""
        return stage_columns(self.size)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Each gene of the stem by itself, and every stage."""
        stem = [(column,) for column in range(STEM_COLUMNS)]
        return (*stem, *(tuple(range(stage.start, stage.stop)) for stage in self.stages))

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
        return rows

    def sample_near(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        allowed: Settings | None = None,
        surcharge: Surcharge | None = None,
    ) -> Population | None:
        """See `Space.sample_near`; gmacs are met by counting, so that a rare window is as quick as any."""
        if "gmacs" not in budget.names or not set(allowed or {}) <= set(self.groups):
            return None
        settings, chain = self._chain(allowed or {}, surcharge or Surcharge())
        places = chain.draw(num, *macs_within(budget, surcharge), rng)
        return np.concatenate([part[place] for part, place in zip(settings, places.T, strict=True)], axis=1)

    def count(self, budget: Budget, allowed: Settings | None = None, surcharge: Surcharge | None = None) -> int | None:
        """See `Space.count`; of budgets on gmacs alone."""
        if budget.names != ["gmacs"] or not set(allowed or {}) <= set(self.groups):
            return None
        _, chain = self._chain(allowed or {}, surcharge or Surcharge())
        return chain.count(*macs_within(budget, surcharge))

    def _chain(self, allowed: Settings, surcharge: Surcharge) -> tuple[list[Population], Chain]:
        """Return the settings of the stem and of each stage, and their chain."""
        stem, *stages = self.groups[:STEM_COLUMNS], *self.groups[STEM_COLUMNS:]
        values = [allowed.get(group, np.asarray(self.genes[group[0]].values)[:, None]).ravel() for group in stem]
        grid = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, STEM_COLUMNS)
        settings = [grid, *(allowed.get(group, own) for group, own in zip(stages, self._settings, strict=True))]
        rest = tuple(surcharge.per_channel.get(4 << index, 0) for index in range(len(stages)))
        return settings, chain_of(self.size, self.image_hw, tuple(part.tobytes() for part in settings), rest)

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
        return Architecture.create(self.family, {**self.network_options(), "stem": stem, "stages": stages})

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec, own = self._own_spec(architecture), self.network_options()
        if {name: spec.get(name) for name in own} != own:
            raise ValueError(f"not an architecture of this space, whose networks have {own}: {architecture.text}")
        try:
            row = row_of(spec, self.size)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        return self._same(self.checked_row(row), architecture)

    def tokens(self, population: Population) -> Tokens:
        """Return one token for each block position: its width and expansion, `ABSENT` where the block is not there.

        The stem has no token, as in DetOFA: freeze its genes where architectures shall differ by their tokens.
        """
        widths, expansions = places_of(WIDTHS), places_of((0, *EXPANSIONS))
        ids, block = [], []
        for number, stage in enumerate(self.stages):
            width = widths[population[:, stage.start + 1]][:, None]
            expand = expansions[population[:, stage.start + 2 : stage.stop]]
            ids.append(np.where(expand > 0, width * len(EXPANSIONS) + expand, ABSENT))
            block += [number] * expand.shape[1]
        vocabulary = 1 + len(WIDTHS) * len(EXPANSIONS)
        return Tokens(np.concatenate(ids, axis=1), vocabulary, np.arange(len(block)), np.array(block, dtype=np.int64))

    # ---- costs ------------------------------------------------------------------------------------------------------

    def cost(self, population: Population, image_hw: tuple[int, int] | None = None) -> Costs:
        """Return `gmacs`, `params_m`, `layers` of the backbone at `image_hw`, each (N,), by one look-up per block."""
        tables = block_tables(self.size, image_hw or self.image_hw)
        macs, params, layers = tables.sums(population)
        return {"gmacs": macs / 1e9, "params_m": params / 1e6, "layers": layers}

    def classifier_cost(
        self, population: Population, image_hw: tuple[int, int] | None = None, *, num_classes: int = 1000
    ) -> Costs:
        """Return `cost` of the backbone with a fully connected layer behind its pooled last map.

        Args:
            population: (N, G) rows.
            image_hw: Height and width in pixels; the space's own by default.
            num_classes: Outputs of the layer.
        """
        macs, params, layers = block_tables(self.size, image_hw or self.image_hw).sums(population)
        widths = np.asarray(channels_of(self.size).stages[-1])[
            places_of(WIDTHS)[population[:, self.stages[-1].start + 1]]
        ]
        return {
            "gmacs": (macs + widths * num_classes) / 1e9,
            "params_m": (params + (widths + 1) * num_classes) / 1e6,
            "layers": layers + 1,
        }

    def map_channels(self, population: Population) -> dict[int, Ints]:
        """See `Space.map_channels`."""
        widths = [population[:, stage.start + 1] for stage in self.stages]
        channels = [np.asarray(choices, dtype=np.int64) for choices in channels_of(self.size).stages]
        return {4 << index: channels[index][places_of(WIDTHS)[width]] for index, width in enumerate(widths)}

    def layers(self, population: Population, image_hw: tuple[int, int] | None = None) -> LayerTable:
        """Return the layers of the whole population."""
        return ofa_layers(self.size, population, image_hw or self.image_hw)


def row_of(spec: dict[str, Any], size: Size) -> Ints:
    """Return the (G,) row of a checked spec, whether or not all depths and widths go together in a space."""
    stem = spec["stem"]
    row = [stem["depth"], stem["mid"], stem["width"]]
    for stage, least in zip(spec["stages"], size.depths, strict=True):
        absent = least + DEPTHS[-1] - len(stage["expand"])
        row += [stage["depth"], stage["width"], *stage["expand"], *[0] * absent]
    return np.array(row, dtype=np.int64)
