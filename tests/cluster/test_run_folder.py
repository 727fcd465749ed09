import errno
import os

import numpy as np
import pytest
import yaml

from nasray.cluster import RunFolder, write_atomic
from nasray.spaces import NasrayError

from . import common


@pytest.fixture
def run(tmp_path):
    common.uninterrupted(tmp_path / "run", evaluations=40)
    return RunFolder.open(tmp_path / "run")


def test_history_reads_back(run):
    history = run.read_history()
    assert len(history.ids) == len(set(history.ids)) == 40
    space = common.load_drive().Grid()
    assert history.ids == space.ids(history.genes)
    assert np.array_equal(history.costs["size"], space.cost(history.genes)["size"])
    assert history.parents.shape == (40, 2)
    assert (history.parents < np.arange(40)[:, None]).all()
    best = run.read_best()["best"]
    assert best[0]["metrics"]["score"] == history.metrics["score"].max()
    assert best[0]["id"] == history.ids[best[0]["evaluation"]]


def test_create_refuses_a_folder_with_something_in_it(run, tmp_path):
    with pytest.raises(NasrayError, match=r"not empty.*nasray resume"):
        RunFolder.create(run.path, {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(NasrayError, match="something else"):
        RunFolder.create(tmp_path / "other", {})
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_open_refuses_what_is_no_run_or_newer(run, tmp_path):
    with pytest.raises(NasrayError, match="is no run"):
        RunFolder.open(tmp_path)
    (run.path / "experiment.yaml").write_text(yaml.safe_dump({"format": 99}))
    with pytest.raises(NasrayError, match="newer version"):
        RunFolder.open(run.path)


def test_a_corrupt_or_missing_part_file_is_named(run):
    path = run.history / "000002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NasrayError, match=r"000002.parquet is corrupt.*Nothing was changed"):
        list(run.read_batches())
    path.unlink()
    with pytest.raises(NasrayError, match=r"000002.parquet is missing"):
        list(run.read_batches())


def test_a_full_disk_is_one_message_and_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasrayError, match=r"disk full.*nasray resume"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
