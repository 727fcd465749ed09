"""The contract of a searcher: ask for architectures, tell their metrics.

Shapes: N architectures, G genes, O objectives.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import Budget, CostFunction, Costs, InfeasibleError, NasrayError, Population, Space, row_keys
from nasray.spaces.ranges import MAX_SEED, check_whole

Metrics = dict[str, NDArray[np.float64]]
Predictor = Callable[[Population], NDArray[np.float64]]
NO_PARENT = -1
MAX_OVERSAMPLE = 1_000
MAX_LISTED = 100_000  # combinations of gene values of a space that is listed once little of it is left


@dataclass(frozen=True)
class Objective:
    """A metric or a cost, and which way is better."""

    name: str
    direction: Literal["max", "min"] = "max"

    @property
    def sign(self) -> float:
        """Multiplies values so that larger is better."""
        return 1.0 if self.direction == "max" else -1.0


SCORE = (Objective("score"),)


@dataclass(frozen=True)
class Proposal:
    """What a searcher asks for.

    Attributes:
        genes: (N, G) valid rows within the budget, none of which was asked for before.
        parents: (N, 2) the evaluations they descend from, counted from 0 in the order in which evaluations are told;
            -1 where there is none.
    """

    genes: Population
    parents: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.genes)


@dataclass(frozen=True)
class _Listing:
    """A small space within the budget: (N, G) rows, the place of each key, and (N,) which were not asked for yet."""

    rows: Population
    places: dict[int, int]
    is_left: NDArray[np.bool_]


class Searcher(ABC):
    """Decides what to try next. Plain Python and numpy; nothing outside its state influences the next `ask`.

    A subclass writes `_propose` (candidates, good or not) and `_learn` (what evaluations teach), lists its state in
    `_state`, and leaves validity, budget and duplicates to this class. Evaluations are numbered in the order in which
    they are told.

    Args:
        space: what can be built.
        budget: bounds on costs; every architecture asked for meets them.
        cost: gives the bounded costs; the space's own by default.
        objectives: what to optimize; several only where the searcher says so.
        seed: same seed, same search.
        evaluations: architectures that the search will evaluate, from which the defaults of the searcher's options
            follow; an `OrderedSearch` sets it where it is left out.
        predictor: Function that returns (N,) guesses, larger is better, of what (N, G) rows are worth. With it, `ask`
            finds `oversample` times as many candidates as it is asked for and returns those of the best guesses.
        oversample: Candidates for each architecture asked for, where there is a predictor.

    Raises:
        NasrayError: for a budget on a cost that nothing measures, or objectives that the searcher cannot serve.
    """

    max_objectives: int = 1
    # Candidates refused in a row before ...
    max_patience = 2_000  # ... newcomers take part, from the list of what is left where the space is small
    max_samples = 20_000  # ... newcomers are looked for near other ones within the budget
    max_tries = 200_000  # ... a search gives up

    def __init__(
        self,
        space: Space,
        *,
        budget: Budget | None = None,
        cost: CostFunction | None = None,
        objectives: tuple[Objective, ...] = SCORE,
        seed: int = 0,
        evaluations: int | None = None,
        predictor: Predictor | None = None,
        oversample: int = 10,
    ) -> None:
        self.space, self.objectives, self.evaluations = space, objectives, evaluations
        self.predictor, self.oversample = predictor, check_whole("oversample", oversample, 1, MAX_OVERSAMPLE)
        self.budget = budget or Budget()
        self.cost = cost or space.cost
        self.rng = np.random.default_rng(check_whole("seed", seed, 0, MAX_SEED))
        self.num_told = 0
        self.seen: set[int] = set()
        self.refused = 0  # candidates refused since the last admissible one, within one `ask`
        self.is_stuck = False  # whether they were more than `patience` at some time within this `ask`
        self.patience = self.max_patience  # less after an `ask` that got stuck, so that the next one gets there sooner
        self.shortfall = ""  # why the last `ask` gave fewer than it was asked for
        self.walkers: Population | None = None  # where newcomers are looked for under a budget that samples do not meet
        self._listing: _Listing | None = None
        if not 1 <= len(objectives) <= self.max_objectives:
            raise NasrayError(
                f"searcher {type(self).__name__} takes 1 to {self.max_objectives} objectives, got {len(objectives)}: "
                f"{', '.join(o.name for o in objectives)}. Take a multi-objective searcher, or fewer objectives"
            )
        known = self.cost(np.empty((0, space.num_genes), dtype=np.int64))
        if missing := [name for name in self.budget.names if name not in known]:
            raise NasrayError(
                f"budget on {', '.join(missing)}: space {space.family!r} does not have that cost. "
                f"It has: {', '.join(known) or 'none'}"
            )

    # ---- the contract -------------------------------------------------------------------------------------------

    def ask(self, num: int) -> Proposal:
        """Up to `num` new architectures; fewer only if none can be found at present, and `shortfall` says why.

        Raises:
            InfeasibleError: if no architecture within the budget was ever found.
        """
        proposal = self._find(num if self.predictor is None else self.oversample * num, enough=num)
        if self.predictor is None or len(proposal) <= num:
            return proposal
        guesses = np.nan_to_num(self.predictor(proposal.genes), nan=-np.inf)
        order = np.argsort(-guesses, kind="stable")
        self._mark_unseen(proposal.genes[order[num:]])
        kept = np.sort(order[:num])
        return Proposal(proposal.genes[kept], proposal.parents[kept])

    def _find(self, num: int, *, enough: int) -> Proposal:
        """Up to `num` new architectures; no more than `enough` if more are hard to find."""
        genes: list[Population] = []
        parents: list[NDArray[np.int64]] = []
        found, tried, self.refused, self.is_stuck, self.shortfall = 0, 0, 0, False, ""
        while found < num and not (self.is_stuck and found >= enough):
            # More than is missing, by the share that was refused so far, so that few rounds are needed.
            missing = num - found
            share = max((found + 1) / (tried + 1), 1 / 16)
            size = int(missing * min(1.25 / share, 16.0)) + 1
            if self.refused >= 256:
                size = max(size, min(self.refused, 4096))
            candidates, origin = self._propose(size)
            if not len(candidates):
                self.shortfall = "nothing is left to propose"
                break
            accepted = self._admissible(candidates, missing)
            self._mark_seen(candidates[accepted])
            genes.append(candidates[accepted])
            parents.append(origin[accepted])
            self._remember(genes[-1][parents[-1][:, 0] == NO_PARENT])
            found += len(accepted)
            tried += len(candidates)
            self.refused = 0 if len(accepted) else self.refused + len(candidates)
            self.is_stuck |= self.refused > self.patience
            if self.is_stuck and self._is_used_up:
                self.shortfall = f"all {len(self.seen):,} architectures of the space within the budget were asked for"
                break
            if self.refused > self.max_tries:
                self.shortfall = f"{self.refused:,} candidates in a row were known already or outside of the budget"
                break
        self.patience = max(self.patience // 4, 32) if self.is_stuck else min(2 * self.patience, self.max_patience)
        if found >= enough:
            self.shortfall = ""
        if not self.seen and num:
            raise self._infeasible(tried)
        if not genes:
            return Proposal(np.empty((0, self.space.num_genes), dtype=np.int64), np.empty((0, 2), dtype=np.int64))
        return Proposal(np.concatenate(genes), np.concatenate(parents))

    def tell(self, genes: Population, metrics: Metrics) -> None:
        """Learn the metrics of architectures asked for before, in the order in which they were asked for.

        Args:
            genes: (N, G) rows.
            metrics: every objective (that is not a cost) as an (N,) array; NaN is the worst value there is.
        """
        values = self.objective_values(genes, metrics)
        numbers = np.arange(self.num_told, self.num_told + len(genes))
        self.num_told += len(genes)
        self._learn(genes, values, numbers)

    def check_feasible(self) -> None:
        """Find an architecture within the budget, or raise `InfeasibleError`; leaves the searcher as it was."""
        state = self.rng.bit_generator.state
        try:
            self._seeds(1)
        finally:
            self.rng.bit_generator.state = state

    def state_dict(self) -> dict[str, Any]:
        """Everything that influences what comes next, picklable."""
        return {
            "rng": self.rng.bit_generator.state,
            "num_told": self.num_told,
            "seen": np.fromiter(self.seen, dtype=np.uint64, count=len(self.seen)),
            "patience": self.patience,
            "walkers": self.walkers,
            **self._state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly as the searcher that gave `state` would have; made with the same arguments."""
        state = dict(state)
        self.rng.bit_generator.state = state.pop("rng")
        self.num_told = state.pop("num_told")
        self.seen, self._listing = set(state.pop("seen").tolist()), None
        self.patience, self.walkers = state.pop("patience"), state.pop("walkers")
        self._load_state(state)

    def population(self) -> Population:
        """(P, G) what the searcher holds at present, best first where it ranks; for reports."""
        return np.empty((0, self.space.num_genes), dtype=np.int64)

    def niches(self, genes: Population) -> NDArray[np.int64]:
        """(N,) the niche of each row, such as an interval of a cost; scores of different niches do not compare.

        `best.json` holds the best of every niche.
        """
        return np.zeros(len(genes), dtype=np.int64)

    def options(self) -> dict[str, Any]:
        """The searcher's own options as they are in force, those that were left out included."""
        return {}

    # ---- for subclasses -----------------------------------------------------------------------------------------

    @abstractmethod
    def _propose(self, num: int) -> tuple[Population, NDArray[np.int64]]:
        """About `num` valid candidates (M, G) and their parents (M, 2), good or not. An empty answer ends the `ask`.

        Once `is_stuck`, a good part of them should be `_newcomers`.
        """

    def _learn(  # noqa: B027  random search has nothing to learn
        self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]
    ) -> None:
        """Take in (N, G) genes with (N, O) values, larger is better, and (N,) evaluation numbers."""

    def _state(self) -> dict[str, Any]:
        return {}

    def _load_state(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def objective_values(self, genes: Population, metrics: Metrics) -> NDArray[np.float64]:
        """(N, O) objectives with signs so that larger is better; minus infinity for NaN."""
        costs: Costs | None = None
        columns = []
        for objective in self.objectives:
            if objective.name in metrics:
                column = metrics[objective.name]
            else:
                costs = self.cost(genes) if costs is None else costs
                if objective.name not in costs:
                    raise NasrayError(
                        f"objective {objective.name!r} is neither a metric of the evaluator "
                        f"({', '.join(metrics)}) nor a cost of the space ({', '.join(costs)})"
                    )
                column = costs[objective.name]
            column = np.asarray(column, dtype=np.float64) * objective.sign
            columns.append(np.where(np.isnan(column), -np.inf, column))
        return np.stack(columns, axis=1)

    def _admissible(self, candidates: Population, most: int) -> NDArray[np.int64]:
        """Indices of the first `most` candidates that are new, valid and within the budget."""
        keys = row_keys(candidates).tolist()
        fresh: dict[int, int] = {}
        for index, key in enumerate(keys):
            if key not in self.seen and key not in fresh:
                fresh[key] = index
        indices = np.fromiter(fresh.values(), dtype=np.int64, count=len(fresh))
        return indices[self._is_admissible(candidates[indices])][:most]

    def _is_admissible(self, rows: Population) -> NDArray[np.bool_]:
        """(N,) whether each row is valid and within the budget."""
        good = self.space.is_valid(rows)
        if self.budget.names:
            good &= self.budget.admits(self.cost(rows), len(rows))
        return good

    def _newcomers(self, num: int) -> Population:
        """(K, G) candidates that owe nothing to what was told, K <= num: samples of the space, good or not.

        Where samples are refused in a row, a space of few architectures is listed and the newcomers are drawn from
        what is left of it; in a larger one, whose budget samples hardly ever meet, they are found by mutating others
        within the budget.
        """
        if self.is_stuck and (left := self._unseen()) is not None:
            return left[self.rng.choice(len(left), size=min(num, len(left)), replace=False)]
        if self.walkers is None and self.refused > self.max_samples:
            try:
                self.walkers = self._seeds(num)
            except InfeasibleError:
                if not self.seen:
                    raise
        if self.walkers is None:
            return self.space.sample(num, self.rng)
        steps = self.rng.integers(1, 4, size=num)
        rows = self.walkers[self.rng.integers(len(self.walkers), size=num)]
        for step in range(3):
            rows = np.where((step < steps)[:, None], self.space.mutate(rows, self.rng), rows)
        return rows

    def _remember(self, newcomers: Population) -> None:
        """Let the search for newcomers go on from the last ones that were found."""
        if self.walkers is not None and len(newcomers):
            self.walkers = np.concatenate([self.walkers, newcomers])[-256:]

    def _mark_seen(self, rows: Population) -> None:
        """Never ask for these rows again."""
        keys = row_keys(rows).tolist()
        self.seen.update(keys)
        if self._listing is not None:
            self._listing.is_left[[self._listing.places[key] for key in keys if key in self._listing.places]] = False

    def _mark_unseen(self, rows: Population) -> None:
        """Take back that these rows were asked for."""
        keys = row_keys(rows).tolist()
        self.seen.difference_update(keys)
        if self._listing is not None:
            self._listing.is_left[[self._listing.places[key] for key in keys if key in self._listing.places]] = True

    def _unseen(self) -> Population | None:
        """(K, G) what is left of a space of few architectures, in a fixed order; None of a larger space."""
        if self._listing is None:
            if math.prod(len(gene.values) for gene in self.space.genes) > min(MAX_LISTED, self.max_tries):
                return None
            combinations = itertools.product(*(gene.values for gene in self.space.genes))
            rows = np.unique(self.space.repair(np.array(list(combinations), dtype=np.int64)), axis=0)
            chunks = np.array_split(rows, -(-len(rows) // 4096))
            rows = np.concatenate([chunk[self._is_admissible(chunk)] for chunk in chunks])
            keys = row_keys(rows).tolist()
            is_left = np.array([key not in self.seen for key in keys], dtype=bool)
            self._listing = _Listing(rows, {key: place for place, key in enumerate(keys)}, is_left)
        return self._listing.rows[self._listing.is_left]

    @property
    def _is_used_up(self) -> bool:
        """Whether nothing is left for certain."""
        left = self._unseen()
        return left is not None and not len(left)

    def _seeds(self, num: int) -> Population:
        """(K, G) architectures within the budget from which to start; K in [1, num].

        The space's own start where it fits the budget; otherwise descendants of it, or of a random sample, found by
        mutating towards the budget.
        """
        rows = self.space.start()
        if len(rows) == 0:
            rows = self.space.sample(num, self.rng)
        tried = 0
        while tried <= self.max_tries:
            costs = self.cost(rows)
            admitted = self.budget.admits(costs, len(rows))
            if admitted.any():
                return rows[admitted][:num]
            violation = self.budget.violations(costs).sum(axis=1)
            rows = rows[np.argsort(violation, kind="stable")[:32]]
            offspring = self.space.mutate(np.repeat(rows, 1 + 512 // len(rows), axis=0), self.rng)
            rows = np.unique(np.concatenate([rows, offspring, self.space.sample(64, self.rng)]), axis=0)
            tried += len(offspring) + 64
        raise self._infeasible(tried, rows)

    def _infeasible(self, tried: int, rows: Population | None = None) -> InfeasibleError:
        rows = self.space.sample(4096, self.rng) if rows is None else rows
        costs = self.cost(rows)
        nearest = int(self.budget.violations(costs).sum(axis=1).argmin())
        reached = ", ".join(f"{name}={costs[name][nearest]:.4g}" for name in self.budget.names)
        return InfeasibleError(
            f"no architecture of space {self.space.family!r} meets the budget ({self.budget}): tried {tried}, "
            f"the nearest has {reached}. Loosen the budget, or take another space"
        )
