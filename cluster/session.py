"""A Ray session for a run: an existing cluster, or a small local one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_CORES, MAX_RETRIES, check_number, check_whole, shortened

OBJECT_STORE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Resources:
    """What trials need and where they run.

    Attributes:
        cpus: CPU cores of one trial.
        gpus: GPUs of one trial; a fraction lets several share one.
        retries: how often a trial that failed is started again before the run stops.
        address: of a running Ray cluster ("auto", or host:port); by default the one that this process belongs to
            (RAY_ADDRESS), else one of its own on this machine.
        local_cpus: cores of that own one; all of this machine's by default.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3
    address: str | None = None
    local_cpus: int | None = None

    def __post_init__(self) -> None:
        check_number("cpus", self.cpus, 0, MAX_CORES)
        check_number("gpus", self.gpus, 0, MAX_CORES)
        check_whole("retries", self.retries, 0, MAX_RETRIES)
        if self.local_cpus is not None:
            check_whole("local_cpus", self.local_cpus, 1, MAX_CORES)
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


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[str]:
    """Be connected to Ray; gives one line that says what is there and what a trial needs.

    What trials print goes to Ray's own logs, not to the terminal; what they raise comes back as the run's error.

    Raises:
        NasrayError: if the cluster cannot be reached, or no node of it can hold a trial.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield _preflight(resources)
        return
    address = cluster_address(resources)
    with contextlib.ExitStack() as stack:
        if address:
            check_reachable(resources)
            _connect(address)
        else:
            folder = tempfile.mkdtemp(prefix="nr-", dir="/tmp" if os.path.isdir("/tmp") else None)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with _environment(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_enable_metrics_collection="0"):
                ray.init(
                    num_cpus=resources.local_cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        stack.callback(ray.shutdown)
        yield _preflight(resources)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_reachable(resources: Resources) -> None:
    """Raise `NasrayError` if a cluster is named by host and port and nothing listens there; starts nothing."""
    address = cluster_address(resources)
    if not address:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise _unreachable(address, error.strerror or str(error)) from error


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error).splitlines()[0]) from error


def cluster_address(resources: Resources) -> str | None:
    """Return the address of the cluster that is to be joined; None for a local session.

    Raises:
        NasrayError: if RAY_ADDRESS holds no address.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS")
    return check_address(address) if address else None


def _unreachable(address: str, reason: str) -> NasrayError:
    return NasrayError(
        f"no Ray cluster at {address!r}: {reason}. Start one with `ray start --head`, correct the address, "
        "or leave it out to run on this machine alone"
    )


def _preflight(resources: Resources) -> str:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    total = ray.cluster_resources()
    fits = sum(
        int(
            min(
                node["Resources"].get("CPU", 0.0) / resources.cpus,
                node["Resources"].get("GPU", 0.0) / resources.gpus if resources.gpus else float("inf"),
            )
            + 1e-9
        )
        for node in nodes
    )
    has = f"{len(nodes)} node{'s' * (len(nodes) != 1)}, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"
    needs = f"{resources.cpus:g} CPU{'s' * (resources.cpus != 1)}" + (
        f", {resources.gpus:g} GPU{'s' * (resources.gpus != 1)}" if resources.gpus else ""
    )
    if not fits:
        raise NasrayError(
            f"no node of the cluster can hold a trial: it needs {needs}; the cluster has {has}. "
            "Lower --resources.cpus or --resources.gpus, or add nodes"
        )
    return f"cluster: {has}; a trial needs {needs}; {fits} trial{'s' * (fits != 1)} at once"
