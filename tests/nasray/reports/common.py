"""Runs and trainings as they lie on disk, made in a moment: without Ray, and without training anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nasray.cluster import OrderedSearch, RunFolder, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.recorder import Recorder
from nasray.recipe import Recipe
from nasray.searchers import Objective, Searcher
from nasray.spaces import Architecture, Costs, Gene, Population, Space
from nasray.training.folder import Description, create_folder

SCORE = Objective("score")
RECIPE = Recipe(name="made", backbone="basic-tiny")


class Grid(Space):
    """Not staged, without costs."""

    family = "grid"
    genes = (Gene("x", tuple(range(32))), Gene("y", tuple(range(32))))


class PricedGrid(Grid):
    """Not staged, with a cost of its own."""

    def cost(self, population: Population) -> Costs:
        return {"price": population[:, 0] + 1.0}


def score(genes: Population) -> np.ndarray:
    """Some figure that grows with the genes, with a few values that are not finite."""
    value = np.log1p(genes).sum(axis=1)
    return np.where(genes.sum(axis=1) % 11 == 0, np.nan, value)


def write_run(
    path: Path, searcher: Searcher, evaluations: int, description: dict | None = None, evaluator: Callable = score
) -> RunFolder:
    """A finished run without Ray: two workers take turns, each busy for half of the time."""
    folder = RunFolder.create(path, description or {})
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=32, in_flight=2)
    recorder = Recorder(folder, search)
    search.fill()
    while not search.is_finished:
        index = search.num_batches_told
        genes = search.pending[index].genes
        found = evaluator(genes)
        for batch in search.receive(index, found if isinstance(found, dict) else {"score": found}):
            trial = {"batch": index, "started": 100.0 + index, "seconds": 1.0, "host": "a", "process": index % 2}
            recorder.write(batch, trial)
            search.tell(batch)
    recorder.finish()
    return folder


def write_training(
    folder: Path, architecture: Architecture, value: float, *, seed: int = 0, metric: str = "mAP", **changes: object
) -> Path:
    """A finished training with this figure; `changes` are of its recipe."""
    recipe = dataclasses.replace(RECIPE, backbone=architecture.id, seed=seed, **changes)
    create_folder(folder, Description(recipe, architecture, ("a", "b"), (1, 2)))
    best = {"iteration": 20, metric: value}
    summary = {"iterations": 20, "epochs": 2.0, "best": best, "last": {metric: value}}
    write_atomic(folder / "summary.json", to_json(summary).encode())
    lines = [
        {"iteration": 10, "epoch": 1.0, "loss": 3.0, "losses": {"classes": 1.0, "boxes": 2.0}, "lr": 0.1},
        {"iteration": 10, "epoch": 1.0, "metrics": {metric: value / 2}, "seconds": 1.0},
        {"iteration": 20, "epoch": 2.0, "loss": 2.0, "losses": {"classes": 0.5, "boxes": 1.5}, "lr": 0.0},
        {"iteration": 20, "epoch": 2.0, "metrics": {metric: value}, "seconds": 1.0},
    ]
    write_atomic(folder / "log.jsonl", "".join(to_json(line) + "\n" for line in lines).encode())
    return folder
