"""A training's log, read while it grows."""

import json

import pytest

from nasray.cluster.board import Board, watch
from nasray.cluster.callbacks import heard_by, read_told
from nasray.cluster.log_tail import LogTail, log_scalars, position


def step(iteration, loss=1.0):
    return {"iteration": iteration, "losses": {"cls": loss}, "lr": 0.1}


def validation(iteration):
    return {"iteration": iteration, "metrics": {"mAP": 0.5}}


def write(path, *lines, mode="a"):
    with open(path / "log.jsonl", mode) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {
                "iteration": 2, "epoch": 0.5, "loss": 3.0, "losses": {"cls": 1.0, "box": 2.0}, "lr": 0.1,
                "grad_norm": 4.0, "acceptance": 0.5, "shares": {"box": [[1.0]]},
                "alpha": {"entropy": 0.3, "none": 0.2}, "images_per_s": 8.0,
            },
            {
                "loss": 3.0, "loss/cls": 1.0, "loss/box": 2.0, "train/lr": 0.1, "train/grad_norm": 4.0,
                "train/acceptance": 0.5, "alpha/entropy": 0.3, "alpha/none": 0.2, "speed/images_per_s": 8.0,
            },
        ),
        (
            {"iteration": 2, "metrics": {"mAP": 0.5, "mAP_large": float("nan"), "AP50": None}, "seconds": 3.0},
            {"val/mAP": 0.5},
        ),
        ({"iteration": 2, "losses": {}, "grad_norm": None, "images_per_s": 0.0}, {}),
    ],
    ids=["step", "validation", "no numbers"],
)  # fmt: skip
def test_scalars_of_a_line(line, expected):
    assert log_scalars(line) == expected


def test_a_validation_comes_after_its_step():
    places = [position(line) for line in (step(1), validation(1), step(2), validation(2))]
    assert places == sorted(set(places))


def test_lines_are_new_once(tmp_path):
    tail = LogTail(tmp_path)
    assert tail.new_lines() == []
    write(tmp_path, step(2), validation(2))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"iteration": 4, ')
    assert tail.new_lines() == [step(2), validation(2)]
    assert tail.new_lines() == []
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('"losses": {}}\n')
    assert tail.new_lines() == [{"iteration": 4, "losses": {}}]


@pytest.mark.parametrize("num_again", [1, 2, 3, 4])
def test_what_is_written_again_after_a_restart_is_not_new(tmp_path, num_again):
    """The log is cut at step 4, and lines up to step 12 are written with other figures, before anybody looks."""
    tail = LogTail(tmp_path)
    write(tmp_path, *map(step, (2, 4, 6, 8)))
    assert len(tail.new_lines()) == 4
    write(tmp_path, step(2), step(4), *(step(2 * number, 0.123) for number in range(3, 3 + num_again)), mode="w")
    assert [line["iteration"] for line in tail.new_lines()] == [10, 12][: max(num_again - 2, 0)]


def test_lines_that_are_damaged_are_passed_over(tmp_path):
    write(tmp_path, step(2))
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write("{torn\n")
    write(tmp_path, step(4))
    assert LogTail(tmp_path).new_lines() == [step(2), step(4)]


def test_sessions_tell_every_line_once(tmp_path):
    folder, heard = tmp_path / "train", []
    folder.mkdir()
    write(folder, step(2))
    LogTail(folder).tell_new()
    assert read_told(folder) == 0, "nobody hears"
    for lines in ([step(4)], [step(6), validation(6)]):
        with heard_by({"list": heard.append}, tmp_path):
            tail = LogTail(folder)
            tail.tell_new()
            write(folder, *lines)
            tail.tell_new()
    assert [event.line for event in heard] == [step(2), step(4), step(6), validation(6)]
    assert {(event.run, event.source) for event in heard} == {(str(tmp_path), "train")}
    assert heard[-1].step == 6
    assert heard[-1].scalars == {"val/mAP": 0.5}
    assert read_told(folder) == position(validation(6))


@pytest.mark.parametrize("fails", [False, True], ids=["to its end", "and fails"])
def test_the_last_lines_of_a_training_are_told(tmp_path, fails):
    def train():
        write(tmp_path, step(2))
        if fails:
            raise RuntimeError

    heard, board = [], Board(tmp_path / "ray")
    board.clear()
    with heard_by({"list": heard.append}, tmp_path):
        raised = watch(train, board, str, [LogTail(tmp_path)])
    assert (raised is not None) == fails
    assert [event.line for event in heard] == [step(2)]
    assert heard[0].source == "training"
