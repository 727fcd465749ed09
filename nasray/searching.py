"""Searches: from an experiment, or from a space and an evaluator of your own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nasray._version import __version__
from nasray.callbacks import Callback, make_callbacks
from nasray.cluster import (
    Resources,
    RunFolder,
    check_reachable,
    owned,
    refuse_owned,
    run_search,
    search_session,
)
from nasray.cluster.callbacks import heard_by, told_stage
from nasray.cluster.ordering import Order
from nasray.cluster.ownership import is_empty
from nasray.experiment import describe_experiment, version_changes
from nasray.loading import plan_of_run
from nasray.searchers import Evolution, Metrics, Searcher, default_batches
from nasray.spaces import Population, Space
from nasray.spaces.ranges import MAX_BATCH, MAX_IN_FLIGHT, check_whole
from nasray.stages import SEARCH, Plan, check_stages, read_recipes, resolve_recipes, run_stages, write_recipes


def search(
    space: Space,
    evaluator: Callable[[Population], Metrics],
    *,
    folder: str | Path,
    evaluations: int,
    searcher: Searcher | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    in_flight: int | None = None,
    order: Order = "asked",
    resources: Resources | None = None,
    resume: bool = False,
    from_history: bool = False,
    callbacks: Sequence[str | Callback] = (),
) -> dict[str, Any]:
    """Search a space of your own, and give the content of the run's best.json.

    Args:
        space: Space of the architectures.
        evaluator: Maps an (N, G) population to metrics, each an (N,) array; a searcher maximizes "score" unless told
            otherwise. Picklable; the same architecture gets the same metrics wherever it is evaluated.
        folder: The run's folder, empty or absent; with `resume`, the run to continue.
        evaluations: Architectures to evaluate.
        searcher: Fresh, over the same space; evolution by default. What it leaves out follows from `evaluations`.
        seed: Seed of the default searcher.
        batch_size: Architectures in one trial; a 64th of the evaluations by default, at most 1,024.
        in_flight: Trials at a time, 2 by default; the search depends on it.
        order: Order in which trials are told to the searcher: as they were `asked` for, which no worker changes, or as
            they `finished`, so that none waits for one that takes long.
        resources: Resources of a trial, and where it runs.
        resume: Whether to continue the run in `folder`. All other arguments must be as they were.
        from_history: With `resume`, leave Ray Tune's own state, which is pickled, unread: Tune begins anew.
        callbacks: Names and functions that hear every batch.

    Raises:
        NasrayError: for every mistake that can be fixed; the message says how.
    """
    check_whole("evaluations", evaluations, 1)
    searcher = searcher or Evolution(space, seed=seed)
    defaults = default_batches(evaluations)
    batch_size = defaults[0] if batch_size is None else batch_size
    in_flight = defaults[1] if in_flight is None else in_flight
    check_whole("batch_size", batch_size, 1, MAX_BATCH)
    check_whole("in_flight", in_flight, 1, MAX_IN_FLIGHT)
    description = {
        "space": space.family,
        "searcher": type(searcher).__name__,
        "evaluations": evaluations,
        "batch_size": batch_size,
        "in_flight": in_flight,
        "order": order,
        "versions": {"nasray": __version__},
    }
    searcher.check_feasible()
    options: dict[str, Any] = {
        "evaluations": evaluations,
        "batch_size": batch_size,
        "in_flight": in_flight,
        "order": order,
        "resources": resources,
        "from_history": from_history,
    }
    run = RunFolder(folder)
    # A session that was killed before it began anything leaves nothing but its sign of ownership.
    if resume and (run.is_run() or not run.path.is_dir() or not is_empty(run.path)):
        run = RunFolder.open(folder)
        heard = heard_by(make_callbacks((), callbacks, is_begun=True), run.path)
        with owned(run.path), heard, told_stage(run.path, SEARCH, is_begun=True, is_done=run.is_finished()):
            return run_search(searcher, evaluator, run, **options)
    heard = heard_by(make_callbacks((), callbacks), run.path)
    with _new_run(run, resources or Resources()):
        run = RunFolder.create(folder, description)
        with heard, told_stage(run.path, SEARCH, is_begun=False):
            return run_search(searcher, evaluator, run, **options)


@contextmanager
def _new_run(run: RunFolder, resources: Resources) -> Iterator[None]:
    """Own the folder of a new run and be connected to Ray, so that nothing is left behind where Ray does not start."""
    refuse_owned(run.path)
    run.refuse_occupied()
    with owned(run.path), search_session(resources):
        yield


def search_experiment(plan: Plan, folder: str | Path, *, callbacks: Sequence[str | Callback] = ()) -> dict[str, Any]:
    """Begin an experiment's run in an empty folder.

    Args:
        plan: Plan of the experiment; each run needs one of its own, whose searcher was not asked before.
        folder: Folder of the run, empty or absent.
        callbacks: Names and functions that hear the run, beside those of the experiment.

    Returns:
        Content of best.json, and of stages.json under `stages`.

    Raises:
        NasrayError: for every mistake that can be fixed, before anything is written or takes long.
    """
    resources, recipes = plan.resources, resolve_recipes(plan)
    refuse_owned(folder)
    RunFolder(folder).refuse_occupied()
    check_reachable(resources)
    check_stages(plan, recipes, resources)
    heard = heard_by(make_callbacks(plan.experiment.callbacks, callbacks), Path(folder))
    with _new_run(RunFolder(folder), resources), heard:
        run = RunFolder.create(folder, describe_experiment(plan.experiment))
        write_recipes(run, recipes)
        return run_stages(plan, run, resources)


def resume_experiment(
    folder: str | Path,
    resources: Resources | None = None,
    *,
    from_history: bool = False,
    callbacks: Sequence[str | Callback] = (),
) -> dict[str, Any]:
    """Continue a run.

    Args:
        folder: Folder of the run.
        resources: What trials need from now on, instead of what the experiment says.
        from_history: Whether to leave Ray Tune's own state, which is pickled, unread: Tune begins anew.
        callbacks: Names and functions that hear the run, beside those of the experiment.

    Returns:
        Content of best.json, and of stages.json under `stages`.
    """
    run = RunFolder.open(folder)
    plan = plan_of_run(run)
    for line in version_changes(run.description()):
        print(f"nasray: {line}", file=sys.stderr)
    resources = resources or plan.resources
    heard = heard_by(make_callbacks(plan.experiment.callbacks, callbacks, is_begun=True), run.path)
    with owned(run.path), heard:
        if read_recipes(run, plan) is None:  # interrupted before they were written
            recipes = resolve_recipes(plan)
            check_stages(plan, recipes, resources)
            write_recipes(run, recipes)
        return run_stages(plan, run, resources, from_history=from_history)
