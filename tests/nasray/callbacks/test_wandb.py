"""Weights & Biases offline: nothing is sent."""

import json
import struct

import pytest

from nasray.callbacks import make_callbacks
from tests.nasray.callbacks.common import begin_run, expected, session

wandb = pytest.importorskip("wandb")


def records(content):
    """Yield the records of a W&B file: LevelDB's log, blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    place, whole = 7, b""
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def held(path):
    """Return the rows that a W&B file holds, each by name, and the settings of its run."""
    rows, settings = [], {}
    for record in records(path.read_bytes()):
        if record.HasField("history"):
            items = record.history.item
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            rows.append({name: value for name, value in row.items() if not name.startswith("_")})
        if record.HasField("run"):
            settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    return rows, settings


def test_both_a_search_and_a_training_are_held(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    begin_run(run)
    for number in range(2):
        callback = make_callbacks(["wandb"])["wandb"]
        for event in session(str(run), number):
            callback(event)
        callback.close()
    wandb.teardown()  # its files are whole once its process has ended
    paths = sorted((run / "callbacks").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(paths) == 2
    assert len({path.name for path in paths}) == 1, "a further session goes on with the run of the first"
    for number, path in enumerate(paths):
        rows, settings = held(path)
        assert settings["experiment"] == {"name": "tiny", "seed": 3, "data": None}
        merged = {name: value for row in rows for name, value in row.items()}
        search, train = expected(number)
        named = {f"search/{name}": value for name, value in search.items()}
        named |= {f"train/1-ab/{name}": value for name, value in train.items()}
        assert merged == {**named, "search/step": 8 * number + 8, "train/1-ab/step": 8 * number + 8}
