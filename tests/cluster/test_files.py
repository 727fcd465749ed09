import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nasray.cluster import files, processes, write_atomic
from nasray.cluster.files import to_json
from nasray.spaces import NasrayError


def test_numbers_that_are_not_finite_become_null():
    content = {"a": float("nan"), "b": [np.float32("inf"), (1, -np.inf)], "c": np.array([1.0, np.nan])}
    assert json.loads(to_json(content)) == {"a": None, "b": [None, [1, None]], "c": [1.0, None]}


def test_plain_values_stay_what_they_are():
    content = {
        "a": 1,
        "b": True,
        "c": None,
        "d": "ü\n",
        "e": [0.1, 1e300],
        3: np.int64(2),
        "f": Path("x/y"),
        "g": np.bool_(True),
    }
    expected = {"a": 1, "b": True, "c": None, "d": "ü\n", "e": [0.1, 1e300], "3": 2, "f": "x/y", "g": True}
    assert json.loads(to_json(content, indent=1)) == expected


def test_what_has_no_json_is_our_own_bug():
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_keys_are_the_same_with_and_without_numbers_that_are_not_finite():
    content = {1: 0.0, None: 0.0, 2.5: 0.0, "x": 0.0}
    assert list(json.loads(to_json(content))) == list(json.loads(to_json({**content, "x": float("nan")})))
    assert json.loads(to_json({float("nan"): 1, Path("a"): 2})) == {"nan": 1, "a": 2}


def test_compact_json_has_no_spaces():
    assert to_json([[1, float("nan")], {"a": 2}], compact=True) == '[[1,null],{"a":2}]'


# ---- leftovers of killed processes -------------------------------------------------------------------------------

WRITE = """
import os, signal, sys
from pathlib import Path
from nasray.cluster import write_atomic

def write(file):
    file.write(b"x" * 1000)
    if sys.argv[2] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()

write_atomic(Path(sys.argv[1]), write)
"""


def writer(path, what):
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), what], stdin=pipe, stdout=pipe, text=True)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    living = writer(tmp_path / "living.pt", "lives")
    assert living.stdout.readline() == "writing\n"
    assert writer(tmp_path / "dead.pt", "dies").wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    write_atomic(tmp_path / "other.json", b"{}")
    (left,) = tmp_path.glob(".*.tmp")
    assert left.name.startswith(".living.pt.")
    living.communicate("")
    assert living.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"living.pt", "other.json"}


@pytest.mark.parametrize(
    ("name", "age", "is_removed"),
    [
        (".last.pt.{machine}-{pid}-{start}-0.tmp", 10 * files.OLD, False),  # this process
        (".last.pt.{machine}-{pid}-1-0.tmp", 0, True),  # its number, used by another before
        (".last.pt.{machine}-{pid}-dead-0.tmp", 0, True),
        (".last.pt.00000000-{pid}-{start}-0.tmp", 0, False),  # another machine
        (".last.pt.00000000-{pid}-{start}-0.tmp", 10 * files.OLD, True),
        (".last.pt.123.tmp", 0, False),  # of earlier versions
        (".last.pt.123.tmp", 10 * files.OLD, True),
        (".bashrc.tmp", 10 * files.OLD, False),
        ("last.tmp", 10 * files.OLD, False),
        (".a.b.tmp", 10 * files.OLD, False),
    ],
)
def test_whose_leftovers_are_removed(tmp_path, name, age, is_removed):
    pid = os.getpid()
    path = tmp_path / name.format(machine=files._machine(), pid=pid, start=processes.started(pid))
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    files.remove_leftovers(tmp_path)
    assert path.exists() != is_removed


def test_names_aside_differ_and_fit(tmp_path):
    write_atomic(tmp_path / ("n" * 250), b"")
    assert files.aside_path(tmp_path / "x") != files.aside_path(tmp_path / "x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
def test_errors_of_the_disk_are_one_line_and_leave_the_old_content(tmp_path, monkeypatch, number):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(NasrayError, match=os.strerror(number)) as caught:
        write_atomic(path, b"new")
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_was_removed_is_named(tmp_path):
    with pytest.raises(NasrayError, match=r"its folder was removed or moved. Put it back"):
        write_atomic(tmp_path / "gone" / "file", b"")
