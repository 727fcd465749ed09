"""MLflow, against a store of files: nothing is sent."""

import pytest

from nasray.callbacks import make_callbacks
from tests.nasray.callbacks.common import begin_run, expected, session

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_both_a_search_and_a_training_are_held(tmp_path):
    run = tmp_path / "run"
    begin_run(run)
    for number in range(2):
        callback = make_callbacks(["mlflow"])["mlflow"]
        for event in session(str(run), number):
            callback(event)
        callback.close()
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("nasray").experiment_id])
    assert found.info.run_name == "run"
    assert found.info.status == "FINISHED"
    assert found.data.params == {"experiment.name": "tiny", "experiment.seed": "3"}
    assert found.data.tags["search/state"] == "end"
    for source, place in (("search", 0), ("train/1-ab", 1)):
        for name in expected(0)[place]:
            history = client.get_metric_history(found.info.run_id, f"{source}/{name.replace('/', '.')}")
            assert [(metric.step, metric.value) for metric in history] == [
                (8 * number + 8, expected(number)[place][name]) for number in range(2)
            ], name


def test_a_run_that_stopped_has_failed(tmp_path):
    run = tmp_path / "run"
    begin_run(run)
    callback = make_callbacks(["mlflow"])["mlflow"]
    begin, *_ = session(str(run), 0)
    callback(begin)
    callback(type(begin)(str(run), "search", "stop", error="disk full"))
    callback.close()
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("nasray").experiment_id])
    assert found.info.status == "FAILED"
