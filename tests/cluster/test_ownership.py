"""One owner of a folder: real processes, dead ones, other machines, races."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nasray.cluster import ownership
from nasray.cluster.ownership import OWNER, STALE, Owner, is_empty, owned, refuse_owned
from nasray.cluster.processes import machine, started
from nasray.spaces import NasrayError

FORK = multiprocessing.get_context("fork")
RACE = Path(__file__).with_name("drive_race.py")


def own_until_told(folder, pipe):
    with owned(folder):
        pipe.send("mine")
        pipe.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that owns the folder `run`, and the pipe that ends it."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=own_until_told, args=(tmp_path / "run", theirs), daemon=True)
    process.start()
    assert ours.recv() == "mine"
    yield process, ours
    process.kill()
    process.join()


def write_owner(folder, *, age=0.0, **changes):
    """The file of an owner on another machine, touched `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    owner = {**vars(ownership._myself()), "host": "elsewhere", "machine": "elsewhere boot pid", **changes}
    (folder / OWNER).write_text(json.dumps(owner))
    os.utime(folder / OWNER, (time.time() - age,) * 2)
    return owner


def test_a_second_process_is_refused_with_who_where_and_since_when(tmp_path, other):
    process, pipe = other
    before = (tmp_path / "run" / OWNER).read_bytes()
    for attempt in (refuse_owned, lambda path: owned(path).__enter__()):
        with pytest.raises(NasrayError) as caught:
            attempt(tmp_path / "run")
        text = str(caught.value)
        owner = Owner(**json.loads(before))
        assert f"process {process.pid} of {owner.user} on {owner.host} since {owner.since}" in text
        assert "\n" not in text
    assert [path.name for path in (tmp_path / "run").iterdir()] == [OWNER], "nothing was changed"
    assert (tmp_path / "run" / OWNER).read_bytes() == before
    pipe.send("enough")
    process.join()
    with owned(tmp_path / "run"):
        pass


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_owner_is_found_out(tmp_path, other, capsys, reaped):
    process, _ = other
    process.kill()
    if reaped:
        process.join()
    else:
        while started(process.pid) != "dead":
            time.sleep(0.01)
    refuse_owned(tmp_path / "run")
    with owned(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / OWNER).read_text())["process"] == os.getpid()
    assert f"taken over from process {process.pid}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists() or list((tmp_path / "run").iterdir()) == []


def test_another_process_of_the_same_number_is_not_the_owner(tmp_path):
    write_owner(tmp_path / "run", machine=machine(), process=os.getppid(), started="1")
    with owned(tmp_path / "run"):
        pass


def test_an_owner_on_another_machine_counts_by_its_signs_of_life(tmp_path):
    write_owner(tmp_path / "run", age=STALE - 30)
    with pytest.raises(NasrayError, match=r"on elsewhere since .* is 60 s old, and it counts as dead in 30 s"):
        owned(tmp_path / "run").__enter__()
    write_owner(tmp_path / "run", age=STALE + 1)
    with owned(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / OWNER).read_text())["process"] == os.getpid()


def test_a_lock_that_reaches_here_keeps_a_silent_owner_alive(tmp_path):
    write_owner(tmp_path / "run", age=STALE + 1000)
    file = ownership._flock(tmp_path / "run" / OWNER)
    with pytest.raises(NasrayError, match="in use by"):
        owned(tmp_path / "run").__enter__()
    os.close(file)
    with owned(tmp_path / "run"):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"host": 3}', b'{"key": "a'])
def test_an_owner_that_cannot_be_understood_counts_by_its_age(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / OWNER).write_bytes(content)
    with pytest.raises(NasrayError, match="in use by an owner that"):
        owned(tmp_path / "run").__enter__()
    os.utime(tmp_path / "run" / OWNER, (time.time() - STALE - 1,) * 2)
    with owned(tmp_path / "run"):
        pass


@pytest.mark.parametrize("before", ["nothing", "killed", "stale"])
@pytest.mark.parametrize("attempt", range(2))
def test_of_eight_processes_exactly_one_wins(tmp_path, before, attempt):
    folder = tmp_path / "run"
    if before == "stale":
        write_owner(folder, age=STALE + 1)
    if before == "killed":
        write_owner(folder, machine=machine(), process=2**22 - 1)
    # They are forked in a process of one thread: what other threads hold at a fork is held for ever in the child.
    done = subprocess.run([sys.executable, RACE, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    winners, losers, left = json.loads(done.stdout.splitlines()[-1])
    assert len(winners) == 1
    assert [f"process {winners[0]} of" in loser for loser in losers] == [True] * 7
    assert left == [OWNER], "claims are removed"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    write_owner(tmp_path / "run", age=STALE + 1)
    with owned(tmp_path / "run"), pytest.raises(NasrayError, match="in use by"):
        owned(tmp_path / "run").__enter__()


def test_what_was_made_and_not_used_is_removed(tmp_path):
    with pytest.raises(RuntimeError), owned(tmp_path / "a" / "b"):
        raise RuntimeError("nothing was begun")
    assert list(tmp_path.iterdir()) == []
    with owned(tmp_path / "a" / "b"):
        assert is_empty(tmp_path / "a" / "b")
        (tmp_path / "a" / "b" / "result").touch()
        assert not is_empty(tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["result"]


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(NasrayError, match="cannot make folder"):
        owned(tmp_path / "file").__enter__()
    with pytest.raises(NasrayError, match="cannot make folder"):
        owned(tmp_path / ("x" * 300)).__enter__()

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("write_text", "unlink"):  # a disk that is read-only refuses to remove even what is not there
        monkeypatch.setattr(ownership.Path, name, refuse)
    (tmp_path / "run").mkdir()
    with pytest.raises(NasrayError, match="Read-only file system"):
        owned(tmp_path / "run").__enter__()
    assert list((tmp_path / "run").iterdir()) == []


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "HEARTBEAT", 0.05)
    with owned(tmp_path / "run"):
        os.utime(tmp_path / "run" / OWNER, (0, 0))
        deadline = time.monotonic() + 10
        while not (tmp_path / "run" / OWNER).stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "run" / OWNER).stat().st_mtime > 0


def test_an_owner_that_was_taken_for_dead_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(ownership, "HEARTBEAT", 0.05)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def work():
        with owned(tmp_path / "run"):
            write_owner(tmp_path / "run")
            time.sleep(20)

    try:
        with pytest.raises(NasrayError, match=r"was taken over by .* on elsewhere"):
            work()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "run" / OWNER).exists(), "it is the other's"


def test_patience(tmp_path, other):
    _, pipe = other
    threading.Timer(0.3, pipe.send, ["enough"]).start()
    with owned(tmp_path / "run", patience=20):
        pass
