"""What trials need, where they run, and what Ray has assigned to this process."""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from nasray.cluster.progress import counted
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_CORES, MAX_RETRIES, MAX_SECONDS, check_number, check_whole, shortened


@dataclass(frozen=True)
class Resources:
    """What trials need and where they run.

    Attributes:
        cpus: CPU cores of one trial.
        gpus: GPUs of one trial; a fraction lets several share one.
        retries: How often a trial that failed is started again before the run stops.
        address: Address of a running Ray cluster ("auto", host:port); by default the one that this process belongs to
            (RAY_ADDRESS), else one of its own on this machine.
        local_cpus: Cores of that own one; all of this machine's by default.
        timeout_s: Seconds after which a trial that has not finished has failed, as one that hangs; never by default.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3
    address: str | None = None
    local_cpus: int | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        check_number("cpus", self.cpus, 0, MAX_CORES)
        check_number("gpus", self.gpus, 0, MAX_CORES)
        check_whole("retries", self.retries, 0, MAX_RETRIES)
        if self.local_cpus is not None:
            check_whole("local_cpus", self.local_cpus, 1, MAX_CORES)
        if self.timeout_s is not None:
            check_number("timeout_s", self.timeout_s, 1, MAX_SECONDS)
        if self.address is not None:
            check_address(self.address)
        if not self.cpus:
            raise NasrayError("cpus is more than 0: a trial needs a share of a core; got 0")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise NasrayError(f"gpus above 1 are whole numbers, below it a share of one; got {self.gpus:g}")


def check_address(address: str) -> str:
    """Return the address of a running cluster.

    Raises:
        NasrayError: if it is none.
    """
    if address not in ("auto", "local"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 2**16
        if not is_port or not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise NasrayError(
                f"{shortened(address)} is no address of a Ray cluster. Give HOST:PORT, as `ray start --head` prints "
                "it, or auto"
            )
    return address


def cluster_address(resources: Resources) -> str | None:
    """Return the address of the cluster that is to be joined; None for a local session.

    Raises:
        NasrayError: if RAY_ADDRESS holds no address.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS")
    return check_address(address) if address else None


def is_connected() -> bool:
    """Return whether this process is connected to Ray; a process that has not imported it is not."""
    return "ray" in sys.modules and importlib.import_module("ray").is_initialized()


def living_nodes() -> list[dict[str, float]]:
    """Return what each machine of the cluster has: `CPU`, `GPU`."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def count_places(nodes: list[dict[str, float]], cpus: float, gpus: float) -> int:
    """Count the trials or workers that machines have room for.

    Args:
        nodes: What each machine has.
        cpus: Cores of one trial or worker.
        gpus: GPUs of one, or its share of one.
    """
    rooms = (min(node.get("CPU", 0.0) / cpus, node.get("GPU", 0.0) / gpus if gpus else float("inf")) for node in nodes)
    return sum(int(room + 1e-9) for room in rooms)


def describe_needs(cpus: float, gpus: float) -> str:
    """Return cores and GPUs as a text; without GPUs they are not named."""
    return counted(cpus, "CPU") + (f", {counted(gpus, 'GPU')}" if gpus else "")


def describe_free(gpus: float) -> str:
    """Return what is free in the cluster as a text, GPUs only for those who need some."""
    import ray

    free = ray.available_resources()
    return counted(free.get("CPU", 0), "CPU") + (f", {counted(free.get('GPU', 0), 'GPU')}" if gpus else "")


def trial_class(trainable: type, needs: dict[str, float], **parameters: Any) -> Any:
    """Return a class of Tune's with what each of its trials needs, and with parameters that are sent once to all.

    Its actors bear the name of the class that it is made of, by which `count_actors` finds them; Tune calls all alike.

    Args:
        trainable: Subclass of `ray.tune.Trainable`.
        needs: `cpu` and `gpu` of one trial.
        parameters: Keywords of its `setup`.
    """
    from ray import tune

    made: Any = tune.with_resources(tune.with_parameters(trainable, **parameters), needs)
    made.__name__ = made.__qualname__ = trainable.__name__
    return made


def count_actors(name: str) -> int:
    """Count the living actors of this job whose class has `name` in its own."""
    import ray
    from ray._private.state import actors

    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    living = [actor for actor in actors(job_id=job).values() if actor["State"] == "ALIVE"]
    return sum(name in actor["ActorClassName"] for actor in living)


def assigned_gpus() -> list[str] | None:
    """Return the ids of the GPUs that Ray assigned to this trial or worker; None outside of Ray's own processes."""
    if not is_connected():
        return None
    import ray

    context = ray.get_runtime_context()
    return context.get_accelerator_ids().get("GPU", []) if context.worker.mode == ray.WORKER_MODE else None


def assigned_cpus() -> float:
    """Return the cores that Ray assigned to this trial or worker; outside of Ray's own processes all there are."""
    if is_connected():
        import ray

        context = ray.get_runtime_context()
        if context.worker.mode == ray.WORKER_MODE:
            return float(context.get_assigned_resources().get("CPU", 1.0))
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def hide_unassigned_gpus() -> None:
    """Let CUDA see no GPU in a process to which Ray assigned none; Ray itself lets it see all."""
    if assigned_gpus() == []:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
