"""The contract of a searcher: ask for architectures, tell their metrics.

Shapes: N architectures, G genes, O objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import Budget, CostFunction, Costs, InfeasibleError, NasrayError, Population, Space, row_keys

Metrics = dict[str, NDArray[np.float64]]
NO_PARENT = -1


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


class Searcher(ABC):
    """Decides what to try next. Plain Python and numpy; nothing outside its state influences the next `ask`.

    A subclass writes `_propose` (candidates, good or not) and `_learn` (what evaluations teach), lists its state in
    `_state`, and leaves validity, budget and duplicates to this class. Evaluations are numbered in the order in which
    they are told.

    Args:
        space: what can be built.
        budget: bounds on costs; every architecture asked for meets them.
        cost: gives the bounded costs; the space's own by default.
        objectives: what to optimise; several only where the searcher says so.
        seed: same seed, same search.

    Raises:
        NasrayError: for a budget on a cost that nothing measures, or objectives that the searcher cannot serve.
    """

    max_objectives: int = 1
    max_tries = 200_000  # candidates without a single admissible one before a search gives up

    def __init__(
        self,
        space: Space,
        *,
        budget: Budget | None = None,
        cost: CostFunction | None = None,
        objectives: tuple[Objective, ...] = SCORE,
        seed: int = 0,
    ) -> None:
        self.space, self.objectives = space, objectives
        self.budget = budget or Budget()
        self.cost = cost or space.cost
        self.rng = np.random.default_rng(seed)
        self.num_told = 0
        self.seen: set[int] = set()
        self.refused = 0  # candidates refused since the last admissible one, within one `ask`
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
        """Up to `num` new architectures; fewer only if the space (or the searcher) has run out of them.

        Raises:
            InfeasibleError: if no architecture within the budget was ever found.
        """
        genes: list[Population] = []
        parents: list[NDArray[np.int64]] = []
        found, tried, self.refused = 0, 0, 0
        while found < num:
            # More than is missing, by the share that was refused so far, so that few rounds are needed.
            missing = num - found
            share = max((found + 1) / (tried + 1), 1 / 16)
            candidates, origin = self._propose(int(missing * min(1.25 / share, 16.0)) + 1)
            if not len(candidates):
                break
            accepted = self._admissible(candidates, missing)
            self.seen.update(row_keys(candidates[accepted]).tolist())
            genes.append(candidates[accepted])
            parents.append(origin[accepted])
            found += len(accepted)
            tried += len(candidates)
            self.refused = 0 if len(accepted) else self.refused + len(candidates)
            if self.refused > self.max_tries:
                if not self.seen:
                    raise self._infeasible(tried)
                break
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
            **self._state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly as the searcher that gave `state` would have; made with the same arguments."""
        state = dict(state)
        self.rng.bit_generator.state = state.pop("rng")
        self.num_told = state.pop("num_told")
        self.seen = set(state.pop("seen").tolist())
        self._load_state(state)

    def population(self) -> Population:
        """(P, G) what the searcher holds at present, best first where it ranks; for reports."""
        return np.empty((0, self.space.num_genes), dtype=np.int64)

    # ---- for subclasses -----------------------------------------------------------------------------------------

    @abstractmethod
    def _propose(self, num: int) -> tuple[Population, NDArray[np.int64]]:
        """About `num` valid candidates (M, G) and their parents (M, 2). An empty answer ends the search."""

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
        rows = candidates[indices]
        good = self.space.is_valid(rows)
        if self.budget.names:
            good &= self.budget.admits(self.cost(rows), len(rows))
        return indices[good][:most]

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
