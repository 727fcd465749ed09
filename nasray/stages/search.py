"""The stage that searches: trials on Ray Tune, each a batch of architectures."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np

from nasray.cluster import RunFolder, run_search
from nasray.cluster.resources import cluster_address
from nasray.devices import choose_device
from nasray.experiment import EVALUATOR, SEARCHER, BudgetOptions, Experiment, describe_experiment
from nasray.options import PartOptions
from nasray.parts import Parts, make_parts, with_defaults
from nasray.spaces.budget import cost_scope
from nasray.spaces.ranges import MAX_BATCH, MAX_COUNT, MAX_IN_FLIGHT, Range
from nasray.stages.base import SEARCH, Site, Stage, Work, references


class SearchStage(Stage):
    """Search the space with trials on Ray Tune.

    What is left out is what the experiment says.

    Args:
        evaluations: Architectures to evaluate.
        batch_size: Architectures in one trial.
        in_flight: Trials at a time.
        searcher: How to search.
        evaluator: What an architecture is worth.
        budget: Bounds on costs.
        minimize: Costs to minimize beside maximizing the score.

    Attributes:
        experiment: Experiment as this stage searches it, without stages.
        parts: Parts of the search.
    """

    gives = frozenset({"architectures", "history"})

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        evaluations: Annotated[int, Range(1, MAX_COUNT)] | None = None,
        batch_size: Annotated[int, Range(1, MAX_BATCH)] | None = None,
        in_flight: Annotated[int, Range(1, MAX_IN_FLIGHT)] | None = None,
        searcher: Annotated[Any, SEARCHER] | None = None,
        evaluator: Annotated[Any, EVALUATOR] | None = None,
        budget: BudgetOptions | None = None,
        minimize: tuple[str, ...] | None = None,
    ) -> None:
        given: dict[str, Any] = {
            "evaluations": evaluations,
            "batch_size": batch_size,
            "in_flight": in_flight,
            "searcher": searcher,
            "evaluator": evaluator,
            "budget": budget,
            "minimize": minimize,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        self.parts, self.experiment = parts, dataclasses.replace(experiment, **changes, stages={})
        if changes:
            self.parts = make_parts(self.experiment, parts.space)
            self.experiment = with_defaults(self.experiment, self.parts.searcher)

    def part_options(self) -> dict[str, PartOptions]:
        """See `Stage.part_options`."""
        return {"searcher": self.experiment.searcher, "evaluator": self.experiment.evaluator}

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        options = self.experiment.evaluator
        if getattr(options, "device", None) == "cuda" and not cluster_address(site.resources):
            choose_device("cuda")  # on a cluster another node may have one
        self.parts.cost(self.parts.space.sample(1, np.random.default_rng(0)))  # a detector is built for it
        self.parts.searcher.check_feasible()
        evaluator_references = list(references(options))
        if evaluator_references and all(each.value not in site.stages for each in evaluator_references):
            evaluator: Any = self.parts_at(site).evaluator
            evaluator.check()

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return RunFolder(site.folder).is_finished()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        own, parts = self._resolved(site), self.parts_at(site)
        assert own.batch_size is not None
        assert own.in_flight is not None
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
            resources=site.resources,
            from_history=site.from_history,
        )
        winner = best["best"][0]
        return {"id": winner["id"], **winner["metrics"], "evaluations": best["evaluations"]}

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        own = self.experiment
        trials = -(-own.evaluations // (own.batch_size or 1))
        text = f"{own.evaluations:,} evaluations by {own.searcher.name}, {own.evaluator.name}"
        if own.costs == "detector":
            text += f"; costs of the {cost_scope(self.parts.cost, self.parts.space)}"
        return Work(trials=trials, text=text)

    def parts_at(self, site: Site) -> Parts:
        """Return the parts, made again with paths in place of stages where they refer to any.

        Raises:
            NasrayError: if what a stage gives is not there yet.
        """
        own = self._resolved(site)
        return self.parts if own is self.experiment else make_parts(own, self.parts.space)

    def _resolved(self, site: Site) -> Experiment:
        """Return the experiment with paths in place of the stages that its parts refer to."""
        own = self.experiment
        searcher, evaluator = site.resolved(own.searcher), site.resolved(own.evaluator)
        if (searcher, evaluator) == (own.searcher, own.evaluator):
            return own
        return dataclasses.replace(own, searcher=searcher, evaluator=evaluator)
