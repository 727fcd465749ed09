"""The stage that searches: trials on Ray Tune, each a batch of architectures."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from nasray.cluster import RunFolder, run_search
from nasray.cluster.resources import cluster_address
from nasray.devices import choose_device
from nasray.experiment import EVALUATOR, SEARCHER, BudgetOptions, Experiment, describe_experiment
from nasray.options import PartOptions
from nasray.parts import make_evaluator, make_searcher, with_defaults
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
    """

    gives = frozenset({"architectures", "history"})

    def __init__(
        self,
        *,
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
        self.changes = {name: value for name, value in given.items() if value is not None}

    def experiment(self, experiment: Experiment) -> Experiment:
        """Return the experiment as this stage searches it, without stages."""
        return dataclasses.replace(experiment, **self.changes, stages={})

    def parts(self, experiment: Experiment) -> dict[str, PartOptions]:
        """See `Stage.parts`."""
        return {name: self.changes.get(name, getattr(experiment, name)) for name in ("searcher", "evaluator")}

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        own = self.experiment(site.experiment)
        if getattr(own.evaluator, "device", None) == "cuda" and not cluster_address(site.resources):
            choose_device("cuda")  # on a cluster another node may have one
        make_searcher(own).check_feasible()
        evaluator_references = list(references(own.evaluator))
        if evaluator_references and all(each.value not in site.stages for each in evaluator_references):
            evaluator: Any = make_evaluator(self._resolved(site, own))
            evaluator.check()

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return RunFolder(site.folder).is_finished()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        own = self._resolved(site, with_defaults(self.experiment(site.experiment)))
        assert own.batch_size is not None
        assert own.in_flight is not None
        run = RunFolder(site.folder)
        if site.name != SEARCH:
            run = RunFolder.open(run.path) if run.is_run() else RunFolder.create(run.path, describe_experiment(own))
        best = run_search(
            make_searcher(own),
            make_evaluator(own),
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
        own = with_defaults(self.experiment(site.experiment))
        trials = -(-own.evaluations // (own.batch_size or 1))
        return Work(trials=trials, text=f"{own.evaluations:,} evaluations by {own.searcher.name}, {own.evaluator.name}")

    def _resolved(self, site: Site, own: Experiment) -> Experiment:
        """Return the experiment with paths in place of the stages that its parts refer to."""
        return dataclasses.replace(own, searcher=site.resolved(own.searcher), evaluator=site.resolved(own.evaluator))
