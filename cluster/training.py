"""Run a training loop on Ray: one process or many, on one machine or a cluster, started again when one is lost.

The loop keeps its own checkpoints in the run's folder, which all machines share, and goes on from the last of them
whenever it is called again. Ray starts the processes and notices when one dies; Ray Train connects several for PyTorch.
What passes between the loop and whoever started it goes by small files in the folder's `ray/`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasray.cluster.board import Board, watch
from nasray.cluster.interrupts import closing
from nasray.cluster.log_tail import LogTail
from nasray.cluster.progress import counted, say
from nasray.cluster.resources import Resources, count_places, describe_needs, hide_unassigned_gpus, living_nodes
from nasray.cluster.session import ray_session
from nasray.spaces import NasrayError

ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # importing PyTorch takes long on a busy machine
}
TRACE = "error.txt"
"""What a training leaves in its folder when it has failed too often."""
ANSWER = 60.0
"""Seconds in which a machine must answer to be counted on after a failure."""


def _ignore(*_: Any) -> None:
    """Tell nobody."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        rank: Rank from 0.
        world: Number of workers.
        device: "cpu" or "cuda:N".
        progress: Function called with steps done, steps in all, and a text; the first worker's reaches the user.
        say: Function called with a line for the user.
        should_stop: Whether the user wants the training to save its state and to stop; asked between steps.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    progress: Callable[[int, int, str], None] = _ignore
    say: Callable[[str], None] = say
    should_stop: Callable[[], bool] = _never


@dataclass(frozen=True)
class Group:
    """The workers of a training.

    Attributes:
        workers: Number of workers.
        cpus: Cores of each; its share of the cluster's if None.
        gpus: GPUs of each, 0 or 1; 1 if None and the cluster has enough.
        retries: How often the training starts again after a worker is lost.
        address: Address of a running Ray cluster; see `nasray.cluster.resources.Resources`.
        divides: What the workers divide among them, such as the images of a step; None for nothing.
    """

    workers: int = 1
    cpus: float | None = None
    gpus: int | None = None
    retries: int = 3
    address: str | None = None
    divides: int | None = None


@contextlib.contextmanager
def training_session(address: str | None, workers: int) -> Iterator[None]:
    """Connect to Ray as `ray_session` does, and import meanwhile what so many workers need, with its settings."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    with ray_session(Resources(address=address), importing="ray.train.torch" if workers > 1 else "torch"):
        yield


def run_training(loop: Callable[[Any, Worker], object], config: Any, *, folder: Path, group: Group) -> None:
    """Run a loop in all workers, until all of them have returned.

    Args:
        loop: Function called in each worker with `config` and its `Worker`; it continues from its own checkpoints.
        config: Argument of `loop`: anything that can be pickled.
        folder: Folder of the run; it exists, and all machines see it.
        group: The workers.

    Raises:
        NasrayError: that the loop raised, unchanged; or if the cluster cannot hold the workers, or the loop failed
            more often than the group's retries.
        KeyboardInterrupt: if the user interrupted the training, or ended it by SIGTERM; the loop was asked to save
            its state before.
    """
    board = Board(folder / "ray")
    with training_session(group.address, group.workers):
        for name in ("ray.train", "ray.tune"):  # what matters of their tracebacks is in the error raised here
            logging.getLogger(name).setLevel(logging.CRITICAL)
        fitted(group, living_nodes())
        try:
            board.clear()
            prepare = functools.partial(_fit_to_cluster, loop, config, board, group, [])
            _run_again(prepare, board, folder, group.retries)
        finally:
            with closing():
                shutil.rmtree(board.folder, ignore_errors=True)


def _fit_to_cluster(
    loop: Callable[[Any, Worker], object], config: Any, board: Board, asked: Group, before: list[Group], attempt: int
) -> Callable[[], None]:
    """Return what runs the loop once, on as many of the workers that were asked for as there is room for now.

    `before` holds the groups of the attempts before, and gets this one.
    """
    if attempt == 0 or not before:
        group = fitted(asked, living_nodes())
    else:  # with GPUs if it had them: one that lost them does not crawl on without
        group = largest_fitted(replace(asked, gpus=before[-1].gpus), _answering_nodes())
    say(_describe(group) + (f" (of {asked.workers} asked for)" if group.workers < asked.workers else ""))
    before.append(group)
    board.needs, board.needs_gpus = _describe(group), bool(group.gpus)
    return functools.partial(_fit, loop, config, board, group)


def largest_fitted(group: Group, nodes: list[dict[str, float]]) -> Group:
    """Return the group, as `fitted`, with fewer workers if not all fit: the maximum that divides their work.

    Args:
        group: Group as requested.
        nodes: `CPU` and `GPU` of each machine.

    Raises:
        NasrayError: if the machines cannot hold a single worker.
    """
    for workers in range(group.workers, 1, -1):
        if group.divides is None or group.divides % workers == 0:
            with contextlib.suppress(NasrayError):
                return fitted(replace(group, workers=workers), nodes)
    return fitted(replace(group, workers=1), nodes)


def fitted(group: Group, nodes: list[dict[str, float]]) -> Group:
    """Return the group with its resources decided.

    Args:
        group: Group as requested.
        nodes: `CPU` and `GPU` of each machine.

    Raises:
        NasrayError: if the machines cannot hold it.
    """
    num_cpus = sum(node.get("CPU", 0.0) for node in nodes)
    num_gpus = sum(node.get("GPU", 0.0) for node in nodes)
    gpus = group.gpus if group.gpus is not None else int(num_gpus >= group.workers)
    if gpus:
        candidates = [node for node in nodes if node.get("GPU", 0.0) >= 1]
        share = min((node.get("CPU", 0.0) // node["GPU"] for node in candidates), default=1.0)
    else:
        candidates = nodes
        share = min(num_cpus // group.workers, max((node.get("CPU", 0.0) for node in nodes), default=1.0))
    cpus = group.cpus or max(share, 1.0)
    places = count_places(candidates, cpus, gpus)
    if places < group.workers:
        gpu_text = f" and {gpus} GPU" if gpus else ""
        raise NasrayError(
            f"the cluster has room for {places} of {counted(group.workers, 'worker')} with {counted(cpus, 'CPU')}"
            f"{gpu_text} each: it has {counted(len(nodes), 'node')}, {counted(num_cpus, 'CPU')}, "
            f"{counted(num_gpus, 'GPU')}. Lower --resources.workers or --resources.cpus, set --resources.gpus 0, or "
            "add nodes"
        )
    return replace(group, cpus=cpus, gpus=gpus)


def num_places(group: Group) -> int | None:
    """Return for how many trainings by one worker there is room at a time; None without a session of Ray to ask."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    nodes = living_nodes()
    with contextlib.suppress(NasrayError):
        each = fitted(group, nodes)
        return count_places(nodes, each.cpus or 1, each.gpus or 0)
    return None


def _answering_nodes() -> list[dict[str, float]]:
    """Return the machines that answer: Ray takes a lost one for alive for half a minute."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    if len(nodes) == 1:
        return list(nodes.values())
    here = ray.remote(num_cpus=0, max_retries=0)(_nothing)
    asked = {
        here.options(scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False)).remote(): key for key in nodes
    }
    ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
    answered = []
    for reference, key in asked.items():
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(reference, timeout=0)
            answered.append(nodes[key])
    return answered


def _nothing() -> None:
    """Answer."""


def _describe(group: Group) -> str:
    each = describe_needs(group.cpus or 1, group.gpus or 0)
    return f"{counted(group.workers, 'worker')}: {each}" + (" each" if group.workers > 1 else "")


def _run_again(prepare: Callable[[int], Callable[[], None]], board: Board, folder: Path, retries: int) -> None:
    """Run what `prepare` returns for each attempt, again where it failed by no mistake of its user's."""
    # Ray's own retries would also repeat what the user has to fix.
    log = LogTail(folder)
    for attempt in range(retries + 1):
        error = watch(prepare(attempt), board, lambda raised: _reason(_failures(raised)), [log])
        if error is None:
            return
        failures = _failures(error)
        for failure in failures:
            if isinstance(cause := _cause(failure), NasrayError):
                raise cause
        if attempt < retries:
            say(f"{_reason(failures)}; starting again from the last checkpoint")
    trace = folder / TRACE
    with contextlib.suppress(OSError):
        trace.write_text("\n\n".join(map(str, failures)))
    raise NasrayError(
        f"the training is not finished, after {retries} restarts: {_reason(failures)} (all of it is in {trace})\n"
        "Fix the cause, then `nasray resume` of the run continues from the last checkpoint"
    ) from error


def _fit(loop: Callable[[Any, Worker], object], config: Any, board: Board, group: Group) -> None:
    """Run the loop once: in an actor if it is alone, which starts in a fraction of Ray Train's time, else by that."""
    theirs = Board(board.folder)  # the one here has a line on the terminal
    work = functools.partial(_work, loop, config, theirs, group)
    if group.workers == 1:
        import ray

        kind: Any = ray.remote(num_cpus=group.cpus or 1, num_gpus=group.gpus or 0, max_restarts=0)(TrainWorker)
        actor = kind.remote()
        ray.get(actor.run.remote(work))
        return
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        functools.partial(_work_in_group, work),
        torch_config=TorchConfig(backend="nccl" if group.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=group.workers,
            use_gpu=bool(group.gpus),
            resources_per_worker={"CPU": group.cpus, **({"GPU": 1} if group.gpus else {})},
        ),
        run_config=RunConfig(
            name=f"train-{time.time_ns()}",  # under a name that it knows Ray would restore what it had
            storage_path=str(board.folder),
            failure_config=FailureConfig(max_failures=0),
        ),
    ).fit()


class TrainWorker:
    """The actor of a training of one worker."""

    def run(self, work: Callable[[Worker], object]) -> None:
        """Do the work."""
        work(Worker())


def _work_in_group(work: Callable[[Worker], object]) -> None:
    """Run the loop in a worker of several."""
    from ray import train
    from ray.train.torch import get_device

    context = train.get_context()
    work(Worker(context.get_world_rank(), context.get_world_size(), str(get_device())))


def _work(loop: Callable[[Any, Worker], object], config: Any, board: Board, group: Group, worker: Worker) -> None:
    """Run the loop in a worker."""
    hide_unassigned_gpus()
    assert group.cpus is not None
    compute_on(group.cpus)
    if group.gpus and worker.world == 1:
        worker = replace(worker, device="cuda:0")  # of those that Ray lets it see
    if worker.rank == 0:  # it alone writes; the others wait for it until Ray ends them
        worker = replace(worker, progress=board.progress, say=board.say, should_stop=board.should_stop)
    loop(config, worker)


def compute_on(cpus: float) -> None:
    """Let PyTorch compute with a thread for every whole core; Ray says one in the environment, whatever there is.

    The last bits of sums depend on this number alone, not on whether a training is alone or one of several.
    """
    import torch

    torch.set_num_threads(max(int(cpus), 1))


# ---- failures ----------------------------------------------------------------------------------------------------


def _failures(error: BaseException) -> list[BaseException]:
    """Return what went wrong in workers, in the order of their ranks, or else in Ray."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    return [failures[rank] for rank in sorted(failures)] or [getattr(error, "controller_failure", error)]


def _cause(failure: BaseException) -> BaseException:
    """Return what a worker raised, of what Ray (`cause`) or Ray Train made of it."""
    return getattr(failure, "_base_exc", None) or getattr(failure, "cause", None) or failure


def _reason(failures: list[BaseException]) -> str:
    """Return a one-line description of the likely root failure; other workers usually fail only as a consequence."""
    import ray

    for failure in failures:
        if isinstance(cause := _cause(failure), NasrayError):
            return str(cause)
        if hasattr(failure, "health_check_failure") or isinstance(failure, ray.exceptions.RayActorError):
            return "a worker's process has died (killed, out of memory, or its machine is gone)"
    cause = _cause(failures[0])
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"a worker failed with {type(cause).__name__}: {lines[-1] if lines else ''}"
