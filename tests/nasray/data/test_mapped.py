import os
import threading
import time

import numpy as np
import pytest

from nasray.data.mapped import KEPT, Texts, shared_arrays, source_digest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "things"


ARRAYS = {
    "floats": np.arange(6.0).reshape(3, 2), "flags": np.array([True, False, True]), "none": np.zeros((0, 4)),
    "bytes": np.frombuffer(b"abcde", dtype=np.uint8), "every other": np.arange(10)[::2],
}  # fmt: skip


def never():
    raise AssertionError("made again")


def assert_same(found):
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert (found[name] == array).all()


def test_made_once_then_mapped(cache):
    for make in (lambda: ARRAYS, never):
        found = shared_arrays("things", "a", make)
        assert_same(found)
        assert not found["floats"].flags.writeable
    assert shared_arrays("things", "b", lambda: None) is None
    assert [path.name for path in cache.glob("*.arrays")] == ["a.arrays"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_made_again(cache, damage):
    shared_arrays("things", "a", lambda: ARRAYS)
    path = cache / "a.arrays"
    content = bytearray(path.read_bytes())
    content[-ARRAYS["every other"].nbytes - 24] ^= 1
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-100], "flipped": bytes(content), "foreign": b"{}", "empty": b""}[damage])
    assert_same(shared_arrays("things", "a", lambda: ARRAYS))
    assert path.read_bytes() == whole


def test_whoever_comes_meanwhile_waits(cache):
    made = []

    def make():
        made.append(os.getpid())
        time.sleep(0.3)
        return ARRAYS

    threads = [threading.Thread(target=lambda: assert_same(shared_arrays("things", "a", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "file"))
    assert_same(shared_arrays("things", "a", lambda: ARRAYS))
    assert "Set NASRAY_CACHE to a folder that can be written" in capsys.readouterr().err


def test_no_home_is_said(monkeypatch, capsys):
    monkeypatch.delenv("NASRAY_CACHE", raising=False)

    def no_home(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", no_home)
    assert_same(shared_arrays("things", "a", lambda: ARRAYS))
    assert "Set NASRAY_CACHE" in capsys.readouterr().err


def test_files_that_were_not_used_for_long_go(cache):
    for number in range(KEPT + 2):
        shared_arrays("things", str(number), lambda: {"a": np.zeros(1)})
        os.utime(cache / f"{number}.arrays", (number, number))
    kept = {path.stem for path in cache.glob("*.arrays")}
    assert len(kept) == KEPT
    assert str(KEPT + 1) in kept


def test_the_digest_is_of_the_content(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, text in zip(paths, ("one", "one", "two"), strict=True):
        path.write_text(text)
        os.utime(path, (1, 1))
    first, same, other = (source_digest(path, "1") for path in paths)
    assert first == same != other
    assert first != source_digest(paths[0], "2")


def test_texts():
    names = ["a b.jpg", "", "猫", "\udce9"]
    texts = Texts.of(names)
    assert list(texts) == names
    assert (len(texts), texts[-1], texts[1:3]) == (4, "\udce9", ["", "猫"])
    with pytest.raises(IndexError):
        texts[4]
    assert list(Texts.of([])) == []
