import json

import numpy as np
import pytest

from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.callbacks import heard_by
from nasray.cluster.recorder import Recorder
from nasray.searchers import BucketSampling, RandomSearch
from nasray.spaces import BasicSpace, Gene, Space


class Table(Space):
    family = "table"
    genes = (Gene("a", (0, 1, 2, 3)), Gene("b", (0, 1, 2, 3)))

    def cost(self, population):
        return {"size": population.sum(axis=1).astype(np.float64)}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Table(), {"scope": "architecture", "image_hw": None, "costs": {"size": "as the space counts it"}}),
        (
            BasicSpace(image_hw=(96, 64)),
            {
                "scope": "backbone",
                "image_hw": [96, 64],
                "costs": {
                    "gmacs": "multiply-adds of convolutions and linear layers / 1e9",
                    "params_m": "parameters / 1e6",
                    "layers": "layers of the architecture's main branch",
                },
            },
        ),
    ],
    ids=["table", "backbone"],
)
def test_best_says_what_the_costs_are_of(space, expected, tmp_path):
    search = OrderedSearch(RandomSearch(space, seed=0), evaluations=6, batch_size=3, in_flight=1)
    recorder = Recorder(RunFolder.create(tmp_path / "run", {}), search)
    search.run(
        lambda genes: {"score": genes[:, 0].astype(float)},
        lambda batch: recorder.write(batch, {"batch": batch.index}),
    )
    recorder.finish()
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["cost_scope"] == expected
    assert list(best["best"][0]["costs"]) == list(expected["costs"])


def test_what_a_searcher_notes_is_said_once(tmp_path, capsys):
    searcher = BucketSampling(Table(), by="size", edges=(0.0, 0.5, 3.0, 3.5, 6.0), seed=0)
    search = OrderedSearch(searcher, evaluations=20, batch_size=3, in_flight=1)
    recorder = Recorder(RunFolder.create(tmp_path / "run", {}), search)
    search.fill()
    while not search.is_finished:
        index = search.num_batches_told
        for batch in search.receive(index, {"score": np.zeros(len(search.pending[index].genes))}):
            recorder.write(batch, {})
            search.tell(batch)
            recorder.show(batch)
    recorder.finish()
    *said, end = [line for line in capsys.readouterr().err.splitlines() if "closed" in line]
    assert len(said) == len(searcher.notes()) == 4
    assert all(note in line for note, line in zip(searcher.notes(), said, strict=True))
    assert "ended early at 16 of 20 evaluations" in end


def test_a_history_in_the_order_finished_is_taken_up(tmp_path):
    def search():
        return OrderedSearch(RandomSearch(Table(), seed=0), evaluations=12, batch_size=3, in_flight=3, order="finished")

    folder, begun = RunFolder.create(tmp_path / "run", {}), search()
    recorder = Recorder(folder, begun)
    begun.fill()
    for number in (1, 3):
        (batch,) = begun.receive(number, {"score": begun.pending[number].genes[:, 0].astype(float)})
        recorder.write(batch, {"batch": batch.index})
        begun.tell(batch)
    assert [(batch.index, batch.asked) for batch in folder.read_batches()] == [(0, 1), (1, 3)]
    later = search()
    assert Recorder(folder, later).catch_up() == 6
    assert list(later.pending) == list(begun.pending) == [0, 2]
    assert all(np.array_equal(later.pending[number].genes, begun.pending[number].genes) for number in (0, 2))


def session(folder, until, *callbacks):
    """Search a table up to a number of batches, as a session does, with callbacks."""
    search = OrderedSearch(RandomSearch(Table(), seed=0), evaluations=12, batch_size=3, in_flight=1)
    recorder = Recorder(folder, search)
    with heard_by({str(number): callback for number, callback in enumerate(callbacks)}, folder.path):
        recorder.catch_up()
        while search.num_batches_told < until:
            genes = search.pending[search.num_batches_told].genes
            for batch in search.receive(search.num_batches_told, {"score": genes[:, 0].astype(float)}):
                recorder.write(batch, {})
                search.tell(batch)
                recorder.show(batch)
        recorder.finish()


def told_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.tensorboard))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_callbacks_hear_what_tensorboard_shows(tmp_path):
    folder, heard = RunFolder.create(tmp_path / "run", {}), []
    session(folder, 4, heard.append)
    assert [(event.batch, event.step, event.total, event.source) for event in heard] == [
        (index, 3 * index + 3, 12, "search") for index in range(4)
    ]
    history = folder.read_history()
    assert [key for event in heard for key in event.ids] == history.ids
    assert [value for event in heard for value in event.metrics["score"]] == list(history.metrics["score"])
    assert [value for event in heard for value in event.costs["size"]] == list(history.costs["size"])
    found = told_scalars(folder)
    assert found.keys() == {tag for event in heard for tag in event.scalars}
    for tag in found:
        assert found[tag] == [
            (event.step, pytest.approx(event.scalars[tag])) for event in heard if tag in event.scalars
        ], tag


def test_sessions_tell_every_batch_once(tmp_path):
    folder, heard, late = RunFolder.create(tmp_path / "run", {}), [], []
    session(folder, 1)
    assert not (folder.path / "told.json").exists()
    session(folder, 2, heard.append)  # what was told before there were callbacks, they hear from the history
    session(folder, 3)
    session(folder, 4, heard.append, late.append)
    assert [event.batch for event in heard] == [0, 1, 2, 3]
    assert [event.batch for event in late] == [2, 3]
    assert heard[0].scalars["score/best"] == max(heard[0].metrics["score"])
