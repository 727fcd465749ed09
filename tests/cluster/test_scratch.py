import os
import shutil
import stat
from pathlib import Path

import pytest

from nasray.cluster import scratch
from nasray.cluster.scratch import LONGEST, remove_dead, scratch_folder


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A folder for temporary files with a path as short as /tmp's."""
    path = Path("/tmp") / f"nasray-test-{os.getpid()}"
    path.mkdir()
    monkeypatch.setattr(scratch, "_root", lambda: path)
    monkeypatch.setattr(scratch, "LONGEST", LONGEST + 30)
    yield path
    shutil.rmtree(path)


def test_others_cannot_look_into_it(root):
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert folder.parent.parent == root
        (folder / "socket").touch()
    assert list(folder.parent.iterdir()) == []


def test_what_killed_sessions_left_is_removed_and_living_ones_are_not(root):
    with scratch_folder() as living:
        if (child := os.fork()) == 0:
            held = scratch_folder()
            held.__enter__()
            os._exit(0)
        os.waitpid(child, 0)
        assert len(list(living.parent.iterdir())) == 4
        with scratch_folder() as new:
            assert {path.name for path in living.parent.iterdir()} == {
                name for path in (living, new) for name in (path.name, f"{path.name}.lock")
            }
        remove_dead(living.parent)
        assert living.is_dir()


def test_a_folder_with_too_open_a_mode_is_closed(root):
    (root / f"nasray-{os.getuid()}").mkdir(mode=0o777)
    with scratch_folder() as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "file", "foreign"])
def test_a_trap_of_somebody_else_is_left_alone(root, tmp_path, kind, monkeypatch):
    trap = root / f"nasray-{os.getuid()}"
    if kind == "link":
        trap.symlink_to(tmp_path)
    elif kind == "file":
        trap.touch()
    else:
        uid = os.getuid()
        trap.mkdir()
        trap = root / f"nasray-{uid + 1}"
        trap.mkdir()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with scratch_folder() as folder:
        assert folder.parent != trap
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []
