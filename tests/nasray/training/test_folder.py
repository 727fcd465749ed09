import json
import os

import pytest
import torch

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.folder import (
    LAST_LINES,
    CheckpointFiles,
    Description,
    Log,
    create_folder,
    logged_epochs,
    ranked,
    read_description,
)


def checkpoint(iteration, ranking):
    return Checkpoint(
        Recipe(name="x"), ARCHITECTURES["resnet18"], ("a",), (1,), {"w": torch.tensor([float(iteration)])},
        iteration=iteration, training={"ranking": ranking},
    )  # fmt: skip


def validate(files, maps, keep):
    """Save one checkpoint for each mAP."""
    ranking = []
    for iteration, value in enumerate(maps, start=1):
        ranking = ranked(ranking, iteration, {"mAP": value}, max(keep, 1))
        files.save(checkpoint(iteration, ranking))
    return [entry["iteration"] for entry in ranking]


def test_ranking_is_stable_and_no_map_is_the_worst():
    ranking = []
    for iteration, value in enumerate([0.1, 0.3, float("nan"), 0.3, 0.2, 0.0]):
        ranking = ranked(ranking, iteration, {"mAP": value}, 5)
    assert [entry["iteration"] for entry in ranking] == [1, 3, 4, 0, 5]
    assert ranked([], 1, {}, 1)[0]["metrics"] == {}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 2])
def test_last_and_the_best_are_kept(tmp_path, monkeypatch, keep, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("not here")))
    best = validate(CheckpointFiles(tmp_path, keep), [0.2, 0.5, 0.1, 0.4, 0.3], keep)
    expected = {"last.pt"} | {f"best-{iteration}.pt" for iteration in best if keep} | ({"best.pt"} if keep else set())
    assert {path.name for path in tmp_path.iterdir()} == expected
    assert Checkpoint.load(tmp_path / "last.pt").iteration == 5
    if keep:
        assert best == [2, 4][:keep]
        assert Checkpoint.load(tmp_path / "best.pt").iteration == 2
        assert all(Checkpoint.load(tmp_path / f"best-{iteration}.pt").iteration == iteration for iteration in best)


def test_weights_of_a_stage_before_are_found_wherever_the_run_is(tmp_path):
    def begin(folder, weights):
        description = Description(Recipe(name="x", weights=str(weights)), ARCHITECTURES["resnet18"], ("a",), (1,))
        create_folder(folder, description)
        assert read_description(folder) == description

    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere" / "run"
    run.mkdir()
    (run / "experiment.yaml").touch()
    begin(run / "train" / "1-ab" / "seed-0", run / "pretrain" / "1-ab" / "seed-0" / "checkpoints" / "last.pt")
    begin(run / "other", tmp_path / "file.pt")
    begin(tmp_path / "alone", run / "pretrain" / "checkpoints" / "last.pt")  # of no run: as it was given
    elsewhere.parent.mkdir()
    run.rename(elsewhere)
    found = read_description(elsewhere / "train" / "1-ab" / "seed-0").recipe.weights
    assert found == str(elsewhere / "pretrain" / "1-ab" / "seed-0" / "checkpoints" / "last.pt")
    assert read_description(elsewhere / "other").recipe.weights == str(tmp_path / "file.pt")
    assert read_description(tmp_path / "alone").recipe.weights == str(run / "pretrain" / "checkpoints" / "last.pt")


def test_a_kill_between_last_and_best_is_made_good(tmp_path):
    files = CheckpointFiles(tmp_path, 2)
    validate(files, [0.2, 0.5], 2)
    for name in ("best.pt", "best-2.pt"):
        (tmp_path / name).unlink()
    found, lines = files.load()
    files.keep(found)
    files.keep(found)
    assert not lines
    assert Checkpoint.load(tmp_path / "best.pt").iteration == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-1.pt", "best-2.pt", "best.pt", "last.pt"]


@pytest.mark.parametrize("harm", ["torn", "empty", "other"])
def test_a_damaged_checkpoint_gives_way_to_the_newest_of_the_best(tmp_path, harm):
    files = CheckpointFiles(tmp_path, 2)
    validate(files, [0.1, 0.5, 0.4, 0.2], 2)
    content = files.last.read_bytes()
    files.last.unlink()
    files.last.write_bytes({"torn": content[: len(content) // 2], "empty": b"", "other": b"PK of something"}[harm])
    found, lines = files.load()
    assert found.iteration == 3
    assert len(lines) == 1
    assert str(files.last) in lines[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(NasrayError, match=r"no checkpoint in .* can be read"):
        files.load()


def test_no_checkpoint_at_all(tmp_path):
    assert CheckpointFiles(tmp_path, 1).load() == (None, [])


def test_a_log_is_cut_where_its_checkpoint_was(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write({"iteration": 1, "loss": float("nan"), "losses": {"a": float("inf")}})
    size = log.size
    log.write({"iteration": 2})
    log.close()
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(b'{"torn')
    log = Log(tmp_path / "log.jsonl", size)
    log.write({"iteration": 3})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"iteration": 1, "loss": None, "losses": {"a": None}}, {"iteration": 3}]
    assert Log(tmp_path / "lost.jsonl", size).size == 0


def test_a_folder_holds_one_training(tmp_path, begin):
    recipe = begin(tmp_path / "one", seed=3)
    found = read_description(tmp_path / "one")
    assert found.recipe == recipe
    assert found.architecture == ARCHITECTURES["basic-tiny"]
    assert found.classes == ("rectangle", "circle", "triangle")
    with pytest.raises(NasrayError, match=r"exists and is not empty: `nasray resume .*` continues it"):
        begin(tmp_path / "one")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(NasrayError, match="it holds something else"):
        begin(tmp_path / "other")
    with pytest.raises(NasrayError, match=r"no recipe\.yaml"):
        read_description(tmp_path / "other")
    with pytest.raises(NasrayError, match="cannot make training folder"):
        begin(tmp_path / "other" / "notes.txt" / "x")


def test_the_epochs_of_a_log_are_those_of_its_last_whole_line(tmp_path):
    assert logged_epochs(tmp_path) == logged_epochs(tmp_path / "absent") == 0
    log = tmp_path / "log.jsonl"
    log.write_text('{"epoch"')
    assert logged_epochs(tmp_path) == 0
    long = '{"epoch": 1.0, "shares": "' + "x" * (LAST_LINES // 2) + '"}\n'
    log.write_text(3 * long + '{"epoch": 2.5}\n')
    assert logged_epochs(tmp_path) == 2.5
    log.write_text(long + '{"epoch": 7.5, "lo')
    assert logged_epochs(tmp_path) == 1
