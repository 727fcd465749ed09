from __future__ import annotations

import numpy as np
import pytest

from nasray.reports.data import RunData, read_run, run_timing
from nasray.searchers import Objective, RandomSearch
from tests.nasray.reports.common import SCORE, PricedGrid, write_run


def test_many_small_batches_are_thinned() -> None:
    num = 450
    value = np.arange(num, dtype=float)
    run = RunData(
        "run", {}, (SCORE,), [str(index) for index in range(num)], np.zeros((num, 1), dtype=np.int64), {},
        {"score": value}, np.arange(1, num + 1), run_timing([], np.arange(1, num + 1)),
    )  # fmt: skip
    points = run.convergence(SCORE)
    assert len(points.evaluations) == 150
    assert points.evaluations[-1] == num
    assert points.mean[:2].tolist() == [1.0, 4.0], "each point is the mean of three batches"
    assert run.timing.seconds is None


def test_pauses_between_sessions_do_not_count() -> None:
    trial = {"host": "a", "seconds": 2.0}
    trials = [
        {**trial, "batch": 0, "process": 1, "started": 0.0},
        {**trial, "batch": 1, "process": 1, "started": 3.0},
        {**trial, "batch": 2, "process": 2, "started": 5000.0},
        {**trial, "batch": 3, "process": 3, "started": 5001.0},
    ]
    timing = run_timing(trials, np.array([10, 20, 30, 40]))
    assert timing.seconds == pytest.approx(5.0 + 3.0)
    assert timing.evaluations_per_second == pytest.approx(40 / 8)
    assert (timing.sessions, timing.workers) == (2, 2)
    assert timing.busy_share == pytest.approx(8.0 / (5.0 + 2 * 3.0))
    # A slow batch, or a wait, in which a worker lives on, is no pause.
    trials[2]["process"] = 1
    assert run_timing(trials, np.array([10, 20, 30, 40])).seconds == pytest.approx(5003.0)


def test_what_a_run_was_begun_with_and_what_it_has(tmp_path):
    budget = {"price": 20.0, "min_price": 2.0, "gmacs": None}
    description = {"experiment": {"name": "x", "evaluations": 90, "budget": budget}}
    folder = write_run(tmp_path / "run", RandomSearch(PricedGrid(), seed=2), 64, description)
    run = read_run(folder)
    assert (run.name, run.asked, run.finished, len(run.ids)) == ("x", 90, True, 64)
    assert run.budget.upper == {"price": 20.0}
    assert run.budget.lower == {"price": 2.0}
    assert run.cost_scope == {"scope": "architecture", "image_hw": None, "costs": {"price": "as the space counts it"}}
    assert (run.parents == -1).all(), "a random search breeds nothing"
    assert run.entry(int(run.leaders[0]), PricedGrid()) == folder.read_best()["best"][0]
    with pytest.raises(Exception, match=r"'latency_ms' is not in the run's history. It has: price, score"):
        read_run(folder, [Objective("latency_ms", "min")])
