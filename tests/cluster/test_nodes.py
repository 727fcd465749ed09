"""A cluster of three nodes that loses one in the middle of a search."""

import json
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_training_goes_on_with_fewer_workers_when_a_node_is_lost(cluster, tmp_path, monkeypatch, capsys):
    from nasray.cluster.training import Group, run_training

    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    monkeypatch.setenv("PYTHONPATH", str(common.DRIVE.parent))
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": str(common.DRIVE.parent)}})
    drive = common.load_drive("drive_training")
    folder = tmp_path / "run"
    folder.mkdir()

    def lose_the_node():
        common.wait_until((folder / "state.json").exists, seconds=120)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose_the_node)
    thread.start()
    group = Group(workers=2, cpus=1, gpus=0, retries=1, divides=4)
    begin = time.monotonic()
    run_training(drive.loop, {"folder": str(folder), "event": "slow"}, folder=folder, group=group)
    thread.join()
    assert time.monotonic() - begin < 150, "it did not wait for the old number of workers"
    error = capsys.readouterr().err
    assert "2 workers: 1 CPU each" in error
    assert "1 worker: 1 CPU (of 2 asked for)" in error
    assert json.loads((folder / "state.json").read_text())[0] == drive.STEPS
