"""Joining a Ray cluster that runs already: reachable or not, its token, and what its failures mean."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nasray.cluster.interrupts import closing, renew_handlers
from nasray.cluster.progress import say, waiting
from nasray.cluster.reading import decode_text, shown
from nasray.cluster.resources import Resources, cluster_address, is_connected
from nasray.spaces import NasrayError


def check_reachable(resources: Resources) -> None:
    """Raise `NasrayError` if a cluster is named by host and port and cannot be joined; starts nothing."""
    address = cluster_address(resources)
    if not address or is_connected():
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


def join(address: str, resources: Resources, stack: contextlib.ExitStack, importing: str | None) -> None:
    """Join a cluster for as long as the stack lives."""
    source = "" if resources.address else ", as RAY_ADDRESS says"
    say(f"joining the Ray cluster at {address}{source}")
    token, _ = find_token()
    if token and "RAY_AUTH_MODE" not in os.environ:  # a cluster that wants none does not mind
        stack.enter_context(environment({"RAY_AUTH_MODE": "token"}))
    import ray

    try:
        with imported_meanwhile(importing):
            _join_once(ray, address)
    finally:
        stack.callback(_leave)


def _join_once(ray: Any, address: str) -> None:
    try:
        with waiting(f"waiting for the Ray cluster at {address}"), ray_keeps_handlers():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # whatever Ray makes of it
        raise _explained(address, error) from error


def _leave() -> None:
    import ray

    with closing():
        ray.shutdown()


def _explained(address: str, error: BaseException) -> NasrayError:
    """Return the message of a cluster that could not be joined, by its real cause."""
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
    return _unreachable(address, last_line(error))


def _unreachable(address: str, reason: str) -> NasrayError:
    return NasrayError(
        f"no Ray cluster at {address!r}: {reason.rstrip('.')}. Start one with `ray start --head`, correct the address, "
        "or leave it out to run on this machine alone"
    )


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message that says anything; the name of its class if none does."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


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
    """Return the message of a cluster that wants another token than the one that was sent, or any."""
    token, source = find_token()
    sent = f"the token of {source} is not the cluster's" if token else f"no token was found here (looked at {source})"
    return NasrayError(
        f"the Ray cluster at {address} wants a token: {reason}; {sent}. Copy the head's ~/.ray/auth_token (made there "
        "by `ray get-auth-token --generate`) to the same place here, or set RAY_AUTH_TOKEN"
    )


# ---- around a session --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
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
def ray_keeps_handlers() -> Iterator[None]:
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


@contextlib.contextmanager
def imported_meanwhile(module: str | None) -> Iterator[None]:
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
