import multiprocessing
import os
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nasray.data.mapped import KEPT, CacheError, Room, Texts, shared_arrays, source_digest, streamed_arrays
from nasray.spaces import NasrayError


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
    content[content.index(b"abcde")] ^= 1
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


def test_whoever_waits_for_a_process_that_is_killed_makes_it(cache):
    """What the dead one left is removed."""
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()

    def parts():
        yield "floats", np.zeros(2**20)  # more than is buffered
        begun.set()
        time.sleep(60)

    writer = fork.Process(target=streamed_arrays, args=("things", "a", parts))
    writer.start()
    assert begun.wait(30)
    found = []
    waiting = threading.Thread(target=lambda: found.append(shared_arrays("things", "a", lambda: ARRAYS)))
    waiting.start()
    time.sleep(0.3)
    assert not found
    assert len(list(cache.glob(".*.tmp"))) == 1
    writer.kill()
    writer.join()
    waiting.join()
    assert_same(found[0])
    assert not list(cache.glob(".*.tmp"))


def test_processes_that_were_forked_meanwhile_hold_no_lock(cache):
    """As those of a loader, which outlive the writing."""
    children = []

    def make():
        children.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)))
        children[-1].start()
        return ARRAYS

    try:
        assert_same(shared_arrays("things", "a", make))
        (cache / "a.arrays").unlink()
        begin = time.monotonic()
        assert_same(shared_arrays("things", "a", lambda: ARRAYS))
        assert time.monotonic() - begin < 30
    finally:
        for child in children:
            child.kill()
            child.join()


def test_a_mistake_of_the_source_is_raised_as_it_is(cache):
    def parts():
        yield "floats", np.zeros(3)
        raise NasrayError("image x cannot be read")

    with pytest.raises(NasrayError, match=r"^image x cannot be read$"):
        streamed_arrays("things", "a", parts)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def things(number):
    return [("a", np.full(1000, number, dtype=np.uint8))]


def test_room_is_made_of_what_nobody_maps(cache):
    """Two files of 1,000 bytes, which are a little larger themselves."""
    room = Room(1000, 3200)
    mapped = streamed_arrays("things", "0", lambda: things(0), room)
    os.utime(cache / "0.arrays", (0, 0))
    streamed_arrays("things", "1", lambda: things(1), room)
    streamed_arrays("things", "2", lambda: things(2), room)
    assert sorted(path.name for path in cache.iterdir()) == ["0.arrays", "0.lock", "2.arrays", "2.lock"]
    assert (mapped["a"] == 0).all()
    also = streamed_arrays("things", "2", never, room)
    with pytest.raises(CacheError, match=r"would be more than .* GiB with the .* GiB that are in use"):
        streamed_arrays("things", "3", never, room)
    del mapped, also
    assert (streamed_arrays("things", "3", lambda: things(3), room)["a"] == 3).all()
    assert not (cache / "0.arrays").exists()


def test_what_is_too_large_removes_nothing(cache, monkeypatch):
    streamed_arrays("things", "0", lambda: things(0), Room(1000, 3500))
    with pytest.raises(CacheError, match="would be more than"):
        streamed_arrays("things", "1", never, Room(4000, 3500))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1999))
    with pytest.raises(CacheError, match=r"more than half of the .* that are free. Set NASRAY_CACHE"):
        streamed_arrays("things", "1", never, Room(1000, 3500))
    assert (cache / "0.arrays").exists()


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
