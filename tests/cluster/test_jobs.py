"""A local head with its dashboard: submit, status, logs, stop, resume."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from nasray.cli import main
from nasray.cluster import OrderedSearch, RunFolder, jobs
from nasray.cluster import job as on_cluster
from nasray.cluster.recorder import Recorder
from nasray.loading import load_plan
from nasray.spaces import NasrayError

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
    port, store, folder = free_port(), free_port(), tempfile.mkdtemp(prefix="nasray-head-", dir="/tmp")
    token = Path(folder, ".ray", "auth_token")  # with it, the head asks everybody for it
    token.parent.mkdir()
    token.write_text("0123456789abcdef" * 2)
    command = [
        *(
            os.path.join(os.path.dirname(sys.executable), "ray"),
            "start",
            "--head",
            "--block",
            "--disable-usage-stats",
            "--num-cpus=2",
            "--include-dashboard=true",
        ),
        *(f"--port={store}", f"--dashboard-port={port}", "--dashboard-agent-listen-port=0"),
        *(f"--temp-dir={folder}", "--object-store-memory=100000000"),
    ]
    # Neither Python nor Ray are on the head's path, and its home is not ours.
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "HOME": folder}
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
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
            patch.delenv("RAY_ADDRESS", raising=False)
            yield address, Path(folder), f"127.0.0.1:{store}"
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


@pytest.mark.slow
def test_a_search_is_submitted_stopped_and_continued(head, tmp_path, capsys, monkeypatch):
    """In the folder that jobs have by default, of a name that needs quoting."""
    head, home, _ = head
    monkeypatch.setenv("NASRAY_RUNS", "~/my $runs, 'all'")
    folder = home / "my $runs, 'all'" / "mine"
    (tmp_path / "mine.yaml").write_text(
        "evaluations: 16384\nbatch_size: 64\nin_flight: 2\n"
        "searcher: {name: coarse-to-fine, population_size: 64, mutations_per_child: 2}\n"
        "budget: {gmacs: 48.38, layers: 79}\n"
    )
    yaml = str(tmp_path / "mine.yaml")
    search = ["search", yaml, "--seed", "4"]
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
    stopped = log(capsys, head, job)
    assert stopped.rstrip().endswith(f"nasray: interrupted. `nasray resume {shlex.quote(str(folder))}` continues")
    assert "Traceback" not in stopped
    assert "***" not in stopped, "a dump of Ray's C++ part"
    told = common.num_parts(folder)
    assert 10 <= told < 256, "stopped in the middle"

    printed = command_line(capsys, "submit", "--address", head, "--follow", "--", "resume", str(folder))
    assert "evaluations are in the history" in printed
    assert "winner:" in printed
    parts = load_plan(yaml, ["--seed", "4"]).parts
    assert common.history_bytes(folder) == in_process(parts, tmp_path / "expected")


def log(capsys, head, job):
    return command_line(capsys, "job", "logs", job, "--address", head)


def in_process(parts, folder):
    search = OrderedSearch(parts.searcher, evaluations=16384, batch_size=64, in_flight=2)
    recorder, evaluator = Recorder(RunFolder.create(folder, {}), search), parts.evaluator
    search.run(evaluator, lambda batch: recorder.write(batch, {}))
    return common.history_bytes(folder)


def test_a_job_that_fails_says_so(head, capsys):
    head, *_ = head
    assert main(["submit", "--address", head, "--follow", "--", "search", "no-such-experiment"]) == 2
    captured = capsys.readouterr()
    assert "unknown experiment 'no-such-experiment'" in captured.out
    assert "failed" in captured.err


def test_an_unknown_job_and_an_unreachable_cluster_are_one_message(head, capsys):
    head, *_ = head
    assert main(["job", "status", "no-such-job", "--address", head]) == 2
    assert "knows no such job" in capsys.readouterr().err
    assert main(["submit", "--address", "http://127.0.0.1:9", "--", "search", "maedet-tiny"]) == 2
    assert "no Ray dashboard at http://127.0.0.1:9" in capsys.readouterr().err


def test_a_cluster_is_joined_by_host_and_port_with_its_token(head, tmp_path, capsys, monkeypatch):
    *_, store = head
    search = ["search", "maedet-tiny", "--evaluations", "256", "--resources.address", store, "--folder"]
    assert main([*search, str(tmp_path / "run")]) == 0
    assert f"joining the Ray cluster at {store}\n" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", store)
    assert main([*search[:4], "--folder", str(tmp_path / "again")]) == 0
    assert f"joining the Ray cluster at {store}, as RAY_ADDRESS says\n" in capsys.readouterr().err
    assert common.history_bytes(tmp_path / "run") == common.history_bytes(tmp_path / "again")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert main([*search, str(tmp_path / "other")]) == 2
    assert "wants a token" in capsys.readouterr().err
    assert main(["job", "status", "x", "--address", head[0]]) == 2
    assert "the token of RAY_AUTH_TOKEN is not the cluster's" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_job_runs_in_the_python_that_ray_starts_its_workers_with(tmp_path):
    """A process with a raylet's arguments, its child in a worker's place, and the entry point as the shell gets it."""
    (tmp_path / "nasray_job.py").write_text("import sys; print(sys.orig_argv[0])")
    (tmp_path / "python").symlink_to(sys.executable)
    worker = f"import subprocess; subprocess.run({jobs.ENTRY_POINT!r}, shell=True, check=True)"
    raylet = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    for command, expected in ((f"{tmp_path}/python setup_worker.py --x", f"{tmp_path}/python"), ("", "python3")):
        process = [sys.executable, "-c", raylet, worker, f"--python_worker_command={command}"]
        done = subprocess.run(process, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.strip().endswith(expected)


# ---- what travels ------------------------------------------------------------------------------------------------


ODD = ["a b", "it's", '"quoted"', "$HOME `id` $(id)", "; exit 3", "*", "\\", "ü—", "", "-x", "a=b", "line\nbreak"]


def test_arguments_reach_the_command_as_they_are(tmp_path):
    """The job's own start, with a package that only tells what it was given."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "same 'name'.yaml").write_text(f"name: {folder.name}\n")
    job = tmp_path / "job"
    (job / "nasray").mkdir(parents=True)
    (job / "nasray" / "__init__.py").touch()
    (job / "nasray" / "__main__.py").write_text("import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv]))")
    files = [
        str(one / "same 'name'.yaml"),
        f"--data={two / 'same '}'name'.yaml",
        f"--recipe={one / 'same '}'name'.yaml",
    ]
    arguments = [*ODD, *files, "~/data", "--folder=~/runs/a"]
    parts = [jobs._part(argument, job) for argument in arguments]
    (job / on_cluster.ARGUMENTS).write_text(json.dumps(parts))
    shutil.copy(on_cluster.__file__, job / "nasray_job.py")
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "NASRAY_RUNS": "~/runs $1"}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "nasray_job.py"], cwd=job, env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    cwd, program, *rest = found[0]
    assert (cwd, program) == (str(home), "nasray")
    assert rest[: len(ODD)] == ODD
    assert rest[-2:] == [str(home / "data"), f"--folder={home}/runs/a"]
    kept = [text.partition("=")[2] or text for text in rest[len(ODD) : len(ODD) + 3]]
    assert [Path(path).read_text() for path in kept] == ["name: one\n", "name: two\n", "name: one\n"]
    assert all(path.startswith(f"{home}/runs $1/submitted/") for path in kept), "not in Ray's cache"
    assert kept[0] == kept[2] != kept[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "maedet-m", "--folder", "runs/a"], "runs/a is relative to this one"),
        (["search", "maedet-m", "--folder=runs/a"], "runs/a is relative to this one"),
        (["resume", "runs/a"], "runs/a is relative to this one"),
        (["train", "x", "--weights", "../last.pt"], "last.pt is relative to this one"),
        (["search", "refers.yaml"], "refers.yaml names sub/recipe.yaml, a path of this machine"),
        (["search", "sub/refers.yaml"], "names recipe.yaml, a path of this machine"),
        (["train", "x", "--data=folder.yaml"], "folder.yaml names sub/images, a path of this machine"),
        ([], "submit needs a command"),
    ],
)
def test_what_the_cluster_cannot_see_is_refused(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub" / "images").mkdir(parents=True)
    (tmp_path / "sub" / "recipe.yaml").write_text("name: x\n")
    (tmp_path / "refers.yaml").write_text("supernet: {train: sub/recipe.yaml}\n")
    (tmp_path / "sub" / "refers.yaml").write_text("winner: [{train: recipe.yaml}]\n")
    (tmp_path / "folder.yaml").write_text("train: {images: sub/images}\n")
    with pytest.raises(NasrayError, match=message):
        jobs.submit_job("http://127.0.0.1:9", arguments)


def test_names_and_absolute_paths_of_a_configuration_are_not_taken_for_files_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "basic").mkdir()
    (tmp_path / "mine.yaml").write_text(f"space: {{name: basic}}\ndata: {tmp_path}\nimages: ~/imagenet\nname: .\n")
    (tmp_path / "job").mkdir()
    assert jobs._part("mine.yaml", tmp_path / "job")[1] == "file"


@pytest.mark.parametrize("runs", ["runs", "./runs", "../x"])
def test_runs_of_jobs_are_never_relative(monkeypatch, runs):
    monkeypatch.setenv("NASRAY_RUNS", runs)
    with pytest.raises(NasrayError, match="is relative, and a job runs in another folder"):
        jobs.submit_job("http://127.0.0.1:9", ["search", "maedet-m"])


class Client:
    """A cluster whose agent is up at the third time, or never."""

    def __init__(self, failures, text):
        self.failures, self.text, self.calls = failures, text, 0

    def submit_job(self, **job):
        self.calls += 1
        if self.calls <= self.failures:
            raise RuntimeError(f"Request failed with status code 500: {self.text}.")
        return "raysubmit_1"


@pytest.mark.parametrize(
    ("failures", "seconds", "text", "calls", "message"),
    [
        (2, 60, "No available agent to submit job, please try again later.", 3, None),
        (9, 0, "No available agent to submit job, please try again later.", 1, "no agent to take a job for 0 s"),
        (9, 60, "Traceback", 1, "the cluster at http://head refused: Request failed with status code 500"),
    ],
)
def test_a_head_that_was_just_started_is_asked_again(monkeypatch, capsys, failures, seconds, text, calls, message):
    from ray.dashboard.modules.job import sdk

    client = Client(failures, text)
    monkeypatch.setattr(sdk, "JobSubmissionClient", lambda *_, **__: client)
    monkeypatch.setattr(jobs, "lay_out_package", lambda _: None)
    monkeypatch.setattr(jobs, "AGENT_SECONDS", seconds)
    monkeypatch.setattr(jobs, "AGENT_PAUSE", 0)
    if message is None:
        assert jobs.submit_job("http://head", ["list", "spaces"]) == "raysubmit_1"
        assert capsys.readouterr().err.count("trying again for 60 s") == 1
    else:
        with pytest.raises(NasrayError, match=message) as caught:
            jobs.submit_job("http://head", ["list", "spaces"])
        assert "\n" not in str(caught.value)
    assert client.calls == calls
