"""Joining a cluster that runs: tokens, other versions, and whatever else listens at an address."""

import re

import grpc
import pytest

from nasray.cluster import joining
from nasray.cluster.joining import check_reachable, find_token
from nasray.cluster.resources import Resources
from nasray.spaces import NasrayError


class Store(grpc.GenericRpcHandler):
    """Answers as the head's control store does: it asks for a token, or not."""

    def __init__(self, token):
        self.token = token

    def service(self, details):
        sent = dict(details.invocation_metadata).get("authorization")

        def answer(_, context):
            if self.token and sent != f"Bearer {self.token}":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def store():
    from concurrent.futures import ThreadPoolExecutor

    servers = []

    def start(token=None):
        server = grpc.server(ThreadPoolExecutor(2), handlers=[Store(token)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return Resources(address=f"127.0.0.1:{port}")

    yield start
    for server in servers:
        server.stop(None)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ray").mkdir()
    return tmp_path


def test_a_cluster_that_wants_a_token(store, home, monkeypatch):
    resources = store("right")
    with pytest.raises(NasrayError, match=r"wants a token.*no token was found here \(looked at .*auth_token\)"):
        check_reachable(resources)
    (home / ".ray" / "auth_token").write_text("right\n")
    check_reachable(resources)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(NasrayError, match="the token of RAY_AUTH_TOKEN is not the cluster's"):
        check_reachable(resources)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    (home / "token").write_text("right")
    (home / ".ray" / "auth_token").unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "token"))
    check_reachable(resources)
    check_reachable(store())  # one that wants none does not mind


def test_a_token_that_cannot_be_read(home):
    (home / ".ray" / "auth_token").write_bytes(b"\xff\xfe")
    with pytest.raises(NasrayError, match="cannot read Ray's token"):
        find_token()


def test_something_else_listens_there(home):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        import threading

        threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(20)], daemon=True).start()
        with pytest.raises(NasrayError, match=f"no Ray cluster at '127.0.0.1:{port}': "):
            check_reachable(Resources(address=f"127.0.0.1:{port}"))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "localhost:9", "no-such-host.invalid:6379"])
def test_nothing_listens_there(home, address):
    with pytest.raises(NasrayError, match=rf"^no Ray cluster at '{re.escape(address)}': .*\. Start one with"):
        check_reachable(Resources(address=address))


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.50.0
    Python: 3.12.1
This process on node 10.0.0.2 was started with:
    Ray: 2.60.0
    Python: 3.11.9
"""


def test_the_real_cause_is_named():
    text = str(joining._explained("head:6379", RuntimeError(MISMATCH)))
    assert r"other versions (Ray: 2.50.0, Python: 3.12.1) than this process (Ray: 2.60.0, Python: 3.11.9)" in text
    error = ConnectionError("Failed to connect")
    error.__cause__ = RuntimeError("Unauthenticated: RPC error: InvalidAuthToken")
    assert "wants a token" in str(joining._explained("head:6379", error))
    assert "no Ray cluster at 'auto': Could not find" in str(
        joining._explained("auto", ConnectionError("Could not find."))
    )
