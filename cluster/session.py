"""A Ray session for a run: an existing cluster, or a small local one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasray.cluster.interrupts import closing, interruptible, renew_handlers
from nasray.cluster.progress import counted, say, waiting
from nasray.cluster.reading import decode_text, shown
from nasray.cluster.scratch import scratch_folder
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_CORES, MAX_RETRIES, check_number, check_whole, shortened

OBJECT_STORE_BYTES = 128 * 2**20
STARTS = 3
"""How often a local Ray is started before it is given up: on a busy machine it misses its own fixed 30 seconds."""
LOCAL_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # where no GPU is assigned, none is seen
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # Ray's own is 15, which starves a run beside other work
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system, this makes Ray listen on 127.0.0.1 alone
}


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
        if not _is_connected():
            check_reachable(resources)
            address = cluster_address(resources)
            if address:
                _join(address, resources, stack, importing)
            else:
                _start(resources, stack, importing)
        elif importing:
            importlib.import_module(importing)
        yield _preflight(resources)


@contextlib.contextmanager
def _imported_meanwhile(module: str | None) -> Iterator[None]:
    """Import a module in a thread. Ray must be imported before: two threads at it see halves of it."""
    if module is None:
        yield
        return

    def import_it() -> None:
        with contextlib.suppress(Exception):  # it is imported again below
            importlib.import_module(module)

    thread = threading.Thread(target=import_it)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    importlib.import_module(module)


def _is_connected() -> bool:
    """Whether this process is connected to Ray; a process that has not imported it is not."""
    return "ray" in sys.modules and importlib.import_module("ray").is_initialized()


def count_actors(name: str) -> int:
    """Count the living actors of this job whose class has `name` in its own."""
    import ray
    from ray._private.state import actors

    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    living = [actor for actor in actors(job_id=job).values() if actor["State"] == "ALIVE"]
    return sum(name in actor["ActorClassName"] for actor in living)


# ---- a Ray of one's own ------------------------------------------------------------------------------------------


def _start(resources: Resources, stack: contextlib.ExitStack, importing: str | None) -> None:
    """Start Ray on this machine, for as long as the stack lives."""
    settings = {name: os.environ.get(name, value) for name, value in LOCAL_ENVIRONMENT.items()}
    stack.enter_context(_environment({**settings, **_own_token()}))
    import ray

    stack.enter_context(_loopback())
    with _imported_meanwhile(importing):
        _start_anew(ray, resources, stack)


def _start_anew(ray: Any, resources: Resources, stack: contextlib.ExitStack) -> None:
    """Start Ray, a few times if it must be, each in a session of its own."""
    for attempt in range(1, STARTS + 1):
        with contextlib.ExitStack() as this_time:
            folder = this_time.enter_context(scratch_folder())
            this_time.callback(_end, folder)
            try:
                with waiting("waiting for Ray to start on this machine"), _ray_keeps_handlers():
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
                reason = _last_line(error)
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
    """Environment of a session that nobody else can join: a token of its own, unless the user has decided otherwise.

    Ray itself would leave one in the user's home, where it changes what later clusters ask for.
    """
    if any(name in os.environ for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _session_token}


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while, and let Ray look at them anew."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _read_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_authentication()


def _read_authentication() -> None:
    """Let Ray, if it was imported before, read mode and token from the environment again."""
    if "ray" not in sys.modules:
        return
    with contextlib.suppress(ImportError, AttributeError):  # names of Ray's that may change
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _ray_keeps_handlers() -> Iterator[None]:
    """Keep Ray from putting its own handlers of signals in the place of ours."""
    # Its Python handler would end the process with code 15, its C++ handler with a dump of the stack. The latter is
    # set in the last milliseconds of `ray.init`.
    from ray._private import utils

    before = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        renew_handlers()


# ---- a cluster that runs already ---------------------------------------------------------------------------------


def check_reachable(resources: Resources) -> None:
    """Raise `NasrayError` if a cluster is named by host and port and cannot be joined; starts nothing."""
    address = cluster_address(resources)
    if not address or _is_connected():
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error
    _ask_control_store(address)


def _ask_control_store(address: str) -> None:
    """Ask a cluster for its id, as Ray will: a wrong token, or another service, shows at once and in one message."""
    try:
        import grpc
    except ImportError:  # not every version of Ray brings it along; then joining itself tells
        return
    token, _ = find_token()
    headers = [("authorization", f"Bearer {token}")] if token else None
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", metadata=headers, timeout=10)
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.UNAUTHENTICATED:
                raise wants_token(address, "it does not accept the request") from error
            if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                reason = f"port open, but what listens there does not answer as Ray does ({code.name.lower()})"
                raise _unreachable(address, reason) from error


def _join(address: str, resources: Resources, stack: contextlib.ExitStack, importing: str | None) -> None:
    """Join a cluster for as long as the stack lives."""
    source = "" if resources.address else ", as RAY_ADDRESS says"
    say(f"joining the Ray cluster at {address}{source}")
    token, _ = find_token()
    if token and "RAY_AUTH_MODE" not in os.environ:  # a cluster that wants none does not mind
        stack.enter_context(_environment({"RAY_AUTH_MODE": "token"}))
    import ray

    try:
        with _imported_meanwhile(importing):
            _join_once(ray, address)
    finally:
        stack.callback(_leave)


def _join_once(ray: Any, address: str) -> None:
    try:
        with waiting(f"waiting for the Ray cluster at {address}"), _ray_keeps_handlers():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # whatever Ray makes of it
        raise _explained(address, error) from error


def _leave() -> None:
    import ray

    with closing():
        ray.shutdown()


def _explained(address: str, error: BaseException) -> NasrayError:
    """The message of a cluster that could not be joined, by its real cause."""
    text, cause = "", error
    while cause is not None:
        text, cause = f"{text}\n{cause}", cause.__cause__ or cause.__context__  # type: ignore[assignment]
    if "nauthenticated" in text or "AuthToken" in text or "uthentication" in text:
        return wants_token(address, "it does not accept the request")
    if "Version mismatch" in text:
        found = [line.strip() for line in text.splitlines() if line.strip().startswith(("Ray: ", "Python: "))]
        theirs, ours = ", ".join(found[:2]), ", ".join(found[2:4])
        return NasrayError(
            f"the Ray cluster at {address!r} runs other versions ({theirs}) than this process ({ours}). Install the "
            "same Ray and the same minor version of Python here, or use `nasray submit`"
        )
    return _unreachable(address, _last_line(error))


def find_token() -> tuple[str | None, str]:
    """Return the token for clusters that ask for one, and where it is from; None if there is none.

    Raises:
        NasrayError: if a file of it cannot be read.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip(), "RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        return decode_text(path.read_bytes(), shown(path)).strip() or None, str(path)
    except (FileNotFoundError, NotADirectoryError):
        return None, str(path)
    except (OSError, NasrayError) as error:
        raise NasrayError(f"cannot read Ray's token in {shown(path)}: {error}") from error


def wants_token(address: str, reason: str) -> NasrayError:
    """The message of a cluster that wants another token than the one that was sent, or any."""
    token, source = find_token()
    sent = f"the token of {source} is not the cluster's" if token else f"no token was found here (looked at {source})"
    return NasrayError(
        f"the Ray cluster at {address} wants a token: {reason}; {sent}. Copy the head's ~/.ray/auth_token (made there "
        "by `ray get-auth-token --generate`) to the same place here, or set RAY_AUTH_TOKEN"
    )


def cluster_address(resources: Resources) -> str | None:
    """Return the address of the cluster that is to be joined; None for a local session.

    Raises:
        NasrayError: if RAY_ADDRESS holds no address.
    """
    address = resources.address or os.environ.get("RAY_ADDRESS")
    return check_address(address) if address else None


def _unreachable(address: str, reason: str) -> NasrayError:
    return NasrayError(
        f"no Ray cluster at {address!r}: {reason.rstrip('.')}. Start one with `ray start --head`, correct the address, "
        "or leave it out to run on this machine alone"
    )


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


# ---- what Ray assigned -------------------------------------------------------------------------------------------


def assigned_gpus() -> list[str] | None:
    """Return the ids of the GPUs that Ray assigned to this trial or worker; None outside of Ray's own processes."""
    if not _is_connected():
        return None
    import ray

    context = ray.get_runtime_context()
    return context.get_accelerator_ids().get("GPU", []) if context.worker.mode == ray.WORKER_MODE else None


def hide_unassigned_gpus() -> None:
    """Let CUDA see no GPU in a process to which Ray assigned none; Ray itself lets it see all."""
    if assigned_gpus() == []:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


# ---- what is there -----------------------------------------------------------------------------------------------


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
    has = ", ".join(
        [counted(len(nodes), "node"), counted(total.get("CPU", 0), "CPU"), counted(total.get("GPU", 0), "GPU")]
    )
    needs = counted(resources.cpus, "CPU") + (f", {counted(resources.gpus, 'GPU')}" if resources.gpus else "")
    if not fits:
        raise NasrayError(
            f"no node of the cluster can hold a trial: it needs {needs}; the cluster has {has}. "
            "Lower --resources.cpus or --resources.gpus, or add nodes"
        )
    return f"cluster: {has}; a trial needs {needs}; {counted(fits, 'trial')} at once"
