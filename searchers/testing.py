"""Conformance of searchers: run `check_searcher` on your own searcher from your own tests.

Plain functions that raise `AssertionError` with what was wrong.

Shapes: N architectures in a population, G genes in a row.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import SCORE, Metrics, Objective, Proposal, Searcher
from nasray.spaces import Budget, CostFunction, Costs, Gene, InfeasibleError, NasrayError, Population, Space, row_keys
from nasray.spaces.testing import all_rows

MakeSearcher = Callable[..., Searcher]
"""`make_searcher(space, **options)` with the options of `Searcher`: budget, cost, objectives, seed."""

Check = Callable[[MakeSearcher, Space, int], None]


class ToySpace(Space):
    """A small space whose genes depend on each other: two layers of a width and a kind; a width of 0 has no kind.

    Args:
        widths: Number of widths; the space has (3 * widths + 1)**2 architectures.
    """

    family = "toy"

    def __init__(self, *, widths: int = 8) -> None:
        kind = (0, 1, 2)
        width = tuple(range(widths + 1))
        self.genes = (
            Gene("first.width", width),
            Gene("first.kind", kind, ordered=False),
            Gene("second.width", width),
            Gene("second.kind", kind, ordered=False),
        )

    def repair(self, population: Population) -> Population:
        """Set the kind of an absent layer to none."""
        repaired = population.copy()
        repaired[:, 1] *= repaired[:, 0] > 0
        repaired[:, 3] *= repaired[:, 2] > 0
        return repaired

    def cost(self, population: Population) -> Costs:
        """Return `gmacs`: what the widths times one more than the kinds add up to."""
        layers = population.reshape(-1, 2, 2).astype(np.float64)
        return {"gmacs": (layers[:, :, 0] * (1 + layers[:, :, 1])).sum(axis=1)}


def check_searcher(
    make_searcher: MakeSearcher,
    *,
    spaces: Sequence[Space] | None = None,
    num: int = 48,
    exhaustive: bool = True,
    fresh_process: bool = False,
) -> None:
    """Run every check of `SEARCHER_CHECKS` in every space.

    Args:
        make_searcher: Called as `make_searcher(space, budget=..., cost=..., objectives=..., seed=...)`, some of
            these options.
        spaces: Spaces to search; `ToySpace` by default.
        num: Architectures that a search asks for.
        exhaustive: Whether the searcher, left alone, finds every architecture of a tiny space.
        fresh_process: Whether to search in a new Python process as well; `make_searcher` is pickled for that.

    Raises:
        AssertionError: naming the first broken rule, with the offending values.
    """
    for space in spaces or (ToySpace(),):
        for check in SEARCHER_CHECKS:
            check(make_searcher, space, num)
    check_tiny_space(make_searcher, exhaustive=exhaustive)
    if fresh_process:
        check_fresh_process(make_searcher, num)


def toy_metrics(space: Space, genes: Population, objectives: tuple[Objective, ...] = SCORE) -> Metrics:
    """Return a smooth metric for every objective: how near the genes, scaled to [0, 1], are to a point of their own."""
    low = np.array([gene.values[0] for gene in space.genes], dtype=np.float64)
    high = np.array([gene.values[-1] for gene in space.genes], dtype=np.float64)
    scaled = (genes - low) / np.maximum(high - low, 1.0)
    metrics = {}
    for number, objective in enumerate(objectives):
        aim = np.linspace(0.9, 0.4, space.num_genes) if number % 2 == 0 else np.linspace(0.1, 0.6, space.num_genes)
        metrics[objective.name] = -objective.sign * ((scaled - aim) ** 2).sum(axis=1)
    return metrics


def run_search(
    searcher: Searcher, num: int, *, batch: int = 8, metrics: Callable[[Population], Metrics] | None = None
) -> list[Proposal]:
    """Ask for `num` architectures in batches and tell their `toy_metrics`; the last proposal can be empty."""
    measure = metrics or partial(toy_metrics, searcher.space, objectives=searcher.objectives)
    proposals: list[Proposal] = []
    while (asked := sum(len(proposal) for proposal in proposals)) < num:
        proposal = searcher.ask(min(batch, num - asked))
        proposals.append(proposal)
        if not len(proposal):
            break
        searcher.tell(proposal.genes, measure(proposal.genes))
    return proposals


# ---- checks ---------------------------------------------------------------------------------------------------------


def check_proposals(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that proposals are valid, within the budget, new, as many as asked for; parents were told before."""
    searcher = make_searcher(space, seed=1, **_median_budget(space))
    seen: set[int] = set()
    for batch in (1, 7, 2, num):
        told = searcher.num_told
        proposal = searcher.ask(batch)
        genes, parents = proposal.genes, proposal.parents
        assert genes.shape == (batch, space.num_genes), f"ask({batch}) returns genes of shape {genes.shape}"
        assert genes.dtype == np.int64, f"ask returns genes of dtype {genes.dtype}, not int64"
        assert len(proposal) == batch, f"a proposal of {batch} has the length {len(proposal)}"
        assert parents.shape == (batch, 2), f"ask({batch}) returns parents of shape {parents.shape}"
        _assert_rows(genes, space.is_valid(genes), "asked for an invalid architecture")
        costs = searcher.cost(genes)
        _assert_rows(genes, searcher.budget.admits(costs, batch), f"outside of the budget ({searcher.budget})")
        for row, key in zip(genes.tolist(), row_keys(genes).tolist(), strict=True):
            assert key not in seen, f"asked for {row} twice"
            seen.add(key)
        inside = (parents >= -1) & (parents < told)
        assert inside.all(), f"parents {parents[~inside].tolist()} while {told} evaluations (from 0) were told"
        searcher.tell(genes, toy_metrics(space, genes, searcher.objectives))
        assert searcher.num_told == told + batch, f"num_told is {searcher.num_told} instead of {told + batch}"
    empty = searcher.ask(0)
    assert len(empty) == 0, f"ask(0) returns {len(empty)} architectures"
    assert empty.genes.shape == (0, space.num_genes), f"ask(0) returns genes of shape {empty.genes.shape}"
    held = searcher.population()
    assert held.shape == (len(held), space.num_genes), f"population has shape {held.shape}"


def check_lower_bounds(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that lower bounds are met too."""
    options = _median_budget(space)
    budget = Budget(lower=options.pop("budget").upper)
    searcher = make_searcher(space, seed=2, budget=budget, **options)
    for proposal in run_search(searcher, min(num, 16)):
        within = budget.admits(searcher.cost(proposal.genes), len(proposal))
        _assert_rows(proposal.genes, within, f"outside of the budget ({budget})")


def check_unknown_cost(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that a budget on a cost that nothing measures is a `NasrayError` that names it."""
    del num
    error = _error_of(lambda: make_searcher(space, budget=Budget(upper={"no-such-cost": 1.0})))
    assert error is not None, "a budget on no-such-cost was taken without a word"
    assert "no-such-cost" in str(error), f"the message does not name the unknown cost: {error}"


def check_objectives(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check the number of objectives that the searcher states, in both directions; none, or one more, is an error."""
    most = make_searcher(space).max_objectives
    many = tuple(Objective(f"metric-{i}", "min" if i % 2 else "max") for i in range(most + 1))
    for objectives in ((), many):
        error = _error_of(partial(make_searcher, space, objectives=objectives))
        assert error is not None, f"{len(objectives)} objectives were taken, 1 to {most} are allowed"
    for objectives in (many[:1], many[1:2], many[: min(most, 2)]):
        searcher = make_searcher(space, objectives=objectives, seed=3)
        proposals = run_search(searcher, min(num, 16))
        assert searcher.num_told == sum(map(len, proposals)), f"the search over {objectives} broke off"
    searcher = make_searcher(space, objectives=many[:1])
    error = _error_of(partial(searcher.tell, searcher.ask(1).genes, {"another-metric": np.zeros(1)}))
    assert error is not None, "metrics without the objective were taken without a word"
    assert "metric-0" in str(error), f"the message does not name the missing objective: {error}"


def check_nan_is_worst(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that a search that is told NaN goes on like one that is told the worst value there is."""
    for objective in (Objective("score", "max"), Objective("score", "min")):
        objectives, worst = (objective,), -np.inf * objective.sign
        asked = []
        for value in (np.nan, worst):
            searcher = make_searcher(space, objectives=objectives, seed=4)
            measure = partial(_spoilt_metrics, space, objectives, value)
            asked.append(_genes(run_search(searcher, min(num, 24), metrics=measure)))
        _assert_same_rows(asked[0], asked[1], f"NaN is not taken as {worst}, where {objective.direction} is sought")


def check_same_seed(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that the seed alone decides the search; numpy's global generator has no say."""
    options = _median_budget(space)
    first = _genes(run_search(make_searcher(space, seed=5, **options), num))
    np.random.random(3)  # noqa: NPY002  the generator that a searcher must not use
    _assert_same_rows(first, _genes(run_search(make_searcher(space, seed=5, **options), num)), "the same seed")
    other = _genes(run_search(make_searcher(space, seed=6, **options), num))
    assert first.shape != other.shape or (first != other).any(), "seeds 5 and 6 ask for the same architectures"


def check_save_and_load(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that state saved at any moment and loaded into a fresh searcher ends as the uninterrupted search does.

    Batches are asked for two ahead of what is told, so that every save but the first and the last has some pending, and
    are told as searches of the order "finished" tell them: now the oldest, now the one after it.
    """
    options = {"seed": 7, **_median_budget(space)}
    batch = max(num // 6, 1)

    def search(searcher: Searcher, *, restarts: bool) -> Population:
        pending: list[Population] = []
        asked: list[Population] = []
        for number in range(6):
            if restarts:
                # A searcher with another seed: everything has to come from the state.
                state = pickle.dumps(searcher.state_dict())
                searcher = make_searcher(space, **{**options, "seed": 8})
                searcher.load_state_dict(pickle.loads(state))
            pending.append(searcher.ask(batch).genes)
            asked.append(pending[-1])
            if len(pending) > 2:
                genes = pending.pop(number % 2)
                searcher.tell(genes, toy_metrics(space, genes, searcher.objectives))
        return np.concatenate(asked)

    straight = search(make_searcher(space, **options), restarts=False)
    _assert_same_rows(straight, search(make_searcher(space, **options), restarts=True), "save and load")


def check_saving_changes_nothing(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that `state_dict` and `check_feasible` leave the searcher as it was; a kept state is a snapshot."""
    options = {"seed": 9, **_median_budget(space)}
    searcher, other = make_searcher(space, **options), make_searcher(space, **options)
    searcher.check_feasible()
    few = max(num // 4, 1)
    _assert_same_rows(_genes(run_search(searcher, few)), _genes(run_search(other, few)), "check_feasible")
    state = searcher.state_dict()
    following = _genes(run_search(searcher, few))
    _assert_same_rows(following, _genes(run_search(other, few)), "state_dict")
    other.load_state_dict(state)
    _assert_same_rows(following, _genes(run_search(other, few)), "going back to a state kept in memory")


def check_infeasible(make_searcher: MakeSearcher, space: Space, num: int) -> None:
    """Check that a budget that nothing meets is an `InfeasibleError` of `ask` and `check_feasible`, in bounded work."""
    del num
    for act in (lambda searcher: searcher.ask(4), lambda searcher: searcher.check_feasible()):
        counter = _CountingCost()
        searcher = make_searcher(space, budget=Budget(upper={"one": 0.5}), cost=counter)
        searcher.max_tries = 30
        error = _error_of(partial(act, searcher))
        assert isinstance(error, InfeasibleError), f"a budget that nothing meets raised {error!r}"
        assert "0.5" in str(error), f"the message does not name the bound: {error}"
        allowed = 2 * searcher.max_tries + 8192
        assert counter.rows <= allowed, f"{counter.rows} costs were computed for max_tries={searcher.max_tries}"


SEARCHER_CHECKS: tuple[Check, ...] = (
    check_proposals,
    check_lower_bounds,
    check_unknown_cost,
    check_objectives,
    check_nan_is_worst,
    check_same_seed,
    check_save_and_load,
    check_saving_changes_nothing,
    check_infeasible,
)


def check_tiny_space(make_searcher: MakeSearcher, *, exhaustive: bool = True) -> None:
    """Check that none of 49 architectures is asked for twice, and no batch is short before all were; then it ends.

    Args:
        make_searcher: Function that makes a searcher; see `check_searcher`.
        exhaustive: Whether every architecture has to be found; else the search may end early.
    """
    space = ToySpace(widths=2)
    every = all_rows(space)
    searcher = make_searcher(space, seed=10)
    # By the time it gives up, an evolution has had its share of random newcomers; samplers of Optuna are slow.
    searcher.max_tries = 50_000 if exhaustive else 20
    proposals = run_search(searcher, 2 * len(every))
    found = _genes(proposals)
    assert len(np.unique(found, axis=0)) == len(found), "an architecture was asked for twice"
    assert len(found) <= len(every), f"{len(found)} architectures of {len(every)} were asked for"
    assert not len(proposals[-1]), "a search of an exhausted space did not end with an empty proposal"
    if exhaustive:
        assert len(found) == len(every), f"{len(found)} of {len(every)} architectures were found"
        short = [len(proposal) for proposal in proposals[:-1] if len(proposal) < 8]
        assert len(short) <= 1, f"batches of {short} instead of 8 before the space was exhausted"


def check_fresh_process(make_searcher: MakeSearcher, num: int = 48) -> None:
    """Check that a new Python process, where strings hash differently, asks for the same."""
    job = pickle.dumps((make_searcher, num))
    # "-P" keeps the working directory off the path, as an installed program has it.
    command = [sys.executable, "-P", "-c", f"from {__name__} import _search_from_stdin as search; search()"]
    done = subprocess.run(command, input=job, capture_output=True, check=False)
    assert done.returncode == 0, f"the search in a new process failed:\n{done.stderr.decode()[-2000:]}"
    there = np.array(pickle.loads(done.stdout.rpartition(b"\n--\n")[2]))
    _assert_same_rows(_seeded_search(make_searcher, num), there, "a fresh process")


def _search_from_stdin() -> None:
    make_searcher, num = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(b"\n--\n" + pickle.dumps(_seeded_search(make_searcher, num).tolist(), protocol=0))


def _seeded_search(make_searcher: MakeSearcher, num: int) -> Population:
    space = ToySpace()
    return _genes(run_search(make_searcher(space, seed=11, **_median_budget(space)), num))


# ---- parts of checks ------------------------------------------------------------------------------------------------


def _error_of(act: Callable[[], Any]) -> NasrayError | None:
    """Return the user's error that `act` raises, or None; other exceptions pass."""
    try:
        act()
    except NasrayError as error:
        return error
    return None


class _CountingCost:
    """A cost `one` that is 1 for every architecture, and counts for how many it was asked."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, population: Population) -> Costs:
        self.rows += len(population)
        return {"one": np.ones(len(population))}


def _gene_total(population: Population) -> Costs:
    return {"total": population.sum(axis=1).astype(np.float64)}


def _median_budget(space: Space) -> dict[str, Any]:
    """Return options `budget` (the median of the space's first cost) and, where it has none, `cost`."""
    rows = space.sample(257, np.random.default_rng(0))
    own: CostFunction = space.cost
    cost = own if own(rows) else _gene_total
    name, values = next(iter(cost(rows).items()))
    budget = Budget(upper={name: float(np.median(values))})
    return {"budget": budget} if cost is own else {"budget": budget, "cost": cost}


def _spoilt_metrics(space: Space, objectives: tuple[Objective, ...], value: float, genes: Population) -> Metrics:
    metrics = toy_metrics(space, genes, objectives)
    return {name: np.where(np.arange(len(genes)) % 3 == 0, value, column) for name, column in metrics.items()}


def _genes(proposals: list[Proposal]) -> Population:
    return np.concatenate([proposal.genes for proposal in proposals])


def _assert_rows(genes: Population, good: NDArray[np.bool_], what: str) -> None:
    bad = np.flatnonzero(~good)
    assert not len(bad), f"{what}: {genes[bad[0]].tolist()} ({len(bad)} of {len(genes)})"


def _assert_same_rows(left: Population, right: Population, what: str) -> None:
    assert left.shape == right.shape, f"{what}: asked for {len(left)} and {len(right)} architectures"
    differs = np.flatnonzero((left != right).any(axis=1))
    if len(differs):
        first = int(differs[0])
        raise AssertionError(f"{what}: ask {first} is {left[first].tolist()} and {right[first].tolist()}")
