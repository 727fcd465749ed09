"""The contract of a search space: genes as integer rows, every operation vectorized over a population.

Shapes: N architectures in a population, G genes in a row. A population is an (N, G) int64 array.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nasray.spaces.architecture import Architecture, text_id
from nasray.spaces.exact import log_table

if TYPE_CHECKING:
    import optuna

    from nasray.spaces.budget import Budget, CostFunction
    from nasray.spaces.tokens import Tokens
    from nasray.spaces.windows import Surcharges

Population = NDArray[np.int64]
Mask = NDArray[np.bool_]
Settings = Mapping[tuple[int, ...], Population]  # (K, C) settings by the C columns of a group
Costs = dict[str, NDArray[np.float64]]
MAX_TRIES = 200_000
"""Random architectures that `Space.sample_within` draws at most."""


@dataclass(frozen=True)
class Gene:
    """One column of a population.

    Attributes:
        name: Unique name within its space; also the parameter's name in Ray Tune and Optuna.
        values: The allowed integers, ascending, without repetition.
        log: Whether samplers should draw it uniformly in the logarithm (widths) instead of uniformly.
        ordered: Whether neighbors are alike (widths, depths) or the values are mere labels (kinds of operation).
        absent: The value of a part that is not there; a restriction to some values leaves it allowed.
    """

    name: str
    values: tuple[int, ...]
    log: bool = False
    ordered: bool = True
    absent: int | None = None

    def __post_init__(self) -> None:
        if not self.values or list(self.values) != sorted(set(self.values)):
            raise ValueError(f"gene {self.name!r}: values must be ascending and distinct, got {self.values}")
        if self.log and (self.step is None or self.values[0] != self.step):
            raise ValueError(f"gene {self.name!r}: log needs values step, 2*step, 3*step, ..., got {self.values}")

    @cached_property
    def step(self) -> int | None:
        """The common difference of the values, or None where they are irregular or a single one."""
        steps = set(np.diff(self.values).tolist())
        return steps.pop() if len(steps) == 1 else None

    @cached_property
    def _log_bounds(self) -> NDArray[np.float64]:
        """Logarithms of 1 to the number of values + 1."""
        return log_table(len(self.values) + 2)[1:]

    def draw(self, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return (num,) allowed values, uniform, or uniform in the logarithm where `log` is set."""
        if not self.log:
            return np.asarray(self.values, dtype=np.int64)[rng.integers(len(self.values), size=num)]
        # The value i * step stands for the interval [i, i + 1), so that every value has a share. Its bounds are looked
        # up: numpy's exponential differs in the last place between instruction sets.
        bounds = self._log_bounds
        index = np.searchsorted(bounds, rng.uniform(0.0, bounds[-1], size=num), side="right")
        return index.clip(1, len(self.values)) * self.values[0]

    def to_tune(self) -> Any:
        """Return the gene as a Ray Tune search domain with the same values."""
        from ray import tune

        if not self.ordered or not (self.log or self.step == 1):
            return tune.choice(list(self.values))
        # Tune's integers shut their upper end out; a log gene is carried as the multiple of its step. Its qrandint
        # rounds to multiples of the step, which 3, 5, 7 are not.
        if self.log:
            return tune.lograndint(1, len(self.values) + 1)
        return tune.randint(self.values[0], self.values[-1] + 1)

    def from_tune(self, value: int) -> int:
        """Return the gene's value from a sampled value of `to_tune`'s domain."""
        return int(value) * self.values[0] if self.log else int(value)

    def suggest(self, trial: optuna.trial.BaseTrial) -> int:
        """Return the gene as an Optuna suggestion with the same values."""
        if self.step is None or not self.ordered:
            return int(trial.suggest_categorical(self.name, self.values))
        if self.log:
            return trial.suggest_int(self.name, 1, len(self.values), log=True) * self.values[0]
        return trial.suggest_int(self.name, self.values[0], self.values[-1], step=self.step)

    def to_param(self, value: int) -> int:
        """Return the parameter of an Optuna trial for which `suggest` returns the value."""
        return value // self.values[0] if self.log and self.ordered else value


class Space(ABC):
    """What can be built.

    A space is its `genes` and, where genes depend on each other, `repair`: a projection that maps any row of allowed
    values to a valid row and leaves valid rows alone. Everything else follows from these two, and is overridden where
    a paper has rules of its own. `sample`, `to_tune` and `suggest` describe the same set of architectures.

    Attributes:
        family: Name of the space and of the network builder of its architectures.
        genes: The columns of a population.
        image_hw: Height and width in pixels of the input for which `cost` counts; None where there is no image.
        resolutions: Sizes of which the last gene chooses one, at which `cost` counts instead; none by default.
        cost_scope: What `cost` counts, in a word or two: "backbone", "head"; it is printed with every figure.
    """

    family: str
    genes: tuple[Gene, ...]
    image_hw: tuple[int, int] | None = None
    resolutions: tuple[tuple[int, int], ...] = ()
    cost_scope: str = "architecture"

    @cached_property
    def num_genes(self) -> int:
        """G, the length of a row."""
        return len(self.genes)

    @property
    def whole(self) -> Space:
        """The space that this one restricts; itself where it restricts none."""
        return self

    @property
    def has_rules(self) -> bool:
        """Whether genes may depend on each other: whether the space has a `repair` of its own."""
        return type(self).repair is not Space.repair

    def repair(self, population: Population) -> Population:
        """Map rows of allowed values to valid rows; identity on valid rows, so repairing twice changes nothing."""
        return population

    def is_valid(self, population: Population) -> Mask:
        """Return (N,) whether each row is an architecture of this space. Budgets are not the space's business."""
        lookup, offsets, largest = self._lookup
        places: Population = population.clip(-1, largest) + offsets
        allowed: Mask = np.logical_and.reduce(lookup[places], axis=1)
        if not allowed.any():
            return allowed
        safe = population if allowed.all() else np.where(allowed[:, None], population, population[allowed][0])
        unchanged: Mask = (self.repair(safe) == safe).all(axis=1)
        return allowed & unchanged

    @cached_property
    def _allowed(self) -> list[Mask]:
        """For each gene the (max + 1,) table of allowed values."""
        tables = []
        for gene in self.genes:
            if gene.values[0] < 0:
                raise ValueError(f"gene {gene.name!r}: values must not be negative, got {gene.values[0]}")
            table = np.zeros(gene.values[-1] + 1, dtype=bool)
            table[list(gene.values)] = True
            tables.append(table)
        return tables

    @cached_property
    def _lookup(self) -> tuple[Mask, NDArray[np.int64], int]:
        """All of `_allowed` end to end, where each gene's -1 would stand in it, and the largest value of all."""
        largest = max(len(table) for table in self._allowed)  # itself allowed by no gene
        lookup = np.zeros((self.num_genes, largest + 2), dtype=bool)
        for row, table in zip(lookup, self._allowed, strict=True):
            row[1 : len(table) + 1] = table
        return lookup.ravel(), np.arange(self.num_genes) * (largest + 2) + 1, largest

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Columns that depend on each other, together all columns, ascending within a group.

        Whatever settings two groups have, they fit each other: the space is the product of its groups' settings. By
        default each gene stands alone where `repair` is the identity, and all are one group where it is not.
        """
        columns = tuple(range(self.num_genes))
        return tuple((column,) for column in columns) if type(self).repair is Space.repair else (columns,)

    @property
    def num_architectures(self) -> int | None:
        """The exact number of architectures; None where a group has too many settings to be listed."""
        from nasray.spaces.groups import count_settings

        return count_settings(self)

    def sample(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) valid rows, independent of each other, and groups of each other within a row.

        Uniform over distinct architectures, unless the docstring of the space says otherwise. Here each gene is drawn
        by itself and the row repaired: uniform where `repair` is the identity and no gene is logarithmic.
        """
        return self.repair(np.stack([gene.draw(num, rng) for gene in self.genes], axis=1))

    def sample_within(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        *,
        cost: CostFunction | None = None,
        max_tries: int = MAX_TRIES,
    ) -> Population:
        """Return (K, G) valid rows within a budget, distributed as `sample`'s are, in the order drawn; K <= num.

        Samples that are over the budget are thrown away, and `max_tries` bounds how many are drawn: K is less than
        `num` where they do not suffice, and 0 where none of them is within the budget.

        Args:
            num: Number of rows to return.
            budget: Bounds on costs.
            rng: Generator of all randomness.
            cost: Function that returns the bounded costs; the space's own by default.
            max_tries: Number of samples to draw at most.
        """
        from nasray.spaces.windows import draw_within

        return draw_within(self, num, budget, rng, cost, max_tries)

    def sample_near(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        allowed: Settings | None = None,
        added: Surcharges | None = None,
    ) -> Population | None:
        """Return (num, G) valid rows, distributed as `sample`'s are, of a small set that holds all within a budget.

        By default None: nothing better is known than samples of the whole space. (0, G) rows say that nothing is
        within the budget.

        Args:
            num: Number of rows to return.
            budget: Bounds on the space's own costs, or on them with a surcharge.
            rng: Generator of all randomness.
            allowed: (K, C) settings of some groups, which alone are drawn; all of the others.
            added: What is added to the space's own costs; nothing if left out.
        """
        del num, budget, rng, allowed, added
        return None

    def count(self, budget: Budget, allowed: Settings | None = None, added: Surcharges | None = None) -> int | None:
        """Return the exact number of rows within a budget, as `sample_near` has it; by default None: not known."""
        del budget, allowed, added
        return None

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows, mutants of the rows, or equal: one gene, chosen uniformly, is drawn anew."""
        fresh = np.stack([gene.draw(len(population), rng) for gene in self.genes], axis=1)
        chosen = rng.integers(self.num_genes, size=len(population))
        mutants = population.copy()
        rows = np.arange(len(population))
        mutants[rows, chosen] = fresh[rows, chosen]
        return self.repair(mutants)

    def mutate_finely(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows, each a mutant of its row by a small step; by default steps are `mutate`'s."""
        return self.mutate(population, rng)

    def crossover(self, first: Population, second: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows: every gene comes from either parent with probability 1/2."""
        return self.repair(np.where(rng.random(first.shape) < 0.5, first, second))

    def cost(self, population: Population) -> Costs:
        """Return exact costs, each an (N,) float array, at `image_hw`. A space without costs returns none."""
        del population
        return {}

    def map_channels(self, population: Population) -> dict[int, NDArray[np.int64]]:
        """Return the channels of each row's maps that a detector takes, (N,) by reduction, finest first.

        A reduction is a power of two: of an image of H rows a map has H / reduction, rounded up. By default there are
        none: the networks are no backbones, or the sizes of their maps are not fixed.
        """
        del population
        return {}

    def start(self) -> Population:
        """Return (K, G) rows from which an evolution starts; none (K = 0) means: from a random sample."""
        return np.empty((0, self.num_genes), dtype=np.int64)

    def tokens(self, population: Population) -> Tokens:
        """Return the rows as sequences of tokens, which a path filter reads; by default one token for each gene."""
        from nasray.spaces.tokens import gene_tokens

        return gene_tokens(self, population)

    def operations(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Return what a pruning may forbid: combinations of gene values, each within one group.

        By default every value of every gene that has several, by itself.
        """
        return tuple(((gene.name, value),) for gene in self.genes if len(gene.values) > 1 for value in gene.values)

    @property
    def lasting_genes(self) -> tuple[int, ...]:
        """Columns of which a pruning leaves every value possible; by default none."""
        return ()

    def network_options(self) -> dict[str, Any]:
        """Return what the networks of all architectures have in common and no gene says, as the space's own keywords.

        Nothing that is about costs alone belongs here. `type(space)(**space.network_options())` has the same networks.
        """
        return {}

    def to_architecture(self, row: NDArray[np.int64]) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        return Architecture.create(
            self.family, {gene.name: int(value) for gene, value in zip(self.genes, row, strict=True)}
        )

    def from_architecture(self, architecture: Architecture) -> NDArray[np.int64]:
        """Return the (G,) row of an architecture of this space.

        Raises:
            ValueError: if the architecture is of another family or not in this space.
        """
        spec = self._own_spec(architecture)
        row = np.array([spec.get(gene.name, -1) for gene in self.genes], dtype=np.int64)
        return self._same(self.checked_row(row), architecture)

    def _own_spec(self, architecture: Architecture) -> dict[str, Any]:
        if architecture.family != self.family:
            raise ValueError(f"architecture of family {architecture.family!r} in a space of family {self.family!r}")
        return architecture.spec

    def _same(self, row: NDArray[np.int64], architecture: Architecture) -> NDArray[np.int64]:
        if (own := self.to_architecture(row)) != architecture:
            raise ValueError(
                f"not an architecture of space {self.family!r}: {architecture.text} would read as {own.text}"
            )
        return row

    def checked_row(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row itself if it is valid; else a ValueError that names the offending genes."""
        if not self.is_valid(row[None])[0]:
            bad = [
                f"{gene.name}={value}"
                for gene, value in zip(self.genes, row, strict=True)
                if int(value) not in gene.values
            ]
            raise ValueError(
                f"not an architecture of space {self.family!r}: "
                + (", ".join(bad) + " not allowed" if bad else f"genes that do not fit each other in {row.tolist()}")
            )
        return row

    def texts(self, population: Population) -> list[str]:
        """Return the canonical JSON text of every row's architecture."""
        return [self.to_architecture(row).text for row in population]

    def ids(self, population: Population) -> list[str]:
        """Return the `Architecture.id` of every row."""
        return [text_id(text) for text in self.texts(population)]

    def to_tune(self) -> dict[str, Any]:
        """Return a Ray Tune `param_space`; `from_tune` maps a sampled config to a row."""
        return {gene.name: gene.to_tune() for gene in self.genes}

    def from_tune(self, config: Mapping[str, Any]) -> NDArray[np.int64]:
        """Return the valid (G,) row of a config that Ray Tune sampled from `to_tune`."""
        return self._repaired([gene.from_tune(config[gene.name]) for gene in self.genes])

    def suggest(self, trial: optuna.trial.BaseTrial) -> NDArray[np.int64]:
        """Return a valid (G,) row from an Optuna trial, define by run."""
        return self._repaired([gene.suggest(trial) for gene in self.genes])

    def _repaired(self, row: ArrayLike) -> NDArray[np.int64]:
        genes: NDArray[np.int64] = self.repair(np.array([row], dtype=np.int64))[0]
        return genes


def row_keys(population: Population) -> NDArray[np.uint64]:
    """Return (N,) 64-bit keys, equal for equal rows, different for others but with a probability of about 2^-64."""
    num_genes = population.shape[1]
    key = (population.astype(np.uint64) * _mix(np.arange(1, num_genes + 1, dtype=np.uint64))).sum(axis=1)
    return _mix(key)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finalizer of the generator splitmix64, a bijection of 64-bit numbers."""
    value = value * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
