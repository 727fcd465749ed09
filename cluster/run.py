"""Run a search on Ray Tune, from its beginning or from wherever it was."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasray.cluster.files import disk_error
from nasray.cluster.interrupts import closing
from nasray.cluster.ordering import Order, OrderedSearch
from nasray.cluster.progress import counted, say, waiting
from nasray.cluster.recorder import Recorder
from nasray.cluster.resources import (
    Resources,
    count_actors,
    count_places,
    describe_needs,
    living_nodes,
    trial_class,
)
from nasray.cluster.run_folder import RunFolder
from nasray.cluster.session import ray_session
from nasray.cluster.tune_folder import newest_search, next_name, prepare
from nasray.searchers import Searcher
from nasray.spaces import NasrayError

MAX_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Variable of Tune's: trials that may wait for a place."""
TUNE_ENVIRONMENT = {
    MAX_PENDING: "auto",  # what a search sets is of that search alone
    # One run has one log, which the recorder writes: Tune's would cost five files and 10 ms a trial.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths, of a recipe say, mean what they mean to the command
    # Interrupts are the user's; the history is whole at every moment.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def run_search(
    searcher: Searcher,
    evaluator: Any,
    folder: RunFolder,
    *,
    evaluations: int,
    batch_size: int,
    in_flight: int,
    order: Order = "asked",
    resources: Resources | None = None,
    from_history: bool = False,
) -> dict[str, Any]:
    """Search until `evaluations` architectures are evaluated, and give the content of best.json.

    A folder that holds part of the search already is continued: the searcher must then be made as it was made the
    first time.

    Args:
        searcher: Fresh searcher, never asked.
        evaluator: Evaluator; see `nasray.cluster.trial.Evaluator`.
        folder: An open run.
        evaluations: Architectures to evaluate in all.
        batch_size: Architectures in one trial; hundreds where one costs microseconds, 1 where it is a training.
        in_flight: Trials at a time. The search depends on it (a batch is bred from what was told `in_flight` batches
            earlier), so it belongs to the experiment, not to the machine.
        order: Order in which batches are told; see `nasray.cluster.ordering`.
        resources: Resources of a trial, and where it runs.
        from_history: Whether to leave Tune's own state, which is pickled, unread, and to begin a new folder for it.

    Raises:
        NasrayError: for every mistake that the user can fix; the run can be continued after it.
    """
    resources = resources or Resources()
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight, order=order)
    search.fill()  # an infeasible budget shows here, before anything expensive starts

    recorder = Recorder(folder, search)
    done = recorder.catch_up()
    if done:
        say(f"{folder.path}: {done:,} of {evaluations:,} evaluations are in the history")
    if search.is_finished:
        recorder.finish()
        return folder.read_best()
    with search_session(resources) as summary:
        say(summary)
        if not getattr(evaluator, "closed_form", False) and (note := idle_places(living_nodes(), resources, in_flight)):
            say(note)
        # By itself Tune asks for a trial of a searcher once the one before has its place: one start at a time.
        os.environ[MAX_PENDING] = str(in_flight)
        with (
            explained_tune_errors(folder.tune),
            waiting(functools.partial(_missing, folder, resources, time.time()), after=15),
        ):
            tuner = _tuner(search, recorder, evaluator, folder, resources, from_history=from_history)
            _fit(tuner, folder, resources)
    return folder.read_best()


@contextlib.contextmanager
def search_session(resources: Resources) -> Iterator[str]:
    """Connect to Ray as `ray_session` does, and import Tune, with its settings, meanwhile."""
    os.environ.update(TUNE_ENVIRONMENT)
    with ray_session(resources, importing="nasray.cluster.adapter") as summary:
        yield summary


def idle_places(nodes: list[dict[str, float]], resources: Resources, in_flight: int) -> str | None:
    """Return what to say of room for more trials than a search has at a time; None where it uses all.

    Args:
        nodes: What each machine has; see `living_nodes`.
        resources: Resources of a trial.
        in_flight: Trials at a time.
    """
    places = count_places(nodes, resources.cpus, resources.gpus)
    if places <= in_flight:
        return None
    return (
        f"{counted(places, 'trial')} would fit at once, and in_flight lets {in_flight} run: the rest of the cluster "
        f"idles. in_flight {places} would use it, in a new run: a search that breeds from older ones is another"
    )


def _tuner(
    search: OrderedSearch,
    recorder: Recorder,
    evaluator: Any,
    folder: RunFolder,
    resources: Resources,
    *,
    from_history: bool,
) -> Any:
    """Return a Tuner that continues Tune's newest folder where it is sound, or begins one beside it."""
    from ray import tune

    from nasray.cluster.adapter import BatchGenerator, TuneSearchAlgorithm
    from nasray.cluster.trial import BatchTrial

    needs = {"cpu": resources.cpus, "gpu": resources.gpus}
    trainable = trial_class(BatchTrial, needs, evaluator=evaluator, timeout_s=resources.timeout_s)
    newest = newest_search(folder.tune)
    continued = None
    if newest is not None and not from_history:
        reason = prepare(newest, search.num_batches_told)
        if reason is None:
            continued = newest
        else:
            say(f"Tune's checkpoint {newest} is not used: {reason}. The history is complete; Tune begins a new folder")
    path = continued or folder.tune / next_name(newest)
    # Making a Tuner writes its tuner.pkl: what restoring reads from there is this session's searcher, replayed from the
    # history, and this session's resources.
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=BatchGenerator(TuneSearchAlgorithm(search, recorder), path), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=path.name,
            storage_path=str(folder.tune),
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    if continued is None:
        return tuner
    return tune.Tuner.restore(
        str(path), trainable=trainable, resume_unfinished=False, resume_errored=False, restart_errored=False
    )


def _missing(folder: RunFolder, resources: Resources, begin: float = 0.0) -> str | None:
    """Return what is waited for, as long as no batch is finished since a time; None while batches are."""
    import ray

    quiet = time.time() - max(begin, folder.history.stat().st_mtime)
    if quiet < 15:
        return None
    if trials := count_actors("Trial"):
        return f"{counted(trials, 'trial')} under way, none finished for {quiet:.0f} s"
    free, total = ray.available_resources(), ray.cluster_resources()
    names = ["CPU", "GPU"] if resources.gpus else ["CPU"]
    have = ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s" for name in names)
    needs = describe_needs(resources.cpus, resources.gpus)
    return f"waiting for a trial to start: it needs {needs}; free in the cluster are {have}"


def _fit(tuner: Any, folder: RunFolder, resources: Resources) -> None:
    from nasray.cluster.adapter import SESSION

    SESSION.retries, SESSION.errors, SESSION.recorder = resources.retries, [], None
    try:
        grid = tuner.fit()
    except KeyboardInterrupt:
        with closing():
            if SESSION.recorder is not None:
                SESSION.recorder.finish()
        raise
    except Exception as error:
        if SESSION.errors:
            raise SESSION.errors[0] from error
        raise
    if SESSION.errors:
        raise SESSION.errors[0]
    _raise_errors(grid, folder, resources)


@contextlib.contextmanager
def explained_tune_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk does to Tune in a folder, which raises it as it is or wrapped, into `NasrayError`."""
    for name in ("ray.tune", "ray.train"):  # what matters of their warnings and tracebacks is in the error raised here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except NasrayError:
        raise
    except Exception as error:
        cause: Any = error
        while cause is not None and not isinstance(cause, OSError):
            cause = getattr(cause, "cause", None) or cause.__cause__ or cause.__context__
        if cause is None or cause.errno is None or isinstance(cause, ConnectionError):
            raise
        raise disk_error(cause, Path(cause.filename or folder)) from error


def _raise_errors(grid: Any, folder: RunFolder, resources: Resources) -> None:
    if folder.is_finished():  # errors of an earlier session do not count any more
        return
    errors = [str(result.error).strip() for result in grid if result.error is not None]
    times = "once" if resources.retries == 0 else f"{resources.retries + 1} times"
    what = f"a batch failed {times}, and is not tried again: {errors[-1]}" if errors else "it stopped"
    if errors and resources.timeout_s is not None:
        what += f"\nA trial that takes longer than resources.timeout_s, {resources.timeout_s:g} s, has failed too"
    raise NasrayError(
        f"the search is not finished: {what}\nAll finished batches are in {folder.history}; fix the cause, then "
        f"`nasray resume {folder.path}`"
    )
