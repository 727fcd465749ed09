"""Ray sessions: what a local one shows to others, slow starts, signals at any moment."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from nasray.cluster import RunFolder, resources
from nasray.cluster.ownership import OWNER
from nasray.cluster.progress import waiting
from nasray.cluster.resources import Resources
from nasray.cluster.run import _missing
from nasray.cluster.session import ray_session
from nasray.cluster.trial import BatchTrial
from nasray.spaces import NasrayError

from . import common


def listening():
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in family
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_what_is_imported_meanwhile_finds_ray_whole(tmp_path):
    """Two threads that import Ray at once ended a resume with a traceback on a busy machine."""
    (tmp_path / "probe.py").write_text("import sys\nwhole = hasattr(sys.modules.get('ray'), 'init')\n")
    program = (
        "from nasray.cluster import session\n"
        "session._start_anew = lambda *_: None\n"
        "session._preflight = lambda _: ''\n"
        "with session.ray_session(session.Resources(), importing='probe'):\n"
        "    import probe\n"
        "    assert probe.whole\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_local_session(tmp_path, monkeypatch, capsys):
    """The first start fails, as on a busy machine; the next listens on this machine alone, with a token of its own."""
    import ray

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    start, folders = ray.init, []

    def slow_once(**options):
        folders.append(options["_temp_dir"])
        if len(folders) == 1:
            raise Exception("The current node timed out during startup. This could happen because ...")
        return start(**options)

    monkeypatch.setattr(ray, "init", slow_once)
    niceness = os.nice(0)
    with ray_session(Resources(local_cpus=1)) as summary:
        assert "1 node, 1 CPU," in summary
        before = listening()

        @ray.remote
        def look():
            return os.nice(0), resources.assigned_gpus(), os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"])

        assert ray.get(look.remote()) == (niceness, [], "token", 64)
        assert resources.assigned_gpus() is None, "not in the driver"
        assert before | listening() == {"127.0.0.1"}
        assert os.stat(os.path.dirname(folders[1])).st_mode & 0o777 == 0o700

        @ray.remote(num_cpus=1)
        class Holder:
            def hold(self):
                return True

        holder = Holder.remote()
        assert ray.get(holder.hold.remote())
        run = RunFolder.create(tmp_path / "run", {})
        assert _missing(run, Resources()) is None, "it has just begun"
        os.utime(run.history, (time.time() - 60,) * 2)
        assert _missing(run, Resources(gpus=1)) == (
            "waiting for a trial to start: it needs 1 CPU, 1 GPU; free in the cluster are 0 of 1 CPUs, 0 of 0 GPUs"
        )
        assert _missing(run, Resources(), begin=time.time() - 5) is None, "the session has just begun"
        # Ray names an actor as `__qualname__` says.
        assert resources.count_actors("Holder") == resources.count_actors("test_a_local_session") == 1
        assert resources.trial_class(BatchTrial, {}, evaluator=None).__qualname__ == "BatchTrial"
        shutil.rmtree(tmp_path / "run")
    assert folders[0] != folders[1]
    assert not any(map(os.path.exists, folders))
    assert "Ray did not start: The current node timed out" in capsys.readouterr().err
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert list(tmp_path.iterdir()) == [], "nothing in the user's home"


@pytest.mark.parametrize(("error", "tries"), [(Exception("timed out\n\nof patience."), 3), (OSError("no space"), 1)])
def test_ray_that_does_not_start_is_one_message(monkeypatch, error, tries):
    import ray

    calls = []

    def fail(**_):
        calls.append(1)
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(NasrayError, match=r"^Ray did not start on this machine.*: (of patience|no space)\. On a busy"):
        ray_session(Resources()).__enter__()
    assert len(calls) == tries


def test_nothing_is_made_where_ray_does_not_start(tmp_path, monkeypatch, capsys):
    import ray

    from nasray.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(Exception("timed out")))
    for _ in range(2):  # a failed start does not block the next try
        assert main(["search", "maedet-tiny", "--folder", "runs/a"]) == 2
        error = capsys.readouterr().err
        assert error.count("nasray: Ray did not start on this machine, 3 times in a row: timed out") == 1
        assert list(tmp_path.iterdir()) == []


def test_waiting_is_said(capsys):
    with waiting("waiting for nothing", after=0.05, every=0.05):
        time.sleep(0.3)
    time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert 2 <= len(said) <= 6
    assert said[0] == "waiting for nothing (0:00)"
    with waiting("soon over", after=0.5):
        pass
    time.sleep(0.6)
    assert capsys.readouterr().err == ""


# ---- signals -----------------------------------------------------------------------------------------------------


def test_a_search_ends_in_an_orderly_way(tmp_path):
    """SIGTERM while Ray starts; then, twice, in the middle of the search; a second process meanwhile is refused.

    The whole process group gets it, as from a terminal, `timeout`, or a scheduler.
    """
    (tmp_path / "long.yaml").write_text(
        "evaluations: 1000000\nbatch_size: 256\nsearcher: {name: evolution, population_size: 64}\n"
        "budget: {gmacs: 48.38, layers: 79}\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "nasray", "search", "long.yaml", "--folder", "run"]

    def begin():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, **pipes, text=True, cwd=tmp_path, env=environment, start_new_session=True)

    def has_ray(process):
        return any("gcs_server" in child.name() for child in psutil.Process(process.pid).children(recursive=True))

    def end(process, *pauses):
        family = psutil.Process(process.pid).children(recursive=True)
        for pause in pauses:
            time.sleep(pause)
            os.killpg(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 143, output
        assert "Traceback" not in output
        assert "***" not in output, "a dump of Ray's C++ part"
        assert not psutil.wait_procs(family, timeout=10)[1]
        return output

    process = begin()
    common.wait_until(lambda: has_ray(process), process)
    assert end(process, 0.3).splitlines()[-1] == "nasray: interrupted"
    assert not (tmp_path / "run").exists()

    process = begin()
    common.wait_until(lambda: common.num_parts(tmp_path / "run") >= 5, process)
    second = subprocess.run(
        [*command[:3], "resume", "run"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert second.returncode == 2
    assert f"is in use by process {process.pid} of" in second.stderr
    assert "nasray: interrupted. `nasray resume run` continues" in end(process, 0, 0.01)
    assert (tmp_path / "run" / "best.json").is_file()
    assert not (tmp_path / "run" / OWNER).exists()
