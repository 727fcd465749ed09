"""Networks of stages: residual bottlenecks, residual basic blocks, inverted residuals. The spaces of MAE-DET.

Reference: Sun et al., "MAE-DET: Revisiting Maximum Entropy Principle in Zero-Shot NAS for Efficient Object
Detection", ICML 2022; mutation from Algorithm 2 and Appendix A, initial structure from Table 15.

Differs from the paper in:
- Depth counts blocks. A "ResBlock" of the paper's Tables 10-15 is two blocks, so their "# layers" is doubled here.
- "Blocks deeper than 10 will be divided into two blocks equally": applies to a part's depth in blocks, while its
  stage has a free part; otherwise the depth stays at 10. A part whose depth falls to zero vanishes if its stage has
  others, so that a division can be undone.
- The stem counts as a block that can be chosen for mutation; only its width mutates (Algorithm 2 does not say).
- The kind of block is fixed within a space (the paper's "block type" has one value in each of its experiments).

Genes: stem width, then for every part of every stage: kernel, width, mid, depth. A stage C2..C5 has one to three
parts; the first part's first block halves the resolution; an absent part is all zeros and stands last. `mid` is the
bottleneck's width, the expansion ratio of an inverted residual, and absent from basic blocks.

Shapes: N architectures, S parts in all, P genes of a part.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Mask, Population, Space
from nasray.spaces.errors import NasrayError
from nasray.spaces.layers import LayerTable
from nasray.spaces.ranges import (
    MAX_BLOCKS,
    MAX_KERNEL,
    Depth,
    Range,
    Width,
    check_image_hw,
    check_kernels,
    check_whole,
    shortened,
)
from nasray.spaces.staged_layers import stage_widths, staged_layers
from nasray.spaces.staged_mutation import DEPTH_STEPS, Ints, scaled, settle_depths, width_values

LEVELS = (2, 3, 4, 5)


class StagedSpace(Space):
    """Networks of a stem and four stages (C2 to C5).

    Args:
        image_hw: Height and width in pixels of the input for which costs are counted.
        kernels: Allowed kernel sizes.
        max_width: Largest output width of a part.
        max_stem_width: Largest width of the stem.
        max_depth: Largest depth of a part in blocks; deeper ones are divided.
        parts: Largest number of parts of the stages C2, C3, C4 and C5.

    Raises:
        NasrayError: for an option out of its range.
    """

    mid_kind: ClassVar[str | None]
    block: ClassVar[str]
    cost_scope = "backbone"
    image_hw: tuple[int, int]

    def __init__(
        self,
        *,
        image_hw: tuple[int, int] = (800, 1280),
        kernels: Sequence[Annotated[int, Range(1, MAX_KERNEL)]] = (3, 5),
        max_width: Width = 2048,
        max_stem_width: Width = 128,
        max_depth: Depth = 10,
        parts: tuple[Depth, Depth, Depth, Depth] = (1, 2, 2, 3),
    ) -> None:
        self.image_hw = check_image_hw(image_hw)
        self.kernels = check_kernels(kernels)
        self.max_depth = check_whole("max_depth", max_depth, 1, MAX_BLOCKS)
        if len(parts) != len(LEVELS):
            raise NasrayError(f"parts are of the four stages C2 to C5, got {shortened(parts)}")
        num_parts = sum(check_whole("parts of a stage", num, 1, MAX_BLOCKS) for num in parts)
        if num_parts * max_depth > MAX_BLOCKS:
            raise NasrayError(
                f"networks have at most {MAX_BLOCKS:,} blocks; {num_parts} parts of up to max_depth {max_depth} blocks "
                "could have more. Lower one of the two"
            )
        self.level_of_part = np.repeat(LEVELS, parts)
        first = np.r_[True, np.diff(self.level_of_part) > 0]
        self.is_first = first
        self.genes = (Gene("stem.width", width_values(max_stem_width), log=True),)
        for part, level in enumerate(self.level_of_part):
            place = f"c{level}.{part - int(np.flatnonzero(self.level_of_part == level)[0])}"
            kernel = Gene(f"{place}.kernel", self.kernels)
            width = Gene(f"{place}.width", width_values(max_width), log=True)
            depth = Gene(f"{place}.depth", tuple(range(1 if first[part] else 0, max_depth + 1)))
            self.genes += (kernel, width, *self.mid_genes(place), depth)

    def mid_genes(self, place: str) -> tuple[Gene, ...]:
        """Return the genes of a part that only this kind of block has."""
        del place
        return ()

    @cached_property
    def _genes_per_part(self) -> int:
        return (self.num_genes - 1) // len(self.level_of_part)

    def split(self, population: Population) -> tuple[Ints, Ints]:
        """Return (N,) stem widths and (N, S, P) parts: kernel, width, [mid,] depth. Views into the population."""
        return population[:, 0], population[:, 1:].reshape(
            len(population), len(self.level_of_part), self._genes_per_part
        )

    @staticmethod
    def join(stem: Ints, parts: Ints) -> Population:
        """Return the inverse of `split`."""
        return np.concatenate([stem[:, None], parts.reshape(len(parts), parts.shape[1] * parts.shape[2])], axis=1)

    # ---- the set of architectures -------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The stem, and each stage with all its parts."""
        level_of_column = np.r_[0, np.repeat(self.level_of_part, self._genes_per_part)]
        return tuple(tuple(np.flatnonzero(level_of_column == level).tolist()) for level in (0, *LEVELS))

    @property
    def num_architectures(self) -> int:
        """The exact number of architectures: a stage has 1 to P present parts, each with any of its settings."""
        total = len(self.genes[0].values)
        settings = math.prod(len(gene.values) for gene in self.genes[1 : 1 + self._genes_per_part])
        for level in LEVELS:
            total *= sum(settings**num for num in range(1, int((self.level_of_part == level).sum()) + 1))
        return total

    def repair(self, population: Population) -> Population:
        """Set absent parts to zeros and move them behind the present ones of their stage."""
        stem, parts = self.split(population)
        parts = parts * (parts[:, :, -1:] > 0)
        for level in LEVELS:
            where = np.flatnonzero(self.level_of_part == level)
            # A stable sort of so few rows: bubble the absent ones to the end.
            for end in range(len(where) - 1, 0, -1):
                for left, right in pairwise(where[: end + 1]):
                    swap = (parts[:, left, -1] == 0) & (parts[:, right, -1] > 0)
                    parts[swap, left], parts[swap, right] = parts[swap, right], parts[swap, left]
        return self.join(stem, parts)

    @cached_property
    def _allowed(self) -> list[NDArray[np.bool_]]:
        tables = super()._allowed
        optional = np.repeat(~self.is_first, self._genes_per_part)
        for table, can_be_absent in zip(tables[1:], optional, strict=True):
            table[0] |= can_be_absent
        return tables

    def is_valid(self, population: Population) -> Mask:
        """Return (N,) whether each row is an architecture of this space."""
        _, parts = self.split(population)
        # The tables let any zero of a part that can be absent through; a part is absent as a whole or not at all.
        present = parts > 0
        whole: Mask = (present == present[:, :, -1:]).reshape(len(parts), self.num_genes - 1).all(axis=1)
        return super().is_valid(population) & whole

    def sample(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) valid rows: widths log-uniform, further parts of a stage present with probability 1/10."""
        population = super().sample(num, rng)
        stem, parts = self.split(population)
        parts[(rng.random(parts.shape[:2]) >= 0.1) & ~self.is_first] = 0
        return self.repair(self.join(stem, parts))

    def suggest(self, trial: Any) -> Ints:
        """Return a valid row, define by run: an absent part's other genes are not suggested."""
        row = [self.genes[0].suggest(trial)]
        for part in range(len(self.level_of_part)):
            start = 1 + part * self._genes_per_part
            *others, depth_gene = self.genes[start : start + self._genes_per_part]
            depth = depth_gene.suggest(trial)
            row += [*(gene.suggest(trial) if depth else 0 for gene in others), depth]
        return self._repaired(row)

    # ---- variation ----------------------------------------------------------------------------------------------

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Give one block position, chosen uniformly, a new kernel, widths times a scale, and a new depth.

        Algorithm 2 with the ranges of Appendix A: kernel uniform over the allowed ones, widths times one of
        {1/1.5, 1/1.25, 1, 1.25, 1.5, 2}, depth plus one of {-2, -1, 1, 2}.
        """
        return self._mutated(population, rng, fine=False)

    def mutate_finely(self, population: Population, rng: np.random.Generator) -> Population:
        """`mutate` without the new depth: the small steps of the paper's second half."""
        return self._mutated(population, rng, fine=True)

    def _mutated(self, population: Population, rng: np.random.Generator, *, fine: bool) -> Population:
        num = len(population)
        stem, parts = (array.copy() for array in self.split(population))
        present = parts[:, :, -1] > 0
        # The chosen position: 0 is the stem, i the i-th present part.
        chosen = (rng.random(num) * (1 + present.sum(axis=1))).astype(np.int64)
        hit = present & (present.cumsum(axis=1) == chosen[:, None])
        on_stem = chosen == 0
        stem[on_stem] = scaled(stem, rng, self.genes[0])[on_stem]

        rows = np.flatnonzero(~on_stem)
        columns = hit[rows].argmax(axis=1)
        target = parts[rows, columns]
        target[:, 0] = np.asarray(self.kernels)[rng.integers(len(self.kernels), size=len(rows))]
        target[:, 1] = scaled(target[:, 1], rng, self.genes[2])
        self.mutate_mid(target, rng)
        steps = DEPTH_STEPS[rng.integers(len(DEPTH_STEPS), size=len(rows))]
        if not fine:
            target[:, -1] += steps
        parts[rows, columns] = target
        if not fine:
            settle_depths(parts, [np.flatnonzero(self.level_of_part == level) for level in LEVELS], self.max_depth)
        return self.repair(self.join(stem, parts))

    def mutate_mid(self, target: Ints, rng: np.random.Generator) -> None:
        """Mutate in place what only this kind of block has; `target` is (M, P)."""

    def crossover(self, first: Population, second: Population, rng: np.random.Generator) -> Population:
        """Take stem and whole stages from either parent with probability 1/2 each."""
        pick = rng.random((len(first), 1 + len(LEVELS))) < 0.5
        stage = np.searchsorted(LEVELS, self.level_of_part) + 1
        column_stage = np.r_[0, np.repeat(stage, self._genes_per_part)]
        return np.where(pick[:, column_stage], first, second)

    # ---- architectures and costs --------------------------------------------------------------------------------

    def start(self) -> Population:
        """Return (1, G) the paper's initial structure; what this space does not allow becomes the nearest allowed."""
        row = np.zeros((1, self.num_genes), dtype=np.int64)
        _, parts = self.split(row)
        stem_width, stages = self.initial_stages()
        row[0, 0] = stem_width
        for part, values in zip(np.flatnonzero(self.is_first), stages, strict=True):
            parts[0, part] = values
        row = self.join(row[:, 0], parts)
        for column, gene, chosen in zip(row.T, self.genes, row[0] > 0, strict=True):
            if chosen:
                column[0] = min(gene.values, key=lambda value: abs(value - column[0]))
        return row

    @abstractmethod
    def initial_stages(self) -> tuple[int, list[tuple[int, ...]]]:
        """Return the stem's width and the genes of the first part of C2 to C5 from which a search starts."""

    def to_architecture(self, row: Ints) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        return Architecture(self.texts(row[None])[0])

    def texts(self, population: Population) -> list[str]:
        """Return the canonical JSON text of every row's architecture.

        Written out by hand, since 100,000 of them are made in a search; a test holds it against `json.dumps`.
        """
        names = ["kernel", "width", *([self.mid_kind] if self.mid_kind else []), "depth"]
        order = sorted(range(len(names)), key=names.__getitem__)  # "stride" sorts between "kernel" and "width"
        before = [i for i in order if names[i] < "stride"]
        after = [i for i in order if names[i] > "stride"]
        templates = [
            "{"
            + "".join(f'"{names[i]}":%d,' for i in before)
            + f'"stride":{2 if first else 1}'
            + "".join(f',"{names[i]}":%d' for i in after)
            + "}"
            for first in self.is_first
        ]
        stem, parts = self.split(population)
        columns = parts[:, :, [*before, *after]].tolist()
        depths = parts[:, :, -1].tolist()
        return [
            f'{{"family":"{self.family}","spec":{{"stages":['
            + ",".join([t % tuple(c) for t, c, d in zip(templates, column, depth, strict=True) if d])
            + f'],"stem":{{"kernel":3,"width":{width}}}}}}}'
            for width, column, depth in zip(stem.tolist(), columns, depths, strict=True)
        ]

    def from_architecture(self, architecture: Architecture) -> Ints:
        """Return the (G,) row of an architecture; ValueError where it is not in this space."""
        spec = self._own_spec(architecture)
        try:
            row = self._row(spec)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an architecture of space {self.family!r}: malformed spec {spec}") from error
        return self._same(self.checked_row(row), architecture)

    def _row(self, spec: dict[str, Any]) -> Ints:
        row = np.zeros((1, self.num_genes), dtype=np.int64)
        row[0, 0] = spec["stem"]["width"]
        parts = row[:, 1:].reshape(1, len(self.level_of_part), self._genes_per_part)
        level, index = 1, -1
        for stage in spec["stages"]:
            level += stage["stride"] == 2
            index = int(np.searchsorted(self.level_of_part, level)) if stage["stride"] == 2 else index + 1
            if index >= len(self.level_of_part) or self.level_of_part[index] != level:
                raise ValueError(f"not an architecture of space {self.family!r}: C{level} has too many parts")
            mid = [stage[self.mid_kind]] if self.mid_kind else []
            parts[0, index] = [stage["kernel"], stage["width"], *mid, stage["depth"]]
        genes: Ints = row[0]
        return genes

    def cost(self, population: Population) -> Costs:
        """Return `gmacs`, `params_m` and `layers` of the backbone at `image_hw`, each (N,)."""
        return self.layers(population).cost()

    def map_channels(self, population: Population) -> dict[int, Ints]:
        """See `Space.map_channels`."""
        return stage_widths(self.split(population)[1], self.level_of_part.tolist())

    def layers(self, population: Population, image_hw: tuple[int, int] | None = None) -> LayerTable:
        """Return the layers of the whole population."""
        stem, parts = self.split(population)
        parts_t, strides = parts.transpose(1, 2, 0).astype(np.float64), np.where(self.is_first, 2, 1)
        return staged_layers(self.block, stem.astype(np.float64), parts_t, strides, image_hw or self.image_hw)


class BottleneckSpace(StagedSpace):
    """Residual bottlenecks, ResNet-50-like.

    Args:
        max_mid: Largest width inside a bottleneck, a multiple of 8.
        options: See `StagedSpace`.
    """

    family = "bottleneck"
    block = "bottleneck"
    mid_kind = "bottleneck"

    def __init__(self, *, max_mid: Width = 512, **options: Any) -> None:
        self.max_mid = max_mid
        super().__init__(**options)

    def mid_genes(self, place: str) -> tuple[Gene, ...]:
        """Return the bottleneck's width."""
        return (Gene(f"{place}.bottleneck", width_values(self.max_mid), log=True),)

    def mutate_mid(self, target: Ints, rng: np.random.Generator) -> None:
        """Multiply the bottleneck's width by one of the width scales."""
        target[:, 2] = scaled(target[:, 2], rng, self.genes[3])

    def initial_stages(self) -> tuple[int, list[tuple[int, ...]]]:
        """Return the stages of Table 15."""
        return 64, [(3, 256, 64, 2), (3, 512, 128, 2), (3, 1024, 256, 2), (3, 2048, 512, 2)]


class BasicSpace(StagedSpace):
    """Residual basic blocks (two kxk convolutions), ResNet-18-like. The widths are ResNet-18's at the start."""

    family = "basic"
    block = "basic"
    mid_kind = None

    def __init__(self, *, max_width: int = 1024, **options: Any) -> None:
        super().__init__(max_width=max_width, **options)

    def initial_stages(self) -> tuple[int, list[tuple[int, ...]]]:
        """Return one block a stage with ResNet-18's widths."""
        return 64, [(3, 64, 1), (3, 128, 1), (3, 256, 1), (3, 512, 1)]


class InvertedSpace(StagedSpace):
    """Inverted residuals, MobileNetV2-like (Appendix B): expansion 1, 3 or 6, linear projection."""

    family = "inverted"
    block = "inverted"
    mid_kind = "expansion"
    expansions = (1, 3, 6)

    def __init__(self, *, max_width: int = 512, max_stem_width: int = 64, **options: Any) -> None:
        super().__init__(max_width=max_width, max_stem_width=max_stem_width, **options)

    def mid_genes(self, place: str) -> tuple[Gene, ...]:
        """Return the expansion ratio."""
        return (Gene(f"{place}.expansion", self.expansions),)

    def mutate_mid(self, target: Ints, rng: np.random.Generator) -> None:
        """Draw a new expansion ratio uniformly."""
        target[:, 2] = np.asarray(self.expansions)[rng.integers(len(self.expansions), size=len(target))]

    def initial_stages(self) -> tuple[int, list[tuple[int, ...]]]:
        """Return one block a stage with MobileNetV2's narrow widths."""
        return 32, [(3, 24, 6, 1), (3, 32, 6, 1), (3, 96, 6, 1), (3, 160, 6, 1)]


class InvertedGatedSpace(InvertedSpace):
    """Inverted residuals with squeeze-and-excitation between the depthwise convolution and the projection."""

    family = "inverted-se"
    block = "inverted-se"
