"""How far a run is, and how long the rest takes."""

import math

import pytest

from nasray.stages.outlook import Effort, outlook, time_left, time_left_text


def epochs(done, total, like="a"):
    return Effort(total, done, "epochs", like)


def record(seconds, *, done=False):
    return {"seconds": seconds, "sessions": 1, **({"result": {}} if done else {})}


def left(stages):
    return [stage.left for stage in stages]


def test_a_stage_is_estimated_by_its_own_rate_and_others_of_like_work_by_that_of_all():
    efforts = {"one": epochs(10, 10), "two": epochs(5, 20), "three": epochs(0, 30), "four": epochs(0, 2, "b")}
    efforts["begun"] = epochs(0, 2)
    stages = outlook(efforts, {"one": record(100, done=True), "two": record(200), "begun": record(50)})
    assert left(stages) == [0, 600, 30 * 300 / 15, None, 2 * 300 / 15]
    assert time_left(stages) == (1240, False)
    assert time_left_text(stages) == "at least 20:40"


def test_what_nothing_tells_of_is_not_guessed():
    stages = outlook({"train": epochs(0, 10), "prune": None}, {})
    assert left(stages) == [None, None]
    assert time_left_text(stages) == ""
    begun = outlook({"train": epochs(0, 10), "prune": None}, {"train": record(100)})
    assert left(begun) == [None, None], "time without work done is no rate"
    assert time_left_text(begun, "train", 60) == "at least 1:00"


def test_a_stage_that_is_done_has_nothing_left_whatever_its_work_says():
    records = {"prune": record(3, done=True), "search": record(50, done=True), "train": record(10)}
    stages = outlook({"prune": None, "search": epochs(7, 10, "early"), "train": epochs(1, 3)}, records)
    assert left(stages) == [0, 0, 20]
    assert time_left_text(stages) == "0:20"


def test_the_run_takes_at_least_as_long_as_the_work_under_way():
    stages = outlook({"train": epochs(1, 3), "more": epochs(0, 1)}, {"train": record(10)})
    assert time_left(stages) == (30, True)
    assert time_left_text(stages, "train", 5) == "0:30"
    assert time_left_text(stages, "train", 3600) == "1:00:10"
    assert time_left_text(stages, "train", math.inf) == "0:30"


@pytest.mark.parametrize(("done", "text"), [(0, "0 of 1,200 epochs"), (40.25, "40.2 of 1,200 epochs")])
def test_work_in_words(done, text):
    (stage,) = outlook({"train": epochs(done, 1200)}, {})
    assert stage.work_text() == text
    assert stage.to_json()["total"] == 1200
    assert outlook({"prune": None}, {})[0].work_text() == "-"
