"""What the search algorithm makes of trials that fail."""

import numpy as np
import pytest
from ray.tune.search import Searcher as TuneSearcher

from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.adapter import SESSION, TuneSearchAlgorithm
from nasray.cluster.ordering import ToldBatch
from nasray.cluster.recorder import Recorder
from nasray.cluster.trial import pack, unpack

from . import common


@pytest.fixture
def algorithm(tmp_path, monkeypatch):
    """Of a search with two batches of eight in flight, each of which may fail twice."""
    monkeypatch.setattr(SESSION, "retries", 2)
    return make_algorithm(tmp_path / "run")


def make_algorithm(folder):
    drive = common.load_drive()
    searcher = drive.Evolution(drive.Grid(), population_size=16, mutation=0.5, crossover=0.4, seed=5)
    search = OrderedSearch(searcher, evaluations=16, batch_size=8, in_flight=2)
    search.fill()
    run = RunFolder(folder) if folder.exists() else RunFolder.create(folder, {})
    return TuneSearchAlgorithm(search, Recorder(run, search))


def finish(algorithm, trial, config):
    score = unpack(config["genes"])["genes"].sum(axis=1).astype(float)
    where = {"started": 0.0, "seconds": 1.0, "host": "here", "process": 1}
    algorithm.on_trial_complete(trial, {"batch": config["batch"], "metrics": pack({"score": score}), **where})


def test_a_failed_batch_goes_to_the_next_trial(algorithm, capsys):
    first, second = algorithm.suggest("a"), algorithm.suggest("b")
    assert algorithm.suggest("c") is None
    finish(algorithm, "b", second)
    algorithm.on_trial_complete("a", error=True)
    assert algorithm.suggest("c") == first
    assert "batch 0 failed, and is evaluated again (retry 1 of 2)" in capsys.readouterr().err
    finish(algorithm, "c", first)
    assert algorithm.suggest("d") == TuneSearcher.FINISHED
    assert algorithm.search.is_finished


def test_a_batch_that_fails_too_often_stops_the_run(algorithm):
    algorithm.suggest("other")
    for trial in ("a", "b", "c"):
        assert algorithm.suggest(trial)["batch"] == 1
        algorithm.on_trial_complete(trial, error=True)
    assert algorithm.suggest("d") == TuneSearcher.FINISHED
    assert not algorithm.search.is_finished


def test_a_failure_that_came_after_the_result_is_none(algorithm):
    config = algorithm.suggest("a")
    finish(algorithm, "a", config)
    for _ in range(5):
        algorithm.on_trial_complete("a", error=True)
    assert algorithm.suggest("b")["batch"] == 1


def again(algorithm, tmp_path, *, told=()):
    """An algorithm of a later session, with the history that there is by then, restored from Tune's checkpoint."""
    algorithm.save(str(tmp_path / "state.json"))
    for path in (tmp_path / "run" / "history").iterdir():
        path.unlink()
    later = make_algorithm(tmp_path / "run")
    for index in told:
        proposal = later.search.pending[index]
        metrics = {"score": proposal.genes.sum(axis=1).astype(float)}
        later.search.tell(ToldBatch(index, proposal, metrics))
    later.restore(str(tmp_path / "state.json"))
    return later


def test_a_result_that_waited_for_its_turn_survives_a_kill(algorithm, tmp_path):
    algorithm.suggest("a")
    finish(algorithm, "b", algorithm.suggest("b"))
    later = again(algorithm, tmp_path)
    config = later.suggest("c")
    assert config["batch"] == 0
    assert later.suggest("d") is None, "batch 1 is done"
    finish(later, "c", config)
    assert later.search.is_finished
    assert [record["trial"] for record in later.recorder.folder.read_trials()] == ["c", "b"]


def test_a_result_that_waited_is_told_at_once_if_the_history_went_on(algorithm, tmp_path):
    algorithm.suggest("a")
    finish(algorithm, "b", algorithm.suggest("b"))
    later = again(algorithm, tmp_path, told=[0])
    assert later.search.is_finished
    assert (tmp_path / "run" / "history" / "000001.parquet").exists()


def test_a_result_of_other_architectures_is_left_alone(algorithm, tmp_path):
    algorithm.suggest("a")
    finish(algorithm, "b", algorithm.suggest("b"))
    algorithm.search.pending[1].genes[0] += 1
    assert not again(algorithm, tmp_path).search.waiting


@pytest.mark.parametrize("text", ["", "AAAA", "eJxLzk/M", pack({"a": np.zeros(3)})[:-8]])
def test_what_is_not_packed_is_no_more_than_an_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        unpack(text)


def test_arrays_come_back(tmp_path):
    arrays = {"file": np.array([[1, -2]], dtype=np.int16), "é": np.array([np.nan, -np.inf]), "none": np.zeros((0, 3))}
    found = unpack(pack(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
