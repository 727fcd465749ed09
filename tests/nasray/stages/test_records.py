"""What the stages of a run took: their time, in all sessions, and their results."""

import time

import pytest

from nasray.cluster import RunFolder
from nasray.stages import records
from nasray.stages.records import Records


def test_records_count_sessions_and_keep_results(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    first = Records(run)
    with pytest.raises(KeyboardInterrupt), first.timed("search", {"evaluator.supernet": "0" * 64}):
        raise KeyboardInterrupt
    assert not Records(run).is_done("search")
    assert Records(run).inputs("search") == {"evaluator.supernet": "0" * 64}
    again = Records(run)
    with again.timed("search", {}):
        pass
    again.result("search", {"score": 0.5})
    with Records(run).timed("search", {}):
        pass
    assert Records(run).content["search"]["sessions"] == 2
    assert Records(run).is_done("search")


def test_the_time_of_a_session_that_is_killed_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "INTERVAL", 0.01)
    run = RunFolder.create(tmp_path / "run", {})
    with Records(run).timed("search", {}):
        begin = time.monotonic()
        while not Records(run).content["search"]["seconds"]:  # what would be left of it
            assert time.monotonic() < begin + 30
            time.sleep(0.01)


def test_the_time_of_a_session_under_way_is_counted_when_asked_for(tmp_path):
    now = Records(RunFolder.create(tmp_path / "run", {}))
    with now.timed("search", {}):
        time.sleep(0.02)
        now.count()
        assert now.content["search"]["seconds"] > 0
