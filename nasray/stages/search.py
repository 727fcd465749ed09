"""The stage that searches: trials on Ray Tune, each a batch of architectures."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import RunFolder, run_search
from nasray.cluster.leaders import in_turn
from nasray.cluster.ordering import Order
from nasray.cluster.resources import cluster_address
from nasray.devices import choose_device
from nasray.experiment import (
    EVALUATOR,
    SEARCHER,
    BudgetOptions,
    Experiment,
    PreselectOptions,
    describe_experiment,
    parse_description,
)
from nasray.filters.pruned import read_pruned
from nasray.options import PartOptions, make_part
from nasray.parts import Parts, make_parts
from nasray.searchers import Predictor, Searcher
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.budget import cost_scope
from nasray.spaces.ranges import MAX_BATCH, MAX_COUNT, MAX_IN_FLIGHT, Range, shortened
from nasray.spaces.references import From
from nasray.stages.base import SEARCH, Site, Stage, Work, references
from nasray.stages.outlook import Effort
from nasray.values import Seed


class SearchStage(Stage):
    """Search the space with trials on Ray Tune.

    What is left out is what the experiment says.

    Args:
        evaluations: Architectures to evaluate.
        batch_size: Architectures in one trial.
        in_flight: Trials at a time.
        order: Order in which trials are told to the searcher.
        seed: Seed of this search. Two stages that draw at random from the same space draw the same architectures unless
            one has a seed of its own.
        searcher: How to search.
        evaluator: What an architecture is worth.
        budget: Bounds on costs.
        minimize: Costs to minimize beside maximizing the score.
        pruned: Stage that pruned the space, or its file: architectures with pruned operations are not searched.
        preselect: Path filter that pre-selects what the searcher asks for; a stage of another name than `search` has
            none if left out.

    Attributes:
        experiment: Experiment as this stage searches it, without the other stages.
        parts: Parts of the search.
    """

    gives = frozenset({"architectures", "history"})
    leads = True

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        evaluations: Annotated[int, Range(1, MAX_COUNT)] | None = None,
        batch_size: Annotated[int, Range(1, MAX_BATCH)] | None = None,
        in_flight: Annotated[int, Range(1, MAX_IN_FLIGHT)] | None = None,
        order: Order | None = None,
        seed: Seed | None = None,
        searcher: Annotated[Any, SEARCHER] | None = None,
        evaluator: Annotated[Any, EVALUATOR] | None = None,
        budget: BudgetOptions | None = None,
        minimize: tuple[str, ...] | None = None,
        pruned: Annotated[str, From("restriction")] | None = None,
        preselect: PreselectOptions | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "evaluations": evaluations,
            "batch_size": batch_size,
            "in_flight": in_flight,
            "order": order,
            "seed": seed,
            "searcher": searcher,
            "evaluator": evaluator,
            "budget": budget,
            "minimize": minimize,
            "preselect": preselect,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        self.pruned = pruned
        self.parts, self.experiment = parts, dataclasses.replace(experiment, **changes, stages={})
        if changes or (experiment.preselect is None) != (parts.experiment.preselect is None):
            self.parts = make_parts(self.experiment, parts.space)
            self.experiment = self.parts.experiment

    def part_options(self) -> dict[str, Any]:
        """See `Stage.part_options`."""
        own = self.experiment
        parts = {"searcher": own.searcher, "evaluator": own.evaluator, "preselect": own.preselect}
        return {name: options for name, options in parts.items() if options is not None}

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        options: Any = self.experiment.evaluator
        if getattr(options, "device", None) == "cuda" and not cluster_address(site.resources):
            choose_device("cuda")  # on a cluster another node may have one
        self.parts.cost(self.parts.space.sample(1, np.random.default_rng(0)))  # a detector is built for it
        own, space = self.experiment, self.parts.space
        searcher: Any = own.searcher
        if self.pruned is not None and self.pruned not in site.stages:
            space = self._space(site)
        if _refers_to_files(site, searcher):
            own = dataclasses.replace(own, searcher=site.resolved(searcher))
            _make_parts(own, space).searcher.check_feasible()
        elif space is not self.parts.space:
            make_parts(own, space).searcher.check_feasible()
        else:
            self.parts.searcher.check_feasible()
        if _refers_to_files(site, options):
            own = dataclasses.replace(self.experiment, evaluator=site.resolved(options))
            evaluator: Any = make_parts(own, self.parts.space).evaluator
            evaluator.check()
            _check_search(evaluator, self.parts.searcher)
        if own.preselect is not None and _refers_to_files(site, own.preselect):
            self._path_filter(site, own.preselect)

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return RunFolder(site.folder).is_finished()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        own, parts = self._resolved(site), self.parts_at(site)
        if own.preselect is not None:
            parts.searcher.predictor = self._path_filter(site, own.preselect)
        assert own.batch_size is not None
        assert own.in_flight is not None
        _check_search(parts.evaluator, parts.searcher)
        run = RunFolder(site.folder)
        if site.name != SEARCH:
            run = RunFolder.open(run.path) if run.is_run() else RunFolder.create(run.path, describe_experiment(own))
        best = run_search(
            parts.searcher,
            parts.evaluator,
            run,
            evaluations=own.evaluations,
            batch_size=own.batch_size,
            in_flight=own.in_flight,
            order=own.order,
            resources=site.resources,
            from_history=site.from_history,
        )
        winner = best["best"][0]
        return {"id": winner["id"], **winner["metrics"], "evaluations": best["evaluations"]}

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        own = self.experiment
        searcher: Any = own.searcher
        evaluator: Any = own.evaluator
        trials = -(-own.evaluations // (own.batch_size or 1))
        text = f"{own.evaluations:,} evaluations by {searcher.name}, {evaluator.name}"
        if own.costs == "detector":
            text += f"; costs of the {cost_scope(self.parts.cost, self.parts.space)}"
        if self.pruned is not None:
            text += f"; operations pruned by {self.pruned} left out"
        return Work(trials=trials, text=text)

    def effort(self, site: Site) -> Effort:
        """See `Stage.effort`."""
        own, evaluator = self.experiment, self.experiment.evaluator
        assert evaluator is not None
        batches = sum(1 for _ in RunFolder(site.folder).history.glob("*.parquet"))
        done = min(batches * (own.batch_size or 1), own.evaluations)
        like = {name: value for name, value in vars(evaluator).items() if name not in evaluator.references}
        return Effort(own.evaluations, done, "evaluations", f"{like} {own.budget} {own.in_flight} at a time")

    def parts_at(self, site: Site) -> Parts:
        """Return the parts, made again with paths in place of stages, and the space pruned, where they refer to any.

        Raises:
            NasrayError: if what a stage gives is not there yet.
        """
        own = self._resolved(site)
        if own is self.experiment and self.pruned is None and not _takes_history(own):
            return self.parts
        return _make_parts(own, self._space(site))

    def _space(self, site: Site) -> Space:
        """Return the space, without the operations that are pruned."""
        space: Space = self.parts.space
        if self.pruned is None:
            return space
        path = site.file(self.pruned, "restriction")
        return read_pruned(path, space, cost=self.parts.cost).restricted(space)

    def _path_filter(self, site: Site, options: PreselectOptions) -> Predictor:
        from nasray.filters.filter import PathFilter

        return PathFilter.load(site.file(options.filter, "filter"), self.parts.space, cost=self.parts.cost)

    def _resolved(self, site: Site) -> Experiment:
        """Return the experiment with paths in place of the stages that its parts refer to."""
        own = self.experiment
        parts: tuple[Any, Any] = own.searcher, own.evaluator
        searcher, evaluator = map(site.resolved, parts)
        if (searcher, evaluator) == (own.searcher, own.evaluator):
            return own
        return dataclasses.replace(own, searcher=searcher, evaluator=evaluator)


def _check_search(evaluator: Any, searcher: Searcher) -> None:
    """Refuse a searcher that does not go with what the evaluator loads."""
    if hasattr(evaluator, "check_search"):
        evaluator.check_search(searcher)


def _refers_to_files(site: Site, options: Any) -> bool:
    """Return whether a part refers to files alone; what stages give is not there before they ran."""
    found = list(references(options))
    return bool(found) and not any(reference.is_of_stage(site.stages) for reference in found)


def _takes_history(experiment: Experiment) -> bool:
    return any(reference.what == "history" for reference in references(experiment.searcher))


def _make_parts(experiment: Experiment, space: Any) -> Parts:
    """Return the parts of a search whose references are paths."""
    rows, niches = listed_rows(experiment)
    return make_parts(experiment, space, rows=rows, niches=niches)


def listed_rows(experiment: Experiment) -> tuple[Population | None, NDArray[np.int64] | None]:
    """Return the architectures of the history that the searcher takes up, and their niches; None if it takes up none.

    Args:
        experiment: Experiment of one search, with the path of a run where its searcher refers to a history.

    Returns:
        (N, G) architectures that the run evaluated, best first as `in_turn` orders them by its searcher's objectives
        and niches, and (N,) these niches.

    Raises:
        NasrayError: if the run's space is another one, or its history is damaged.
    """
    for reference in references(experiment.searcher):
        if reference.what == "history":
            return _ranked_rows(RunFolder.open(reference.value), experiment)
    return None, None


def _ranked_rows(run: RunFolder, experiment: Experiment) -> tuple[Population, NDArray[np.int64]]:
    before = parse_description(run.description(), str(run.path))
    if before.space != experiment.space:
        raise NasrayError(
            f"{run.path} searched another space ({_described(before.space)}), this search has "
            f"{_described(experiment.space)}. Set space as it is there, or name another run"
        )
    parts = make_part(before.stages[SEARCH], experiment=before, parts=make_parts(before)).parts
    searcher, history = parts.searcher, run.read_history()
    values = searcher.objective_values(history.genes, {**history.costs, **history.metrics})
    niches = searcher.niches(history.genes)
    order = in_turn(values, niches)
    return history.genes[order], niches[order]


def _described(options: PartOptions) -> str:
    return ", ".join(f"{name} {shortened(value)}" for name, value in vars(options).items())
