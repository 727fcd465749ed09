"""The contract of a searcher: ask for architectures, tell their metrics.

Shapes: N architectures, G genes, O objectives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.newcomers import Newcomers
from nasray.spaces import Budget, CostFunction, Costs, NasrayError, Population, Space, row_keys
from nasray.spaces.ranges import MAX_SEED, check_whole

Metrics = dict[str, NDArray[np.float64]]
Predictor = Callable[[Population], NDArray[np.float64]]
NO_PARENT = -1
MAX_OVERSAMPLE = 1_000
NEWCOMER, OWN = 0, 1
"""Kinds of children: those that owe nothing to what was told, and whatever a searcher has one kind of."""


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

    A subclass writes `_kinds` (how many children of which kind), `_propose` (candidates of a kind, good or not) and
    `_learn` (what evaluations teach), lists its state in `_state`, and leaves validity, budget, duplicates and
    newcomers to this class. Evaluations are numbered in the order in which they are told.

    The kinds of the children are drawn first, and each kind is filled up to its quota with candidates that are valid,
    within the budget and new: a budget that refuses one kind more often than another does not shift their shares. What
    cannot be filled (`max_patience`) goes to newcomers, and is counted in `num_replaced`.

    Args:
        space: Space of the architectures.
        budget: Bounds on costs; every architecture asked for meets them.
        cost: Function that returns the bounded costs; the space's own by default.
        objectives: Objectives; several only where the searcher says so.
        seed: Same seed, same search.
        evaluations: Architectures that the search will evaluate, from which the defaults of the searcher's options
            follow; an `OrderedSearch` sets it where it is left out.
        predictor: Function that returns (N,) guesses, larger is better, of what (N, G) rows are worth. With it, `ask`
            finds `oversample` times as many candidates as it is asked for and returns those of the best guesses, in
            each of the searcher's niches by itself. Where it has a method `bucket_of`, which returns (N,) numbers,
            guesses of different numbers do not compare either.
        oversample: Candidates for each architecture asked for, where there is a predictor.

    Raises:
        NasrayError: for a budget on a cost that nothing measures, or objectives that the searcher cannot serve.
    """

    max_objectives: int = 1
    # Candidates refused in a row before ...
    max_patience = 2_000  # ... newcomers take the place of a kind, from the list of what is left in a small space
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
        self.is_stuck = False  # whether more than `patience` candidates in a row were refused within this `ask`
        self.patience = self.max_patience  # less after an `ask` that got stuck, so that the next one gets there sooner
        self.num_replaced = 0  # newcomers in the place of another kind
        self.shortfall = ""  # why the last `ask` gave fewer than it was asked for
        self.newcomers = Newcomers(space, self.budget, self.cost, self.rng)
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
        """Return up to `num` new architectures; fewer only if none can be found at present, and `shortfall` says why.

        Raises:
            InfeasibleError: if no architecture within the budget was ever found.
        """
        self.is_stuck, self.shortfall = False, ""
        kinds = self._kinds(num)
        genes = np.empty((num, self.space.num_genes), dtype=np.int64)
        parents = np.full((num, 2), NO_PARENT)
        missing = np.zeros(num, dtype=bool)
        for kind in sorted(set(kinds.tolist()) - {NEWCOMER}):
            places = np.flatnonzero(kinds == kind)
            found = self._selected(kind, len(places))
            genes[places[: len(found)]], parents[places[: len(found)]] = found.genes, found.parents
            missing[places[len(found) :]] = True
        places = np.flatnonzero((kinds == NEWCOMER) | (missing & (self.shortfall == "")))
        if len(places):
            found = self._selected(NEWCOMER, len(places))
            genes[places[: len(found)]] = found.genes
            self.num_replaced += int(missing[places[: len(found)]].sum())
            missing[places] = np.arange(len(places)) >= len(found)
        self.patience = max(self.patience // 4, 32) if self.is_stuck else min(2 * self.patience, self.max_patience)
        if not self.seen and num:
            raise self.newcomers.infeasible(self.max_tries)
        self.shortfall = self.shortfall if missing.any() else ""
        return Proposal(genes[~missing], parents[~missing])

    def _selected(self, kind: int, num: int) -> Proposal:
        """Return up to `num` new architectures of a kind: the best by the predictor's guess, where there is one.

        As many are of each niche as there would be without a predictor; guesses compare inside a niche alone.
        """
        proposal = self._find(kind, num if self.predictor is None else self.oversample * num, enough=num)
        if self.predictor is None or len(proposal) <= num:
            return proposal
        guesses = np.nan_to_num(self.predictor(proposal.genes), nan=-np.inf)
        is_kept = best_of_niches(guesses, self._compared(proposal.genes), num)
        keys = row_keys(proposal.genes[~is_kept]).tolist()
        self.seen.difference_update(keys)
        self.newcomers.mark(keys, is_left=True)
        return Proposal(proposal.genes[is_kept], proposal.parents[is_kept])

    def _compared(self, genes: Population) -> NDArray[np.int64]:
        """Return (N,) the niche of each row inside which guesses compare: the searcher's, and the predictor's own."""
        niches = self.niches(genes)
        bucket_of = getattr(self.predictor, "bucket_of", None)
        if bucket_of is None:
            return niches
        both = np.stack([niches, bucket_of(genes)], axis=1)
        return np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)

    def _find(self, kind: int, num: int, *, enough: int) -> Proposal:
        """Return up to `num` new architectures of a kind; no more than `enough` if more are hard to find."""
        genes = [np.empty((0, self.space.num_genes), dtype=np.int64)]
        parents = [np.empty((0, 2), dtype=np.int64)]
        found, tried, refused = 0, 0, 0
        while found < num and not (self.is_stuck and found >= enough):
            # More than is missing, by the share that was refused so far, so that few rounds are needed.
            share = max((found + 1) / (tried + 1), 1 / 16)
            size = int((num - found) * min(1.25 / share, 16.0)) + 1
            if refused >= 256:
                size = max(size, min(refused, 4096))
            candidates, origin = self._candidates(kind, num if kind == NEWCOMER and not tried else size)
            if not len(candidates):
                self.shortfall = "nothing is left to propose"
                break
            accepted = self._admissible(candidates, num - found)
            self._mark_seen(candidates[accepted])
            genes.append(candidates[accepted])
            parents.append(origin[accepted])
            found += len(accepted)
            tried += len(candidates)
            refused = 0 if len(accepted) else refused + len(candidates)
            self.is_stuck |= refused > self.patience
            if refused > min(self.patience, self.max_tries) and (kind != NEWCOMER or self._is_used_up):
                break
            if refused > self.max_tries:
                self.shortfall = f"{refused:,} candidates in a row were known already or outside of the budget"
                break
        if kind == NEWCOMER:
            self.newcomers.remember(np.concatenate(genes))
            if self.is_stuck and found < num and self._is_used_up:
                self.shortfall = f"all {len(self.seen):,} architectures of the space within the budget were asked for"
        return Proposal(np.concatenate(genes), np.concatenate(parents))

    def _candidates(self, kind: int, num: int) -> tuple[Population, NDArray[np.int64]]:
        """Return about `num` candidates of a kind and their parents; newcomers are of the budget, but perhaps known."""
        if kind != NEWCOMER:
            return self._propose(num, kind)
        left = self.newcomers.left(self.seen, self.max_tries) if self.is_stuck else None
        if left is not None:
            rows = left[self.rng.choice(len(left), size=min(num, len(left)), replace=False)]
        else:
            most = min(self.max_samples, self.max_tries)
            rows = self.newcomers.draw(num, max_samples=most, max_tries=self.max_tries)
        return rows, np.full((len(rows), 2), NO_PARENT)

    def tell(self, genes: Population, metrics: Metrics) -> None:
        """Learn the metrics of architectures asked for before, in the order in which they were asked for.

        Args:
            genes: (N, G) rows.
            metrics: Every objective (that is not a cost) as an (N,) array; NaN is the worst value there is.
        """
        values = self.objective_values(genes, metrics)
        numbers = np.arange(self.num_told, self.num_told + len(genes))
        self.num_told += len(genes)
        self._learn(genes, values, numbers)

    def check_feasible(self) -> None:
        """Find an architecture within the budget, or raise `InfeasibleError`; leaves the searcher as it was."""
        state = self.rng.bit_generator.state
        try:
            self.newcomers.seeds(1, self.max_tries)
        finally:
            self.rng.bit_generator.state = state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that influences what comes next, picklable."""
        return {
            "rng": self.rng.bit_generator.state,
            "num_told": self.num_told,
            "seen": np.fromiter(self.seen, dtype=np.uint64, count=len(self.seen)),
            "patience": self.patience,
            "num_replaced": self.num_replaced,
            "walkers": self.newcomers.walkers,
            **self._state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly as the searcher that gave `state` would have; made with the same arguments."""
        state = dict(state)
        self.rng.bit_generator.state = state.pop("rng")
        self.num_told = state.pop("num_told")
        self.seen = set(state.pop("seen").tolist())
        self.patience, self.num_replaced = state.pop("patience"), state.pop("num_replaced")
        self.newcomers.walkers = state.pop("walkers")
        self.newcomers.forget_list()
        self._load_state(state)

    def population(self) -> Population:
        """Return (P, G) what the searcher holds at present, best first where it ranks; for reports."""
        return np.empty((0, self.space.num_genes), dtype=np.int64)

    def niches(self, genes: Population) -> NDArray[np.int64]:
        """Return (N,) the niche of each row, such as an interval of a cost; scores of different niches do not compare.

        `best.json` holds the best of every niche.
        """
        return np.zeros(len(genes), dtype=np.int64)

    def notes(self) -> list[str]:
        """Return what the user should know of the search so far, a sentence each; sentences are added, none goes."""
        return []

    def options(self) -> dict[str, Any]:
        """Return the searcher's own options as they are in force, those that were left out included."""
        return {}

    # ---- for subclasses -----------------------------------------------------------------------------------------

    def _kinds(self, num: int) -> NDArray[np.int64]:
        """Return (num,) the kinds of the next children: `NEWCOMER`, or numbers from 1 that `_propose` knows."""
        return np.full(num, OWN)

    @abstractmethod
    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        """Return about `num` valid candidates (M, G) of a kind but newcomers, and their parents (M, 2), good or not.

        No candidate at all means that there are no more, and newcomers do not take their place.
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
        """Return (N, O) objectives with signs so that larger is better; minus infinity for NaN."""
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
        """Return the indices of the first `most` candidates that are new, valid and within the budget."""
        keys = row_keys(candidates).tolist()
        first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))  # of equal rows the first counts
        fresh = [index for key, index in first.items() if key not in self.seen]
        indices = np.sort(np.array(fresh, dtype=np.int64))
        return indices[self.newcomers.is_admissible(candidates[indices])][:most]

    def _mark_seen(self, rows: Population) -> None:
        """Mark rows that are never asked for again."""
        keys = row_keys(rows).tolist()
        self.seen.update(keys)
        self.newcomers.mark(keys, is_left=False)

    @property
    def _is_used_up(self) -> bool:
        """Whether nothing is left for certain."""
        left = self.newcomers.left(self.seen, self.max_tries)
        return left is not None and not len(left)


def best_of_niches(guesses: NDArray[np.float64], niches: NDArray[np.int64], num: int) -> NDArray[np.bool_]:
    """Return (N,) which `num` candidates are kept: as many of each niche as among the first `num`, its best ones.

    Args:
        guesses: (N,) larger is better; of equal ones the earlier is kept.
        niches: (N,) niche of each candidate.
        num: Number of candidates to keep, at most N.
    """
    is_kept = np.zeros(len(guesses), dtype=bool)
    order = np.argsort(-guesses, kind="stable")
    for niche in np.unique(niches[:num]):
        members = order[niches[order] == niche]
        is_kept[members[: np.count_nonzero(niches[:num] == niche)]] = True
    return is_kept
