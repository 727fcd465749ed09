"""A large cluster in small: many places, trials that sleep, a node that is lost, and one that joins.

    python benchmarks/scale.py --json scale.json                                   # 5 nodes of 8 GPUs, 160 places
    python benchmarks/scale.py --nodes 2 --gpus 2 --evaluations 400 --seconds 0.5  # to try it

Nodes are raylets of this machine that pretend to have GPUs (Ray's own resource numbers); a quarter of one is a place.
A trial sleeps `--seconds` +- 50 %, one in a hundred ten times as long, by its genes. A node is killed at two fifths of
the evaluations, and another joins at half. At the end the search is killed as well, and resumed.

Prints how long it took until all places worked at once; the share of them that work in the middle half of the run; CPU
and memory of the driver, which searches and records; files and bytes of the run folder; and the seconds from the
resumption to the first batch that is new. Processes of places start on this machine's own cores: on two of them that
takes minutes, which says nothing of a cluster whose nodes have their own.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from landscapes import Rugged, Table
from ray.cluster_utils import Cluster

import nasray
from nasray.cluster import Resources, RunFolder
from nasray.cluster.files import to_json
from nasray.searchers import Evolution

GENES, CHOICES = 24, 6
SHARE = 0.25
STORE = 80 * 2**20
LOST, JOINED = 0.4, 0.5
MORE = 400
"""Evaluations that are left when the search is killed."""


class Sleeper:
    """Sleeps for a time that follows from the genes, and scores them on a rugged landscape."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.landscape = Rugged(Table([CHOICES] * GENES), 0, neighbors=3)

    def __call__(self, genes: Any) -> Any:
        """Sleep once for each row."""
        for row in genes:
            drawn = np.random.default_rng(int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little"))
            rare = 10.0 if drawn.random() < 0.01 else 1.0
            time.sleep(self.seconds * drawn.uniform(0.5, 1.5) * rare)
        return self.landscape(genes)


def drive(options: argparse.Namespace) -> None:
    """Search, or go on with it: the process that is measured."""
    space = Table([CHOICES] * GENES)
    nasray.search(
        space,
        Sleeper(options.seconds),
        folder=options.drive,
        evaluations=options.evaluations + MORE,
        searcher=Evolution(space, seed=0),
        batch_size=1,
        in_flight=options.in_flight,
        order=options.order,
        resources=Resources(cpus=0.01, gpus=SHARE, address=options.address, retries=10),
        resume=RunFolder(options.drive).is_run(),
    )


@contextlib.contextmanager
def driven(options: argparse.Namespace, folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `drive` in a process of its own, which is killed at the end."""
    names = ("seconds", "evaluations", "in_flight", "order")
    given = [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(options, name)))]
    log = (folder.parent / "driver.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, __file__, "--drive", str(folder), "--address", address, *given], stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


class Watch(threading.Thread):
    """Notes evaluations told, CPU seconds and resident memory of a process, once a second."""

    def __init__(self, process: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self.process, self.folder = psutil.Process(process), folder
        self.rows: list[tuple[int, float, float]] = []

    def run(self) -> None:
        """Watch until the process ends."""
        with contextlib.suppress(psutil.Error):
            while self.process.is_running():
                times = self.process.cpu_times()
                memory = self.process.memory_info().rss / 2**20
                self.rows.append((told(self.folder), times.user + times.system, memory))
                time.sleep(1)


def told(folder: Path) -> int:
    """Return how many batches the history has."""
    return sum(entry.name.endswith(".parquet") for entry in os.scandir(folder / "history")) if folder.is_dir() else 0


def wait_for(num: int, folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many batches are told."""
    while told(folder) < num:
        if process.poll() is not None:
            raise SystemExit(f"the search ended at {told(folder)} batches: see {folder.parent / 'driver.log'}")
        time.sleep(0.2)


def at_work(trials: list[dict[str, Any]], places: int) -> dict[str, float | None]:
    """Return when all places first worked at once, and the share that works in the middle half, from trials' times."""
    begins = np.array([trial["started"] for trial in trials])
    ends = begins + np.array([trial["seconds"] for trial in trials])
    moments = np.concatenate([begins, ends])
    change = np.concatenate([np.ones(len(begins)), -np.ones(len(ends))])
    order = np.argsort(moments, kind="stable")
    running = change[order].cumsum()
    full = moments[order][running >= places]
    first, last = begins.min(), ends.max()
    low, high = first + (last - first) / 4, first + 3 * (last - first) / 4
    worked = (np.minimum(ends, high) - np.maximum(begins, low)).clip(0).sum()
    return {
        "most_at_once": float(running.max()),
        "filled_seconds": float(full[0] - first) if len(full) else None,
        "busy_share": float(worked / (places * (high - low))),
        "minutes": float(last - first) / 60,
    }


def size_of(folder: Path) -> tuple[int, int]:
    """Return files and bytes below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return all figures."""
    places = int(options.nodes * options.gpus / SHARE)
    node = {"num_cpus": 4, "num_gpus": options.gpus, "object_store_memory": STORE}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
    )
    try:
        nodes = [cluster.add_node(**node) for _ in range(options.nodes)]
        cluster.wait_for_nodes()
        begin = time.time()
        with driven(options, folder, cluster.address) as process:
            watch = Watch(process.pid, folder)
            watch.start()
            wait_for(int(LOST * options.evaluations), folder, process)
            cluster.remove_node(nodes[0], allow_graceful=False)
            wait_for(int(JOINED * options.evaluations), folder, process)
            cluster.add_node(**node)
            wait_for(options.evaluations, folder, process)
        trials = RunFolder.open(folder).read_trials()
        figures: dict[str, Any] = {"places": places, "evaluations": told(folder), **at_work(trials, places)}
        figures["first_trial_seconds"] = min(trial["started"] for trial in trials) - begin
        figures["driver"] = [row for number, row in enumerate(watch.rows) if number % 10 == 0]
        figures["files"], figures["bytes"] = size_of(folder)
        before, begin = told(folder), time.time()
        with driven(options, folder, cluster.address) as process:
            wait_for(before + 1, folder, process)
            figures["resumed_seconds"] = time.time() - begin
        return figures
    finally:
        cluster.shutdown()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--gpus", type=int, default=8, help="of each node")
    parser.add_argument("--evaluations", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a trial, in the mean of all but the rare ones")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--order", default="finished", choices=["asked", "finished"])
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options)
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory(prefix="nasray-scale-", ignore_cleanup_errors=True) as scratch:
        figures = measure(options, Path(scratch) / "run")
    if options.json:
        options.json.write_text(to_json(figures, indent=1))
    watched = figures.pop("driver")
    for name, value in figures.items():
        print(f"{name:20} {value:.3g}" if isinstance(value, float) else f"{name:20} {value}")
    for evaluations, cpu, memory in watched[:: max(len(watched) // 8, 1)]:
        print(f"driver after {evaluations:6} evaluations: {cpu:7.1f} CPU s, {memory:6.0f} MiB")


if __name__ == "__main__":
    main()
