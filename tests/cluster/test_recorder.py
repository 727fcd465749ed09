import json

import numpy as np
import pytest

from nasray.cluster import OrderedSearch, RunFolder
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
