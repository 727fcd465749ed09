"""What is kept under a digest is found until a file, or the software that reads it, changes."""

import os

import numpy as np

from nasray.data import digests
from nasray.data.digests import digest_of, file_state, pixel_software
from nasray.data.image_files.images import ImageFiles, SelectedImages


def test_files_that_change_have_another_state(tmp_path):
    path = tmp_path / "a.png"
    states = [file_state(path)]
    for content, seconds in ((b"one", 1), (b"two", 2), (b"three", 2)):
        path.write_bytes(content)
        os.utime(path, (seconds, seconds))
        states.append(file_state(path))
    assert len(set(states)) == 4
    assert file_state(path) == states[-1]


def test_selected_images_have_the_states_of_their_files(tmp_path):
    files = ImageFiles(tmp_path, ["a.png", "b.png", "c.png"])
    chosen = SelectedImages(files, np.array([2, 0]))
    assert list(chosen.states(np.array([0, 1]))) == [file_state(tmp_path / name) for name in ("c.png", "a.png")]


def test_parts_do_not_run_into_each_other():
    arrays = [np.zeros(2), np.zeros((1, 2)), np.zeros(2, dtype=np.int64), np.zeros(16, dtype=np.uint8)]
    found = [digest_of([array]) for array in arrays] + [digest_of(["ab", "c"]), digest_of(["a", "bc"])]
    assert len(set(found)) == len(found)


def test_another_version_decodes_otherwise(monkeypatch):
    before = digest_of(pixel_software())
    monkeypatch.setattr(digests, "VERSION", "other")
    assert digest_of(pixel_software()) != before
