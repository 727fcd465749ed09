"""A Ray session for a run: an existing cluster, or a small local one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasray.cluster.interrupts import closing, interruptible
from nasray.cluster.joining import check_reachable, environment, imported_meanwhile, join, last_line, ray_keeps_handlers
from nasray.cluster.progress import counted, say, waiting
from nasray.cluster.resources import (
    Resources,
    cluster_address,
    count_places,
    describe_needs,
    is_connected,
    living_nodes,
)
from nasray.cluster.scratch import scratch_folder
from nasray.spaces import NasrayError

OBJECT_STORE_BYTES = 128 * 2**20
STARTS = 3
"""How often a local Ray is started before it is given up: on a busy machine it misses its own fixed 30 seconds."""
LOCAL_ENVIRONMENT = {
    # A thread of PyTorch's that waits for another gives its core away soon: where other work holds a core, small
    # networks compute a hundred times slower otherwise (benchmarks/busy_machine.py).
    "GOMP_SPINCOUNT": "4000",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # where no GPU is assigned, none is seen
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # Ray's own is 15, which starves a run beside other work
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system, this makes Ray listen on 127.0.0.1 alone
}


@contextlib.contextmanager
def ray_session(resources: Resources, *, importing: str | None = None) -> Iterator[str]:
    """Connect to Ray, starting a local instance if needed, and yield a one-line summary of its resources.

    What trials print goes to Ray's own logs, not to the terminal; what they raise comes back as the run's error.
    Within the context, signals raise `KeyboardInterrupt`; see `nasray.cluster.interrupts`.

    Args:
        resources: What trials need and where they run.
        importing: Name of a module to import meanwhile: that takes seconds of this process's time, starting Ray takes
            seconds of others'.

    Raises:
        NasrayError: if the cluster cannot be reached or joined, Ray does not start, or no node can hold a trial.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        if not is_connected():
            check_reachable(resources)
            address = cluster_address(resources)
            if address:
                join(address, resources, stack, importing)
            else:
                _start(resources, stack, importing)
        elif importing:
            importlib.import_module(importing)
        yield _preflight(resources)


# ---- a Ray of one's own ------------------------------------------------------------------------------------------


def _start(resources: Resources, stack: contextlib.ExitStack, importing: str | None) -> None:
    """Start Ray on this machine, for as long as the stack lives."""
    settings = {name: os.environ.get(name, value) for name, value in LOCAL_ENVIRONMENT.items()}
    stack.enter_context(environment({**settings, **_own_token()}))
    import ray

    stack.enter_context(_loopback())
    with imported_meanwhile(importing):
        _start_anew(ray, resources, stack)


def _start_anew(ray: Any, resources: Resources, stack: contextlib.ExitStack) -> None:
    """Start Ray, a few times if it must be, each in a session of its own."""
    for attempt in range(1, STARTS + 1):
        with contextlib.ExitStack() as this_time:
            folder = this_time.enter_context(scratch_folder())
            this_time.callback(_end, folder)
            try:
                with waiting("waiting for Ray to start on this machine"), ray_keeps_handlers(), _groups_of_their_own():
                    ray.init(
                        address="local",
                        num_cpus=resources.local_cpus,
                        include_dashboard=False,
                        object_store_memory=OBJECT_STORE_BYTES,
                        _temp_dir=str(folder),
                        logging_level=logging.ERROR,
                        log_to_driver=False,
                    )
            except Exception as error:
                reason = last_line(error)
                if attempt == STARTS or isinstance(error, OSError | ValueError | TypeError):
                    times = "" if attempt == 1 else f", {attempt} times in a row"
                    raise NasrayError(
                        f"Ray did not start on this machine{times}: {reason}. On a busy machine end other work and try "
                        "again, or join a running cluster with --resources.address"
                    ) from error
                say(f"Ray did not start: {reason}. Trying again with a fresh session ({attempt + 1} of {STARTS})")
                continue
            stack.push(this_time.pop_all())
            return


@contextlib.contextmanager
def _groups_of_their_own() -> Iterator[None]:
    """Let processes that Ray starts lead process groups of their own.

    Terminals, `timeout` and schedulers signal a whole group: without its Ray, this process could not end in order.
    """
    from ray._private import services

    before: Any = getattr(services, "ConsolePopen", None)
    if before is None:
        yield
        return
    setattr(services, "ConsolePopen", functools.partial(before, process_group=0))  # noqa: B010
    try:
        yield
    finally:
        setattr(services, "ConsolePopen", before)  # noqa: B010


def _end(folder: Path) -> None:
    """Disconnect from a local Ray and end its processes, also those of a start that failed half-way."""
    import psutil  # comes with Ray
    import ray

    with closing():
        family = [child for child in psutil.Process().children(recursive=True) if _belongs(child, folder)]
        with contextlib.suppress(Exception):
            ray.shutdown()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=5)


def _belongs(process: Any, folder: Path) -> bool:
    import psutil

    try:
        return any(str(folder) in part for part in process.cmdline())
    except psutil.Error:
        return False


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray take 127.0.0.1 for this machine's address, where it was imported before its environment said so."""
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


_session_token = secrets.token_hex(32)


def _own_token() -> dict[str, str]:
    """Return the environment of a session that nobody else can join: its own token, unless the user decided otherwise.

    Ray itself would leave one in the user's home, where it changes what later clusters ask for.
    """
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _session_token}


# ---- what is there -----------------------------------------------------------------------------------------------


def _preflight(resources: Resources) -> str:
    import ray

    nodes, total = living_nodes(), ray.cluster_resources()
    fits = count_places(nodes, resources.cpus, resources.gpus)
    has = ", ".join(
        [counted(len(nodes), "node"), counted(total.get("CPU", 0), "CPU"), counted(total.get("GPU", 0), "GPU")]
    )
    needs = describe_needs(resources.cpus, resources.gpus)
    if not fits:
        raise NasrayError(
            f"no node of the cluster can hold a trial: it needs {needs}; the cluster has {has}. "
            "Lower --resources.cpus or --resources.gpus, or add nodes"
        )
    return f"cluster: {has}; a trial needs {needs}; {counted(fits, 'trial')} at once"
