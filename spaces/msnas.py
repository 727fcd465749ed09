"""Encoders whose blocks choose their strides, and heads that choose what they read: the space of MSNAS.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021.

Differs from the paper in, or reads it as:
- The blocks: basic ones of 180 and 160 channels for R18 and R34, bottlenecks of 144 within and 576 channels for R50;
  see `msnas_layers`. With them the networks of Tables 7 to 9 have the multiply-adds that Table 1 states, to 2 %.
- Every block is counted, also those that no head needs: the printed networks meet their windows only so.
  `counted: live` leaves such dead blocks out, `dead_blocks: false` has none.
- Predefined FPN-style utilization (Table 2): the five heads read 4, 8, 16, 32 and 64, cut to the strides that the path
  has; paths of a single scale are left out, as Equation 7 does.
- How strides and heads are mutated and crossed is not said; see `MSNASSpace.mutate` and `crossover`: strides, heads, or
  both change.

Genes: of every block its `stride`, 0, 1, 2 for 0.5, 1 and 2; of the five groups of objects, the smallest first, the
absolute stride of the map that their `head` reads.

Shapes: N architectures; B blocks; G = B + 5 genes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Mask, Population, Settings, Space
from nasray.spaces.budget import Budget
from nasray.spaces.errors import NasrayError, did_you_mean
from nasray.spaces.layers import LayerTable
from nasray.spaces.msnas_counting import (
    NUM_SCALES,
    STAY,
    UTILIZATIONS,
    Heads,
    Utilization,
    chain_of,
    draw_pairs,
    heads_of,
    num_pairs,
    walk,
)
from nasray.spaces.msnas_layers import (
    DOWN,
    MAX_BLOCKS,
    VARIANTS,
    BlockKind,
    Size,
    check_size,
    cost_sums,
    msnas_layers,
)
from nasray.spaces.msnas_paths import NUM_GROUPS, SCALES, STRIDES, absolute_strides, dead, places_of
from nasray.spaces.ranges import Range, Width, check_image_hw
from nasray.spaces.tokens import Tokens
from nasray.spaces.windows import Surcharges, counts_within

Ints = NDArray[np.int64]
Variant = Literal["r18", "r34", "r50", "laptop", "tiny"]
Counted = Literal["all", "live"]
COUNTED: tuple[Counted, ...] = ("all", "live")
REDRAWN = 0.25
"""Share of the blocks of which a mutant's strides are drawn anew. Of fewer, the 1 % window of R18 (4,700 paths) has so
few around a population that the share of mutants falls below what was asked for."""
SPEC_STRIDES = (0.5, 1, 2)
"""Strides as specs have them: those of `STRIDES`, whole ones as whole numbers."""


class MSNASSpace(Space):
    """Encoders of blocks of stride 0.5, 1 or 2, and what five detection heads read of them: the space of MSNAS.

    Args:
        variant: Blocks and channels as in one of the paper's spaces, or of small ones.
        block: Kind of the blocks, instead of the variant's.
        blocks: Number of blocks, instead of the variant's.
        stem_width: Channels of the stem, instead of the variant's.
        width: Channels of the blocks' maps, instead of the variant's.
        mid: Channels within a bottleneck, instead of the variant's.
        utilization: What heads may read: "constrained" by Equation 7, strides in ascending order ("monotone"), any that
            the path has ("free"), or "fpn": 4, 8, 16, 32, 64, cut to what the path has.
        dead_blocks: Whether paths may go on behind the last map that a head reads.
        counted: Whether costs, and so budgets, are of all blocks or of the live ones alone, which a head needs.
        image_hw: Height and width in pixels of the input for which costs are counted; padded to multiples of 64.

    Attributes:
        size: Blocks and channels.

    Raises:
        NasrayError: for an option that is not allowed.
    """

    family = "msnas"
    cost_scope = "encoder and RPN"
    image_hw: tuple[int, int]

    def __init__(
        self,
        variant: Variant = "r18",
        *,
        block: BlockKind | None = None,
        blocks: Annotated[int, Range(1, MAX_BLOCKS)] | None = None,
        stem_width: Width | None = None,
        width: Width | None = None,
        mid: Width | None = None,
        utilization: Utilization = "constrained",
        dead_blocks: bool = True,
        counted: Counted = "all",
        image_hw: tuple[int, int] = (832, 1280),
    ) -> None:
        _check_word("variant", variant, tuple(VARIANTS))
        _check_word("utilization", utilization, UTILIZATIONS)
        _check_word("counted", counted, COUNTED)
        named = VARIANTS[variant]
        kind = named.block if block is None else block
        self.size = Size(
            kind,
            named.blocks if blocks is None else blocks,
            named.stem_width if stem_width is None else stem_width,
            named.width if width is None else width,
            named.mid if mid is None and kind == named.block else mid,
        )
        check_size(self.size)
        self.utilization, self.dead_blocks, self.counted = utilization, bool(dead_blocks), counted
        if not num_pairs(self.size.blocks, self._heads):
            raise NasrayError(
                f"utilization {utilization!r} needs maps of two strides, and a path of {self.size.blocks} block has "
                "one. Set blocks to 2 or more"
            )
        self.image_hw = check_image_hw(image_hw)
        moves = tuple(range(len(STRIDES)))
        self.genes = (
            *(Gene(f"b{index}.stride", moves) for index in range(self.size.blocks)),
            *(Gene(f"s{group}.head", SCALES) for group in range(NUM_GROUPS)),
        )

    @property
    def _heads(self) -> Heads:
        return heads_of(self.utilization, self.dead_blocks)

    def network_options(self) -> dict[str, Any]:
        """See `Space.network_options`."""
        return {name: value for name, value in self.size._asdict().items() if value is not None}

    # ---- what is valid ----------------------------------------------------------------------------------------------

    def repair(self, population: Population) -> Population:
        """Map rows to valid ones: blocks whose map would leave the scales get the stride 1, heads what is nearest."""
        moves, state = walk(population[:, : self.size.blocks])
        stuck = self._heads.count[state] == 0  # paths of a single scale
        if stuck.any():
            moves[stuck, -1] = DOWN
            moves, state = walk(moves)
        heads = self._heads.nearest(state, places_of(population[:, self.size.blocks :]))
        return self._rows(moves, heads)

    @staticmethod
    def _rows(moves: Ints, heads: Ints) -> Population:
        return np.concatenate([moves, np.asarray(SCALES, dtype=np.int64)[heads]], axis=1)

    @property
    def num_architectures(self) -> int:
        """The exact number of pairs of a path and of heads."""
        return num_pairs(self.size.blocks, self._heads)

    def sample(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) valid rows, exactly uniform over all pairs of a path and of heads."""
        return self._rows(*draw_pairs(num, self.size.blocks, self._heads, rng))

    def sample_near(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        allowed: Settings | None = None,
        added: Surcharges | None = None,
    ) -> Population | None:
        """See `Space.sample_near`; gmacs of all blocks are met by counting, so that a rare window is no slower."""
        if "gmacs" not in budget.names or allowed or added or not self._is_counted:
            return None
        chain = chain_of(self.size, self.image_hw, self.utilization, self.dead_blocks)
        settings = chain.draw(num, *counts_within(budget), rng)
        return self._rows(settings[:, :-1], self._heads.settings[settings[:, -1]])

    def count(self, budget: Budget, allowed: Settings | None = None, added: Surcharges | None = None) -> int | None:
        """See `Space.count`; of budgets on gmacs of all blocks alone."""
        if budget.names != ["gmacs"] or allowed or added or not self._is_counted:
            return None
        chain = chain_of(self.size, self.image_hw, self.utilization, self.dead_blocks)
        return chain.count(*counts_within(budget))

    @property
    def _is_counted(self) -> bool:
        """Return whether costs are sums over the parts of the chain."""
        return self.counted == "all" or not self.dead_blocks

    # ---- children ---------------------------------------------------------------------------------------------------

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) mutants: strides, one head, or both are drawn anew.

        Of strides either those of a quarter of the blocks, or the order of those of a stretch of blocks: this moves
        changes of scale to other places, and leaves the costs of what follows as they are.
        """
        num, blocks = len(population), self.size.blocks
        moves, mutants = population[:, :blocks], population.copy()
        fresh = np.where(rng.random(moves.shape) < REDRAWN, rng.integers(len(STRIDES), size=moves.shape), moves)
        moved = np.take_along_axis(moves, _stretch_orders(num, blocks, rng), axis=1)
        mutants[:, :blocks] = np.where(rng.random((num, 1)) < 0.5, fresh, moved)
        mutants[np.arange(num), blocks + rng.integers(NUM_GROUPS, size=num)] = rng.choice(SCALES, size=num)
        return self.repair(np.where(self._changing(num, rng), mutants, population))

    def crossover(self, first: Population, second: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) children: strides, heads, or both come from either parent, others from the first."""
        mixed = np.where(rng.random(first.shape) < 0.5, first, second)
        return self.repair(np.where(self._changing(len(first), rng), mixed, first))

    def _changing(self, num: int, rng: np.random.Generator) -> Mask:
        """Return (N, G) which genes of children may change: strides, heads, or all; strides where heads follow them."""
        drawn = rng.integers(1 if self.utilization == "fpn" else 3, size=(num, 1))
        is_head = np.arange(self.num_genes) >= self.size.blocks
        mask: Mask = np.where(is_head, drawn > 0, drawn != 1)
        return mask

    # ---- architectures ----------------------------------------------------------------------------------------------

    def to_architecture(self, row: Ints) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        spec = {name: value for name, value in self.network_options().items() if name != "blocks"}
        strides = [SPEC_STRIDES[move] for move in row[: self.size.blocks]]
        heads = [int(scale) for scale in row[self.size.blocks :]]
        return Architecture.create(self.family, {**spec, "strides": strides, "heads": heads})

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec = self._own_spec(architecture)
        try:
            moves = [SPEC_STRIDES.index(stride) for stride in spec["strides"]]
            row = np.array([*moves, *spec["heads"]], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        if len(row) != self.num_genes:
            raise ValueError(f"not an architecture of this space: {len(row)} genes instead of {self.num_genes}")
        return self._same(self.checked_row(row), architecture)

    def tokens(self, population: Population) -> Tokens:
        """Return a token for each block, its stride and the scale of its map, and one for what each head reads."""
        moves, places, heads = self.parts(population)
        strided = 1 + moves * NUM_SCALES + places
        ids = np.concatenate([strided, 1 + len(STRIDES) * NUM_SCALES + heads], axis=1)
        block = (np.arange(ids.shape[1]) >= self.size.blocks).astype(np.int64)
        return Tokens(ids, 1 + (len(STRIDES) + 1) * NUM_SCALES, np.arange(ids.shape[1]), block)

    def parts(self, population: Population) -> tuple[Ints, Ints, Ints]:
        """Return (N, B) moves, (N, B) places of the blocks' scales, and (N, 5) places of what heads read."""
        moves, heads = population[:, : self.size.blocks], population[:, self.size.blocks :]
        return moves, np.cumsum(moves - STAY, axis=1), places_of(heads)

    # ---- costs ------------------------------------------------------------------------------------------------------

    def alive(self, population: Population) -> Mask:
        """Return (N, B) which blocks a head needs."""
        strides = np.asarray(STRIDES)[population[:, : self.size.blocks]]
        return ~dead(strides, population[:, self.size.blocks :])

    def scales(self, population: Population) -> Ints:
        """Return (N, B) absolute strides of the blocks' maps."""
        return absolute_strides(np.asarray(STRIDES)[population[:, : self.size.blocks]])

    def cost(
        self, population: Population, image_hw: tuple[int, int] | None = None, counted: Counted | None = None
    ) -> Costs:
        """Return `gmacs`, `params_m`, `layers` of encoder and RPN at `image_hw`, each (N,).

        Layers are those of stem and blocks.

        Args:
            population: (N, G) rows.
            image_hw: Height and width in pixels; the space's own by default.
            counted: Whether all blocks are counted, or the live ones; as the space does by default.
        """
        macs, params, layers = cost_sums(
            self.size, *self.parts(population), self._counted(population, counted), image_hw or self.image_hw
        )
        return {"gmacs": macs / 1e9, "params_m": params / 1e6, "layers": layers.astype(np.float64)}

    def layers(
        self, population: Population, image_hw: tuple[int, int] | None = None, counted: Counted | None = None
    ) -> LayerTable:
        """Return the layers of the whole population, as many as `cost` counts."""
        alive = self._counted(population, counted)
        return msnas_layers(self.size, *self.parts(population), alive, image_hw or self.image_hw)

    def _counted(self, population: Population, counted: Counted | None) -> Mask:
        if (counted or self.counted) == "live":
            return self.alive(population)
        return np.ones((len(population), self.size.blocks), dtype=bool)


def _stretch_orders(num: int, blocks: int, rng: np.random.Generator) -> Ints:
    """Return (num, B) orders of blocks: of a stretch between two blocks a random one, of the others as they are."""
    ends = np.sort(rng.integers(blocks, size=(num, 2)), axis=1)
    places = np.arange(blocks)
    inside = (places >= ends[:, :1]) & (places <= ends[:, 1:])
    keys = np.where(inside, ends[:, :1] + rng.random((num, blocks)) * (ends[:, 1:] - ends[:, :1]), places)
    orders: Ints = keys.argsort(axis=1, kind="stable")
    return orders


def _check_word(name: str, value: Any, words: tuple[str, ...]) -> None:
    if value not in words:
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        raise NasrayError(f"{name} is one of {', '.join(words)}; got {value!r}{hint}")
