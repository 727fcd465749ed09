"""What the search algorithm makes of trials that fail."""

import pytest
from ray.tune.search import Searcher as TuneSearcher

from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.adapter import SESSION, TuneSearchAlgorithm
from nasray.cluster.recorder import Recorder
from nasray.cluster.trial import pack, unpack

from . import common


@pytest.fixture
def algorithm(tmp_path, monkeypatch):
    """Of a search with two batches of eight in flight, each of which may fail twice."""
    monkeypatch.setattr(SESSION, "retries", 2)
    drive = common.load_drive()
    searcher = drive.Evolution(drive.Grid(), population_size=16, mutation=0.5, crossover=0.4, seed=5)
    search = OrderedSearch(searcher, evaluations=16, batch_size=8, in_flight=2)
    search.fill()
    return TuneSearchAlgorithm(search, Recorder(RunFolder.create(tmp_path / "run", {}), search))


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
