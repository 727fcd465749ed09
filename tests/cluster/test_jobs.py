"""A local head with its dashboard: submit, status, logs, stop, resume."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace

import psutil
import pytest

from nasray.cli import main
from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.recorder import Recorder
from nasray.experiment import load_experiment, make_evaluator, make_searcher

from . import common


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if not 10002 <= port <= 19999:  # Ray's workers live there
            return port


@pytest.fixture(scope="module")
def head():
    port, folder = free_port(), tempfile.mkdtemp(prefix="nr-", dir="/tmp")
    command = [
        *("ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", "--include-dashboard=true"),
        *(f"--port={free_port()}", f"--dashboard-port={port}", "--dashboard-agent-listen-port=0"),
        *(f"--temp-dir={folder}", "--object-store-memory=100000000"),
    ]
    environment = {**os.environ, "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    address = f"http://127.0.0.1:{port}"

    def up():
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=1)
        except urllib.error.HTTPError:
            return True  # it answers, even if it wants a token
        except OSError:
            return False
        return True

    try:
        common.wait_until(up, process, seconds=120)
        yield address
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def command_line(capsys, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_a_search_is_submitted_stopped_and_continued(head, tmp_path, capsys):
    folder = tmp_path / "run"
    (tmp_path / "mine.yaml").write_text(
        "evaluations: 16384\nbatch_size: 64\nin_flight: 2\n"
        "searcher: {name: coarse-to-fine, population_size: 64, mutations_per_child: 2}\n"
        "budget: {gmacs: 48.38, layers: 79}\n"
    )
    yaml = str(tmp_path / "mine.yaml")
    search = ["search", yaml, "--seed", "4", "--folder", str(folder)]
    job = command_line(capsys, "submit", "--address", head, "--", *search).strip()

    def status():
        return json.loads(command_line(capsys, "job", "status", job, "--address", head, "--json"))["status"]

    deadline = time.monotonic() + 150
    while common.num_parts(folder) < 10:
        assert status() in ("PENDING", "RUNNING"), log(capsys, head, job)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert status() == "RUNNING"
    assert "a trial needs 1 CPU" in log(capsys, head, job)
    assert command_line(capsys, "job", "stop", job, "--address", head).strip() == "STOPPED"
    told = common.num_parts(folder)
    assert 10 <= told < 256, "stopped in the middle"

    printed = command_line(capsys, "submit", "--address", head, "--follow", "--", "resume", str(folder))
    assert "evaluations are in the history" in printed
    assert "winner:" in printed
    experiment = load_experiment(yaml)
    assert common.history_bytes(folder) == in_process(replace(experiment, seed=4), tmp_path / "expected")


def log(capsys, head, job):
    return command_line(capsys, "job", "logs", job, "--address", head)


def in_process(experiment, folder):
    search = OrderedSearch(make_searcher(experiment), evaluations=16384, batch_size=64, in_flight=2)
    recorder, evaluator = Recorder(RunFolder.create(folder, {}), search), make_evaluator(experiment)
    search.run(evaluator, lambda batch: recorder.write(batch, {}))
    return common.history_bytes(folder)


def test_a_job_that_fails_says_so(head, capsys):
    assert main(["submit", "--address", head, "--follow", "--", "search", "no-such-experiment"]) == 2
    captured = capsys.readouterr()
    assert "unknown experiment 'no-such-experiment'" in captured.out
    assert "failed" in captured.err


def test_an_unknown_job_and_an_unreachable_cluster_are_one_message(head, capsys):
    assert main(["job", "status", "no-such-job", "--address", head]) == 2
    assert "knows no such job" in capsys.readouterr().err
    assert main(["submit", "--address", "http://127.0.0.1:9", "--", "search", "maedet-tiny"]) == 2
    assert "no Ray dashboard at http://127.0.0.1:9" in capsys.readouterr().err
