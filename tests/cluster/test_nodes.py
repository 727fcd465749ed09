"""A cluster of three nodes that loses one in the middle of a search."""

import threading
import time

import pytest
import ray
from ray.cluster_utils import Cluster

from . import common


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_node_is_lost_in_mid_search(cluster, tmp_path, monkeypatch):
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    cluster.wait_for_nodes()
    expected = common.uninterrupted(tmp_path / "expected", in_flight=3)
    folder = tmp_path / "run"
    drive = common.load_drive()
    monkeypatch.setenv("PYTHONPATH", str(common.DRIVE.parent))
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": str(common.DRIVE.parent)}})
    removed = []

    def lose_a_node():
        common.wait_until(lambda: common.num_parts(folder) >= 5, seconds=120)
        cluster.remove_node(nodes[0], allow_graceful=False)
        removed.append(common.num_parts(folder))

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    begin = time.monotonic()
    best = drive.drive(str(folder), 160, 3, 0.03)
    thread.join()
    assert removed, "the node was never lost"
    assert removed[0] < 20, "the search was over before the node was lost"
    assert best["evaluations"] == 160
    assert common.history_bytes(folder) == expected
    print(f"finished {time.monotonic() - begin:.1f} s after the start, node lost at batch {removed[0]}")
