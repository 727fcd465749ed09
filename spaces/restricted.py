"""A space without some combinations of gene values: pruning, progressive shrinking, coupled genes, subsets of choices.

Rows of a restricted space are rows of the space itself, so what is known of one holds for the other: costs,
architectures, ids, paths of a supernet. What a restriction ties together becomes one group, and the allowed settings
of every group that it touches are listed: sampling draws each with the same probability.

Shapes: N architectures, G genes, K settings of a group of C genes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.architecture import Architecture
from nasray.spaces.base import Costs, Gene, Mask, Population, Settings, Space, row_keys
from nasray.spaces.budget import Budget
from nasray.spaces.errors import InfeasibleError, NasrayError
from nasray.spaces.groups import MAX_SETTINGS, group_settings, merge_groups
from nasray.spaces.ranges import shortened
from nasray.spaces.tokens import Tokens
from nasray.spaces.windows import Surcharges

Forbidden = tuple[tuple[tuple[str, int], ...], ...]
"""Combinations of gene values that no architecture may have, each ((name of gene, value), ...)."""

MAX_TRIES = 100_000
"""Samples of the space that are looked through for settings of a group that is too large to be listed."""
MUTATION_TRIES = 8
"""How often what left the restriction is drawn anew, before the nearest setting inside takes its place."""
CHUNK = 2_000_000
"""Distances between settings that are computed at a time."""


class RestrictedSpace(Space):
    """The architectures of a space that have none of the forbidden combinations of gene values.

    Sampling draws the settings of every group that the restriction touches uniformly, from their list; groups that it
    does not touch are drawn as the space draws them. A group of more than 200,000 combinations of gene values is not
    listed: it takes restrictions of single genes only, and is drawn by rejection of the space's own samples.

    Args:
        space: Space to restrict; a restricted one is restricted further.
        forbidden: Combinations of gene values, as `forbid_values` makes them or a pruning finds them.

    Raises:
        NasrayError: for an unknown gene or value, or a restriction that leaves nothing.
    """

    def __init__(self, space: Space, forbidden: Forbidden) -> None:
        self.space: Space = space
        if isinstance(space, RestrictedSpace):
            self.space, forbidden = space.space, (*space.forbidden, *forbidden)
            space = self.space
        self.family, self.image_hw, self.cost_scope = space.family, space.image_hw, space.cost_scope
        self.resolutions = space.resolutions
        columns = {gene.name: column for column, gene in enumerate(space.genes)}
        self.forbidden: Forbidden = tuple(
            dict.fromkeys(_in_order(combination, space, columns) for combination in forbidden)
        )
        by_columns: dict[tuple[int, ...], list[list[int]]] = {}
        for combination in self.forbidden:
            names, values = zip(*combination, strict=True)
            by_columns.setdefault(tuple(columns[name] for name in names), []).append(list(values))
        self._patterns = {key: np.array(rows, dtype=np.int64) for key, rows in by_columns.items()}
        self.genes = tuple(self._narrowed(column, gene) for column, gene in enumerate(space.genes))
        self._space_of_genes = copy.copy(
            space
        )  # the space with fewer values: what its own rules draw is mostly allowed
        self._space_of_genes.genes = self.genes
        touched = {column for key in self._patterns for column in key}
        self._touched = [group for group in self.groups if touched & set(group)]
        self._allowed_settings = {group: self._list(group) for group in self._touched}

    def __getattr__(self, name: str) -> Any:
        """Return what only this family of spaces has, such as `layers` or the width of a stem."""
        if name.startswith("_") or name == "space":
            raise AttributeError(name)
        return getattr(self.space, name)

    @property
    def whole(self) -> Space:
        """The space that is restricted."""
        return self.space

    # ---- what is allowed --------------------------------------------------------------------------------------------

    def _narrowed(self, column: int, gene: Gene) -> Gene:
        """Return the gene without the values that are forbidden by themselves."""
        gone = self._patterns.get((column,), np.empty((0, 1))).ravel()
        values = tuple(value for value in gene.values if value not in gone)
        if not values:
            raise NasrayError(f"the restriction forbids every value of gene {gene.name!r}: {shortened(gene.values)}")
        if len(values) == len(gene.values):
            return gene
        log = gene.log and values == tuple(range(gene.values[0], values[-1] + 1, gene.values[0])) and len(values) > 1
        return Gene(gene.name, values, log=log, ordered=gene.ordered, absent=gene.absent)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The space's groups, those united that a forbidden combination ties together."""
        return merge_groups(self.space, list(self._patterns))

    def _list(self, group: tuple[int, ...]) -> Population | None:
        """Return (K, C) the allowed settings of a group; None of one that is too large to be listed."""
        settings = group_settings(self._space_of_genes, group)
        if settings is None:
            tied = [key for key in self._patterns if len(key) > 1 and set(key) <= set(group)]
            if tied:
                names = ", ".join(self.genes[column].name for column in tied[0])
                raise NasrayError(
                    f"the restriction ties {names} together, in a group of {len(group)} genes with more than "
                    f"{MAX_SETTINGS:,} combinations of values, which are not listed. Forbid values of single genes"
                )
            return None
        rows = np.zeros((len(settings), self.num_genes), dtype=np.int64)
        rows[:, list(group)] = settings
        allowed = settings[~self._has_pattern(rows, group)]
        if not len(allowed):
            names = ", ".join(self.genes[column].name for column in group)
            raise NasrayError(f"the restriction forbids every setting of the genes {names}. Forbid fewer combinations")
        return allowed

    def _has_pattern(self, population: Population, group: Sequence[int] | None = None) -> Mask:
        """Return (N,) whether a row has a forbidden combination, of the genes of a group or of any."""
        found = np.zeros(len(population), dtype=bool)
        for columns, values in self._patterns.items():
            if group is None or set(columns) <= set(group):
                found |= np.isin(row_keys(population[:, list(columns)]), row_keys(values))
        return found

    def is_valid(self, population: Population) -> Mask:
        """Return (N,) whether each row is an architecture of the space without a forbidden combination."""
        valid: Mask = self.space.is_valid(population) & ~self._has_pattern(population)
        return valid

    @property
    def num_architectures(self) -> int | None:
        """The exact number of architectures; None where a group is too large to be listed."""
        total = 1
        for group in self.groups:
            settings = self._allowed_settings.get(group)
            settings = group_settings(self._space_of_genes, group) if settings is None else settings
            if settings is None:
                return None
            total *= len(settings)
        return total

    def repair(self, population: Population) -> Population:
        """Map any row to an allowed one: in each group the nearest allowed setting, the first of equally near ones.

        Near is first in how many genes differ, then in by how many places in the lists of their values.
        """
        rows = self.space.repair(population)
        for _ in range(len(self.genes) + 1):
            before = rows
            for group, allowed in self._allowed_settings.items():
                rows = self._with_values(rows, group) if allowed is None else self._nearest(rows, group, allowed)
            rows = self.space.repair(rows)
            if np.array_equal(rows, before):
                return rows
        raise NasrayError(
            f"the restriction does not go together with the rules of space {self.family!r}: what is allowed of one "
            "gene is moved to another. Forbid the same values of both"
        )

    def _with_values(self, rows: Population, group: tuple[int, ...]) -> Population:
        """Return rows whose forbidden values of single genes became the nearest allowed ones."""
        rows = rows.copy()
        for column in group:
            own, allowed = self.space.genes[column].values, np.asarray(self.genes[column].values)
            gone = np.isin(rows[:, column], own) & ~np.isin(rows[:, column], allowed)
            distance = np.abs(rows[gone, column][:, None] - allowed)
            rows[gone, column] = allowed[distance.argmin(axis=1)]
        return rows

    def _nearest(self, rows: Population, group: tuple[int, ...], allowed: Population) -> Population:
        """Return rows whose settings of a group became the nearest allowed ones."""
        columns = list(group)
        wrong = np.flatnonzero(~np.isin(row_keys(rows[:, columns]), row_keys(allowed)))
        if not len(wrong):
            return rows
        rows = rows.copy()
        settings, which = np.unique(rows[wrong][:, columns], axis=0, return_inverse=True)
        places, allowed_places = self._places(settings, group), self._places(allowed, group)
        nearest = np.empty(len(settings), dtype=np.int64)
        step = max(CHUNK // (len(allowed) * len(group)), 1)
        for begin in range(0, len(settings), step):
            apart = np.abs(places[begin : begin + step, None] - allowed_places)
            distance = (apart > 0).sum(axis=2) * (1 + apart.sum(axis=2).max()) + apart.sum(axis=2)
            nearest[begin : begin + step] = distance.argmin(axis=1)
        rows[wrong[:, None], columns] = allowed[nearest[which.ravel()]]
        return rows

    def _places(self, settings: Population, group: tuple[int, ...]) -> NDArray[np.int64]:
        """Return (K, C) the place of each value among its gene's values."""
        values = [self.space.genes[column].values for column in group]
        return np.stack([np.searchsorted(own, settings[:, i]) for i, own in enumerate(values)], axis=1)

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def sample(self, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) valid rows; uniform where the space's samples are, and in what the restriction touches.

        Raises:
            InfeasibleError: if a group that is too large to be listed is never found as it is allowed.
        """
        rows = self.space.sample(num, rng)
        for group, allowed in self._allowed_settings.items():
            if allowed is not None:
                rows[:, list(group)] = allowed[rng.integers(len(allowed), size=num)]
            else:
                rows[:, list(group)] = self._found_settings(rows, group, rng)
        return rows

    def sample_near(
        self,
        num: int,
        budget: Budget,
        rng: np.random.Generator,
        allowed: Settings | None = None,
        added: Surcharges | None = None,
    ) -> Population | None:
        """See `Space.sample_near`; of the settings that are allowed, where all of them are listed."""
        del allowed
        listed = self._listed
        return None if listed is None else self.space.sample_near(num, budget, rng, listed, added)

    def count(self, budget: Budget, allowed: Settings | None = None, added: Surcharges | None = None) -> int | None:
        """See `Space.count`; of the settings that are allowed, where all of them are listed."""
        del allowed
        return None if self._listed is None else self.space.count(budget, self._listed, added)

    @property
    def _listed(self) -> Settings | None:
        """The allowed settings of every group that the restriction touches; None where one is too large."""
        listed = {group: settings for group, settings in self._allowed_settings.items() if settings is not None}
        return listed if len(listed) == len(self._allowed_settings) else None

    def _found_settings(self, rows: Population, group: tuple[int, ...], rng: np.random.Generator) -> Population:
        """Return (N, C) allowed settings of a group, from samples of the space, beginning with the rows themselves."""
        columns, found, missing, tried = list(group), [], len(rows), 0
        while missing > 0:
            good = rows[:, columns][~self._has_pattern(rows, group)][:missing]
            found.append(good)
            missing, tried = missing - len(good), tried + len(rows)
            if tried > MAX_TRIES and not any(map(len, found)):
                names = ", ".join(self.genes[column].name for column in group)
                raise InfeasibleError(
                    f"{tried:,} samples of space {self.family!r} had no allowed setting of the genes {names}. Forbid "
                    "fewer values, or give the space itself fewer"
                )
            if missing > 0:
                rows = self.space.sample(min(max(4 * missing, 256), 4096), rng)
        return np.concatenate([np.empty((0, len(group)), dtype=np.int64), *found])

    def mutate(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows, mutated as the space does."""
        return self._varied(lambda index: self._space_of_genes.mutate(population[index], rng), len(population))

    def mutate_finely(self, population: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows, mutated by small steps as the space does."""
        return self._varied(lambda index: self._space_of_genes.mutate_finely(population[index], rng), len(population))

    def crossover(self, first: Population, second: Population, rng: np.random.Generator) -> Population:
        """Return (N, G) valid rows, crossed as the space does."""
        return self._varied(lambda index: self.space.crossover(first[index], second[index], rng), len(first))

    def _varied(self, vary: Any, num: int) -> Population:
        """Return children of an operation of the space: drawn anew where they are not allowed, at last brought back."""
        left = np.arange(num)
        children: Population = vary(left)
        for _ in range(MUTATION_TRIES):
            left = left[~self.is_valid(children[left])]
            if not len(left):
                return children
            children[left] = vary(left)
        return self.repair(children)

    def start(self) -> Population:
        """Return (K, G) the space's start, or what is allowed nearest to it."""
        return self.repair(self.space.start())

    def to_tune(self) -> dict[str, Any]:
        """Return a Ray Tune `param_space` without forbidden values of single genes; `from_tune` handles the others."""
        return self._space_of_genes.to_tune()

    def from_tune(self, config: Mapping[str, Any]) -> NDArray[np.int64]:
        """Return the valid (G,) row of a config that Ray Tune sampled from `to_tune`."""
        return self._repaired(self._space_of_genes.from_tune(config))

    def suggest(self, trial: Any) -> NDArray[np.int64]:
        """Return a valid (G,) row from an Optuna trial, define by run as the space does."""
        return self._repaired(self._space_of_genes.suggest(trial))

    # ---- what the space itself says ---------------------------------------------------------------------------------

    def cost(self, population: Population) -> Costs:
        """Return the space's costs."""
        return self.space.cost(population)

    def map_channels(self, population: Population) -> dict[int, NDArray[np.int64]]:
        """Return the channels of the space's maps."""
        return self.space.map_channels(population)

    def tokens(self, population: Population) -> Tokens:
        """Return the space's tokens, so that one path filter serves both."""
        return self.space.tokens(population)

    def operations(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        """Return the space's, without those that are forbidden already."""
        return tuple(operation for operation in self.space.operations() if operation not in self.forbidden)

    @property
    def lasting_genes(self) -> tuple[int, ...]:
        """Columns of which a pruning leaves every value possible: the space's."""
        return self.space.lasting_genes

    def network_options(self) -> dict[str, Any]:
        """Return the space's, so that one supernet serves both."""
        return self.space.network_options()

    def to_architecture(self, row: NDArray[np.int64]) -> Architecture:
        """Return the architecture of one valid (G,) row."""
        return self.space.to_architecture(row)

    def texts(self, population: Population) -> list[str]:
        """Return the canonical JSON text of every row's architecture."""
        return self.space.texts(population)

    def from_architecture(self, architecture: Architecture) -> NDArray[np.int64]:
        """Return the (G,) row of an architecture; ValueError if not in the space, or with a forbidden combination."""
        row = self.space.from_architecture(architecture)
        for columns, values in self._patterns.items():
            if (values == row[list(columns)]).all(axis=1).any():
                names = ", ".join(f"{self.genes[column].name}={row[column]}" for column in columns)
                raise ValueError(f"the architecture is outside of the restricted space {self.family!r}: it has {names}")
        return row


def _in_order(
    combination: Sequence[tuple[str, int]], space: Space, columns: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """Return a combination in the order of the genes.

    Raises:
        NasrayError: for none, an unknown gene, one that is named twice, or a value that it does not have.
    """
    pairs = [(str(name), value) for name, value in combination]
    names = [name for name, _ in pairs]
    if not pairs or len(set(names)) < len(names):
        raise NasrayError(f"a forbidden combination names one gene or several, each once; got {shortened(pairs)}")
    for name, value in pairs:
        if name not in columns:
            raise NasrayError(f"space {space.family!r} has no gene {name!r}. It has: {_short_list(list(columns))}")
        values = space.genes[columns[name]].values
        if value not in values:
            raise NasrayError(f"gene {name!r} never is {shortened(value)}. Its values are {_short_list(values)}")
    return tuple(sorted(((name, int(value)) for name, value in pairs), key=lambda pair: columns[pair[0]]))


def forbid_values(space: Space, within: Mapping[str, Sequence[int]]) -> Forbidden:
    """Return the combinations that leave genes no other values than the given ones.

    Args:
        space: Space to restrict.
        within: Allowed values by the last word of the genes' names, or a whole name: `{"width": [80, 100]}` is about
            `c2.width` and `c3.width`. Other genes keep all their values. A gene takes those of the values that it has,
            and the one that says that its part is absent.

    Raises:
        NasrayError: for a word that no gene has, a value that none of its genes has, or a gene that is left without.
    """
    forbidden: list[tuple[tuple[str, int], ...]] = []
    for word, allowed in within.items():
        genes = [gene for gene in space.genes if word in (gene.name, gene.name.rpartition(".")[2])]
        if not genes:
            words = dict.fromkeys(gene.name.rpartition(".")[2] for gene in space.genes)
            raise NasrayError(f"space {space.family!r} has no gene {word!r}. There are: {_short_list(list(words))}")
        every = sorted({value for gene in genes for value in gene.values})
        if foreign := [value for value in allowed if value not in every]:
            raise NasrayError(f"no gene {word!r} can be {shortened(foreign[0])}. Its values are {_short_list(every)}")
        for gene in genes:
            if not set(gene.values) & set(allowed):
                raise NasrayError(
                    f"{word}: {shortened(list(allowed))} leaves gene {gene.name!r} without a value. It has: "
                    f"{_short_list(gene.values)}"
                )
            forbidden += [((gene.name, value),) for value in gene.values if value not in (*allowed, gene.absent)]
    return tuple(forbidden)


def _short_list(values: Sequence[Any]) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts if len(texts) <= 16 else [*texts[:8], "...", *texts[-4:]])
