"""Which of Tune's folders may be continued; that Tune does continue them, test_run.py shows."""

import json
import os

import pytest

from nasray.cluster import tune_folder
from nasray.cluster.tune_folder import SIGNATURE, SIGNED, newest_search, next_name, prepare, sign

FIRST, SECOND = "2026-01-01_00-00-00", "2026-01-01_00-10-00"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def search(tmp_path):
    """Tune's folder after two sessions, the second of which was killed after three batches."""
    path = tmp_path / "run" / "tune" / "search-000"
    path.mkdir(parents=True)
    write(path, FIRST, 1)
    write(path, SECOND, 3)
    return path


def write(path, session, num_batches):
    for pattern in SIGNED:
        (path / pattern.format(session)).write_text(f"{pattern} of {session}")
    sign(path, session, path, num_batches)


def names(session):
    return {pattern.format(session) for pattern in (*SIGNED, SIGNATURE)}


def content(search):
    return {path.name for path in search.iterdir()}


def test_the_newest_state_is_kept_and_all_that_is_not_signed_is_removed(search):
    (search / "trial").mkdir()
    for name in ("tuner.pkl", "callback-states-x.pkl", "searcher-state-x.pkl", "trial/error.pkl", "trial/error.txt"):
        (search / name).write_text("x")
    assert prepare(search, 3) is None
    assert content(search) == names(SECOND) | {"trial"}
    assert content(search / "trial") == {"error.txt"}
    assert prepare(search, 3) is None


@pytest.mark.parametrize("pattern", SIGNED)
@pytest.mark.parametrize("harm", ["torn", "empty", "flipped", "absent", "foreign"])
def test_a_damaged_state_is_not_used_but_an_older_one(search, pattern, harm):
    path = search / pattern.format(SECOND)
    whole = path.read_bytes()
    if harm == "absent":
        path.unlink()
    else:
        path.write_bytes({
            "torn": whole[:-1], "empty": b"", "flipped": bytes([whole[0] ^ 1]) + whole[1:],
            "foreign": (search / pattern.format(FIRST)).read_bytes(),
        }[harm])  # fmt: skip
    assert prepare(search, 3) is None
    assert content(search) == names(FIRST)
    (search / pattern.format(FIRST)).write_bytes(b"")
    assert "is not as it was written" in prepare(search, 3)
    assert content(search) == names(FIRST), "a folder that is not used is left as it is"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"signature": 5}', '{"signature": "é"}', "\xff\xfe", "NaN"]
)
def test_a_signature_of_another_shape_is_none(search, text):
    for session in (FIRST, SECOND):
        (search / SIGNATURE.format(session)).write_text(text, encoding="latin-1")
    assert isinstance(prepare(search, 3), str)


@pytest.mark.parametrize("key", ["num_batches", "folder", "files", "format", "signature"])
def test_a_signature_that_was_changed_is_none(search, key):
    for session in (FIRST, SECOND):
        path = search / SIGNATURE.format(session)
        signed = json.loads(path.read_text())
        path.write_text(json.dumps({**signed, key: {} if key == "files" else 0 if key != "signature" else "0" * 64}))
    assert "not written by this user" in prepare(search, 3)


def test_what_was_signed_with_another_key_or_none_is_not_used(search, monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "empty"))
    assert "not written by this user" in prepare(search, 3)
    assert not (tmp_path / "empty").exists(), "asking makes no key"
    write(search, SECOND, 3)
    assert prepare(search, 3) is None


def test_a_key_that_others_can_read_is_none(search, cache):
    (cache / "tune" / "key").chmod(0o644)
    assert "not written by this user" in prepare(search, 3)


def test_where_no_key_can_be_kept_nothing_is_signed(search, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "file" / "cache"))
    session = "2026-01-01_00-20-00"
    write(search, session, 3)
    assert not (search / SIGNATURE.format(session)).exists()


def test_a_folder_that_was_moved_is_not_used(search):
    moved = search.with_name("search-001")
    search.rename(moved)
    assert "moved here from" in prepare(moved, 3)


def test_a_folder_ahead_of_the_history_is_not_used(search):
    assert prepare(search, 2) is None
    assert content(search) == names(FIRST)
    assert "ahead of the history" in prepare(search, 0)


@pytest.mark.parametrize("where", ["folder", "file", "parent"])
def test_a_folder_that_others_may_write_to_is_not_used(search, where):
    path = {"folder": search, "file": search / SIGNED[0].format(FIRST), "parent": search.parent}[where]
    path.chmod(path.stat().st_mode | 0o002)
    assert "others may write to" in prepare(search, 3)
    if where == "parent":  # as /tmp: nobody may rename what is another's
        path.chmod(0o1777)
        assert prepare(search, 3) is None


def test_a_group_is_others_unless_it_is_ones_own(search, monkeypatch):
    search.chmod(0o775)
    monkeypatch.setattr(tune_folder, "_is_own_group", lambda gid: False)
    assert "others may write to" in prepare(search, 3)
    monkeypatch.setattr(tune_folder, "_is_own_group", lambda gid: True)
    assert prepare(search, 3) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("where", ["folder", "file", "parent"])
def test_a_folder_of_another_user_is_not_used(search, where):
    path = {"folder": search, "file": search / SIGNED[0].format(SECOND), "parent": search.parent}[where]
    os.chown(path, 12345, 12345)
    assert "belongs to another user" in prepare(search, 3)


def test_folders_are_counted(tmp_path):
    assert newest_search(tmp_path) is None
    assert next_name(None) == "search-000"
    for name in ("search-9", "search-010", "search-x", "other"):
        (tmp_path / name).mkdir()
    assert newest_search(tmp_path).name == "search-010"
    assert next_name(newest_search(tmp_path)) == "search-011"
