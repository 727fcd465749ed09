"""A search that is killed and resumed ends as one that was not."""

import json
import pickle
import shutil

import pytest

from nasray.cluster.run import tune_state_fault

from . import common


@pytest.mark.parametrize("in_flight", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_history_is_byte_identical_after_kills(tmp_path, in_flight):
    expected = common.uninterrupted(tmp_path / "expected", in_flight=in_flight)
    assert len(expected) == 20
    folder = tmp_path / "run"

    # The driver, as soon as the run exists, and again as soon as it has started once more: twice in a row.
    for _ in range(2):
        process = common.start(folder, in_flight=in_flight)
        common.wait_until(lambda: (folder / "experiment.yaml").exists(), process)
        common.wait_until(lambda: any((folder / "tune").glob("search-*/*")), process)
        common.kill(process)
    # A trial actor in its batch, one between two batches, then the driver in the middle of the search.
    (tmp_path / "suicide").touch()
    (tmp_path / "suicide-between-batches").touch()
    process = common.start(folder, in_flight=in_flight)
    common.wait_until(lambda: common.num_parts(folder) >= 7, process)
    assert not list(tmp_path.glob("suicide*"))
    common.kill(process)
    # The driver, late in the search.
    process = common.start(folder, in_flight=in_flight)
    common.wait_until(lambda: common.num_parts(folder) >= 15, process)
    common.kill(process)
    # To the end.
    output = common.finish(common.start(folder, in_flight=in_flight))
    assert "evaluations are in the history" in output
    assert common.history_bytes(folder) == expected
    best = json.loads((folder / "best.json").read_text())
    assert best == json.loads((tmp_path / "expected" / "best.json").read_text())
    # Once more, when nothing is left to do: at once, and nothing changes.
    common.finish(common.start(folder, in_flight=in_flight))
    assert common.history_bytes(folder) == expected


FILES = ("tuner.pkl", "trainable.pkl", "experiment_state-x.json", "searcher-state-x.pkl", "search_gen_state-x.json")


def write_tune_state(experiment):
    experiment.mkdir(parents=True)
    for name in FILES:
        (experiment / name).write_bytes(pickle.dumps(None) if name.endswith("pkl") else b"{}")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["torn", "empty", "absent"])
def test_a_damaged_tune_folder_is_recognised(tmp_path, name, harm):
    write_tune_state(tmp_path / "search-000")
    path = tmp_path / "search-000" / name
    assert tune_state_fault(path.parent) is None
    if harm == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 1 if harm == "torn" else 0])
    fault = tune_state_fault(path.parent)
    if harm == "torn" and name in ("trainable.pkl", "search_gen_state-x.json"):
        return  # Tune is given these anew
    assert fault is not None


def test_a_damaged_tune_folder_is_no_harm(tmp_path):
    expected = common.uninterrupted(tmp_path / "expected")
    folder = tmp_path / "run"
    shutil.copytree(tmp_path / "expected", folder)
    for name in sorted(expected)[8:]:  # a run that was stopped after eight batches
        (folder / "history" / name).unlink()
    write_tune_state(folder / "tune" / "search-000")
    (folder / "tune" / "search-000" / "searcher-state-x.pkl").write_bytes(b"\x80")
    output = common.finish(common.start(folder))
    assert "is not used" in output
    assert (folder / "tune" / "search-001").is_dir()
    assert common.history_bytes(folder) == expected


def test_an_evaluator_that_keeps_failing_stops_the_run_and_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    expected = common.uninterrupted(tmp_path / "expected")
    (tmp_path / "broken").touch()
    process = common.start(folder, retries=1)
    output, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "no luck with this batch" in output
    assert output.count("and is evaluated again (retry 1 of 1)") in (1, 2)  # of the two in flight
    assert "nasray resume" in output
    (tmp_path / "broken").unlink()
    common.finish(common.start(folder))
    assert common.history_bytes(folder) == expected
