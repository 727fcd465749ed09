"""The parts of a search, made once of what an experiment says: space, searcher, evaluator.

An experiment says what a part is called and with which options; whatever does not go together is refused here.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.architectures.scaling import scaled_within
from nasray.cluster.progress import counted
from nasray.cluster.resources import Resources
from nasray.counting import costs_of, counted_cost
from nasray.evaluators import EVALUATORS
from nasray.experiment import EVALUATOR, SEARCHER, BudgetOptions, Experiment
from nasray.finding import find_architecture
from nasray.options import PartOptions, make_part
from nasray.searchers import Objective, RandomSearch, Searcher, default_batches
from nasray.spaces import Architecture, Budget, CostFunction, NasrayError, Population, Space
from nasray.spaces.ranges import shortened

if TYPE_CHECKING:
    from nasray.cluster.trial import Evaluator


TO_BUDGET = re.compile(r"(.+)@budget")
"""What a published network is called that is scaled in width to the budget."""
SCALED_BY = ("gmacs", "params_m")
"""Costs that grow with the width of a network."""


class Searching(NamedTuple):
    """What an experiment with a stage that searches has beside its space.

    Attributes:
        searcher: How to search, within which budget, by which costs; fresh.
        evaluator: What an architecture is worth; an option that names a stage is still that name.
    """

    searcher: Searcher
    evaluator: Evaluator


@dataclass(frozen=True)
class Parts:
    """The parts of an experiment.

    Attributes:
        space: What can be built.
        cost: What is counted of it, measured latency left out.
        budget: Bounds on costs.
        bounded: What the budget bounds: `cost`, and measured latency where it is asked for.
        searching: Searcher and evaluator; None where no stage searches.
        experiment: The experiment with what it left open written out, so that a run keeps it.
    """

    space: Any
    cost: CostFunction
    budget: Budget
    bounded: CostFunction
    searching: Searching | None
    experiment: Experiment

    @property
    def searcher(self) -> Searcher:
        """The searcher.

        Raises:
            NasrayError: if no stage searches.
        """
        return self._searching().searcher

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator.

        Raises:
            NasrayError: if no stage searches.
        """
        return self._searching().evaluator

    def _searching(self) -> Searching:
        if self.searching is None:
            raise NasrayError(
                f"{self.experiment.name} has no searcher and no evaluator: none of its stages is of kind search. It "
                f"has {_kinds(self.experiment)}. Take a run that evaluates architectures one by one"
            )
        return self.searching

    def named(self, name: str) -> Architecture:
        """Return what `find_architecture` finds; NAME@budget is the widest scaling of a network within the budget.

        It is within each of the budget's bounds of `gmacs` and `params_m`; its other costs are not looked at.

        Args:
            name: Name from `nasray list architectures`, also with @budget behind it, file or folder.

        Raises:
            NasrayError: if the budget bounds neither, there is no such network, or it cannot be scaled that far.
        """
        match = TO_BUDGET.fullmatch(name)
        return find_architecture(name) if match is None else self._scaled_to_budget(match[1])

    def _scaled_to_budget(self, name: str) -> Architecture:
        bounds = {cost: self.budget.upper[cost] for cost in SCALED_BY if cost in self.budget.upper}
        base = find_architecture(name)
        if not bounds:
            raise NasrayError(
                f"{name}@budget is {name} scaled to the budget, which has no upper bound of {' or '.join(SCALED_BY)} "
                f"({self.budget}). Set budget.gmacs, or a factor, such as {name}@0.5"
            )

        def cost_of(cost: str, architecture: Architecture) -> float:
            return costs_of(architecture, self.cost, self.space).get(cost, math.inf)

        try:
            found = [scaled_within(base, bound, partial(cost_of, cost)) for cost, bound in bounds.items()]
        except NasrayError as error:
            raise NasrayError(f"{name}@budget: {error}") from None
        return min(found, key=partial(cost_of, next(iter(bounds))))

    def random_searcher(self, seed: int) -> Searcher:
        """Return a fresh random searcher of the same space and budget."""
        return RandomSearch(self.space, budget=self.budget, cost=self.bounded, seed=seed)

    def random_architectures(self, num: int, seed: int) -> list[Architecture]:
        """Return random architectures within the budget, those that a random search begins with.

        The first ones are the same whatever their number.

        Raises:
            NasrayError: if there are fewer.
        """
        searcher = self.random_searcher(seed)
        found: list[Architecture] = []
        while len(found) < num:
            genes = searcher.ask(1).genes  # one at a time: of a batch the first ones depend on its size
            if not len(genes):
                raise NasrayError(
                    f"{counted(num, 'random architecture')}: within the budget there are {len(found)}. Ask for fewer"
                )
            found.append(searcher.space.to_architecture(genes[0]))
        return found


def make_parts(
    experiment: Experiment,
    space: Space | None = None,
    *,
    searches: bool = True,
    rows: Population | None = None,
    niches: NDArray[np.int64] | None = None,
) -> Parts:
    """Make the parts of an experiment, and complete the experiment by them.

    Args:
        experiment: Experiment.
        space: Its space, if it is made already.
        searches: Whether a stage searches, so that there are a searcher and an evaluator.
        rows: (N, G) architectures that another search found, for a searcher that takes them up.
        niches: (N,) niche of each in that search.

    Raises:
        NasrayError: for whatever does not go together.
    """
    space = space or make_part(experiment.space)
    cost, counted = counted_cost(experiment, space)
    budget, bounded = make_budget(experiment.budget), _with_latency(experiment, space, cost)
    if not searches:
        _refuse_searching(experiment)
        complete = dataclasses.replace(experiment, counted=counted)
        return Parts(space, cost, budget, bounded, None, complete)
    asked, valued = experiment.searcher or SEARCHER.make_default(), experiment.evaluator or EVALUATOR.make_default()
    _check_fit(valued, space)
    objectives = (Objective("score"), *(Objective(name, "min") for name in _minimized(experiment, space)))
    batch_size, in_flight = default_batches(experiment.evaluations)
    preselection = _preselection(experiment)
    searcher: Searcher = make_part(
        asked,
        space=space,
        budget=budget,
        cost=bounded,
        objectives=objectives,
        seed=experiment.seed,
        evaluations=experiment.evaluations,
        rows=rows,
        niches=niches,
        **preselection,
    )
    evaluator: Evaluator = make_part(valued, space=space, seed=experiment.seed, cost=bounded, budget=budget)
    complete = dataclasses.replace(
        experiment,
        counted=counted,
        batch_size=experiment.batch_size or batch_size,
        in_flight=experiment.in_flight or in_flight,
        searcher=dataclasses.replace(asked, **searcher.options()),
        evaluator=valued,
    )
    return Parts(space, cost, budget, bounded, Searching(searcher, evaluator), complete)


def _refuse_searching(experiment: Experiment) -> None:
    """Refuse what only a stage that searches uses."""
    default = Experiment(name=experiment.name)
    for key in ("searcher", "evaluator", "evaluations", "batch_size", "in_flight", "order", "minimize", "preselect"):
        if getattr(experiment, key) != getattr(default, key):
            kinds = _kinds(experiment)
            raise NasrayError(f"{key} is of stages of kind search, and there is none: {kinds}. Leave {key} out")


def _kinds(experiment: Experiment) -> str:
    """Return the stages of an experiment, each with its kind, as a text."""
    return ", ".join(f"{name} ({options.kind})" for name, options in experiment.stages.items())


def _preselection(experiment: Experiment) -> dict[str, Any]:
    """Return what a searcher is given to pre-select by: a predictor that the run puts its path filter in place of."""
    if experiment.preselect is None:
        return {}
    return {"predictor": _no_filter_yet, "oversample": experiment.preselect.candidates}


def _no_filter_yet(population: Population) -> NDArray[np.float64]:
    raise AssertionError(f"asked for guesses of {len(population)} architectures before the path filter was loaded")


def make_budget(options: BudgetOptions) -> Budget:
    """Make bounds on costs from their options."""
    bounds = {name: value for name, value in vars(options).items() if value is not None}
    return Budget(
        upper={name: value for name, value in bounds.items() if not name.startswith("min_")},
        lower={name.removeprefix("min_"): value for name, value in bounds.items() if name.startswith("min_")},
    )


def _with_latency(experiment: Experiment, space: Any, cost: CostFunction) -> CostFunction:
    """Return costs with measured latency where the experiment asks for it."""
    given = {name: value for name, value in vars(experiment.latency).items() if value is not None}
    if experiment.budget.latency_ms is not None or "latency_ms" in experiment.minimize:
        from nasray.latency import LatencyCost

        bound_ms = experiment.budget.latency_ms
        return LatencyCost(space, cost=cost, bound_ms=bound_ms, resources=trial_resources(experiment), **given)
    if given:
        raise NasrayError(
            f"latency.{next(iter(given))} is for searches with a bound on latency_ms, or that minimize it. Leave it "
            "out, or set budget.latency_ms"
        )
    return cost


def _minimized(experiment: Experiment, space: Space) -> tuple[str, ...]:
    known = [*space.cost(np.empty((0, space.num_genes), dtype=np.int64)), "latency_ms"]
    for index, name in enumerate(experiment.minimize):
        if name not in known or name in experiment.minimize[:index]:
            what = "twice the same cost" if name in known else "unknown cost"
            raise NasrayError(
                f"minimize: {what} {shortened(name)}; the score is maximized, and these costs can be minimized beside "
                f"it: {', '.join(known)}"
            )
    return experiment.minimize


def _check_fit(options: PartOptions, space: Space) -> None:
    """Refuse an evaluator that does not go with the space."""
    if reason := why_unfit(EVALUATORS.part(options.part_name), space):
        others = [other for other in EVALUATORS if _is_fit(other, space)]
        raise NasrayError(
            f"evaluator {options.part_name!r} {reason}; space {space.family!r} does not fit. "
            f"{'Take one of ' + ', '.join(others) if others else 'There is none that does'}"
        )


def _is_fit(evaluator: str, space: Space) -> bool:
    try:
        return why_unfit(EVALUATORS.part(evaluator), space) is None
    except NasrayError:  # of another package, that cannot be imported
        return False


def why_unfit(part: Any, space: Space) -> str | None:
    """Return why a part does not go with a space, as its `fits(space)` says; None if it does."""
    reason: str | None = part.fits(space) if hasattr(part, "fits") else None
    return reason


def trial_resources(experiment: Experiment) -> Resources:
    """Return what a trial needs and where it runs."""
    return Resources(**vars(experiment.resources))
