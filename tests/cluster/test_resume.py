"""A search that is killed and resumed ends as one that was not."""

import json
import shutil

import pytest

from . import common


@pytest.mark.parametrize("in_flight", [1, 2])
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
    # The driver, in the middle of the search.
    process = common.start(folder, in_flight=in_flight)
    common.wait_until(lambda: common.num_parts(folder) >= 6, process)
    common.kill(process)
    # A trial actor, then the driver, late in the search.
    (tmp_path / "suicide").touch()
    process = common.start(folder, in_flight=in_flight)
    common.wait_until(lambda: common.num_parts(folder) >= 14, process)
    assert not (tmp_path / "suicide").exists()
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


@pytest.mark.parametrize("victim", ["tuner.pkl", "experiment_state-*.json", "searcher-state-*.pkl"])
def test_torn_tune_state_is_no_harm(tmp_path, victim):
    expected = common.uninterrupted(tmp_path / "expected")
    folder = tmp_path / "run"
    shutil.copytree(tmp_path / "expected", folder)
    for name in sorted(expected)[8:]:  # a run that was stopped after eight batches
        (folder / "history" / name).unlink()
    experiment = folder / "tune" / "search-000"
    experiment.mkdir(parents=True)
    for name in ("tuner.pkl", "trainable.pkl", "experiment_state-x.json", "searcher-state-x.pkl", "search_gen_state-x.json"):
        (experiment / name).write_bytes(b"\x80\x05N." if name.endswith("pkl") else b"{}")
    for path in experiment.glob(victim):
        path.write_bytes(path.read_bytes()[:1])
    output = common.finish(common.start(folder))
    assert "is not used" in output
    assert "search-001" in " ".join(str(p) for p in (folder / "tune").iterdir())
    assert common.history_bytes(folder) == expected


def test_an_evaluator_that_keeps_failing_stops_the_run_and_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    expected = common.uninterrupted(tmp_path / "expected")
    (tmp_path / "broken").touch()
    process = common.start(folder)
    output, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "no luck with this batch" in output
    assert "nasray resume" in output
    (tmp_path / "broken").unlink()
    common.finish(common.start(folder))
    assert common.history_bytes(folder) == expected
