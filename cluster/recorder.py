"""Record each finished batch: history, TensorBoard, best.json, progress, callbacks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from nasray.cluster.callbacks import BatchEvent, as_lists, is_heard, place, read_told, tell, write_told
from nasray.cluster.leaders import Leaders
from nasray.cluster.ordering import OrderedSearch, ToldBatch
from nasray.cluster.progress import ProgressLine, say
from nasray.cluster.run_folder import RunFolder
from nasray.cluster.tensorboard import EventWriter, last_step
from nasray.searchers import Metrics
from nasray.spaces import CostFunction, Population, Space
from nasray.spaces.budget import cost_scope
from nasray.spaces.resolutions import common_size

COSTS = {
    "gmacs": "multiply-adds of convolutions and linear layers / 1e9",
    "params_m": "parameters / 1e6",
    "layers": "layers of the architecture's main branch",
    "latency_ms": "milliseconds of the architecture alone, predicted from a table of measured blocks",
}
BEST_INTERVAL = 5.0  # least seconds between two writes of best.json while the search goes on


def describe_costs(cost: CostFunction, space: Space, names: Sequence[str]) -> dict[str, Any]:
    """Return what costs are of, at what input size, and what their names stand for, as best.json says it."""
    size = common_size(space)
    image_hw = None if size is None else list(size)
    costs = {name: COSTS.get(name, "as the space counts it") for name in names}
    return {"scope": cost_scope(cost, space), "image_hw": image_hw, "costs": costs}


class Recorder:
    """Keeps a run folder in step with a search. Picklable: open files are opened again where they are needed.

    Args:
        folder: The run.
        search: The search that is recorded.
    """

    def __init__(self, folder: RunFolder, search: OrderedSearch) -> None:
        self.folder, self.search, self.searcher = folder, search, search.searcher
        self.total = search.evaluations
        self.leaders = Leaders(search.searcher)
        self.num_noted = 0
        self._live: _Live | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_live": None}

    def catch_up(self) -> int:
        """Replay the history, show what was not shown yet, and return the number of evaluations told.

        Raises:
            NasrayError: if the history is damaged, or is not that of this search.
        """
        shown, events = last_step(self.folder.tensorboard) or 0, None
        told = read_told(self.folder.path) if is_heard() else 0
        for batch in self.folder.read_batches():
            self.leaders.add(batch.genes, batch.costs, batch.metrics)
            self.search.replay(batch.index, batch.genes, batch.metrics, batch.asked)
            if self.search.num_told > shown:  # a session was killed between the history and TensorBoard
                events = events or self._open_events(len(batch.genes))
                events.scalars(self.search.num_told, self._scalars(batch.genes, batch.metrics))
            if is_heard() and batch.index >= told:
                self._tell(batch.index, batch.genes, batch.metrics, self._scalars(batch.genes, batch.metrics))
        if events is not None:
            events.close()
        self.search.fill()
        return self.search.num_told

    def write(self, batch: ToldBatch, trial: dict[str, Any]) -> None:
        """Put a batch on disk, before it is told to the searcher."""
        costs = self.searcher.cost(batch.proposal.genes)
        self.folder.write_batch(batch, self.searcher.space, costs)
        self.folder.write_trial(batch.index, trial)
        self.leaders.add(batch.proposal.genes, costs, batch.metrics)

    def show(self, batch: ToldBatch) -> None:
        """Show a batch that was told."""
        if self._live is None:
            self._live = _Live(self, len(batch.proposal))
        scalars = self._live.show(batch)
        if is_heard():
            self._tell(batch.index, batch.proposal.genes, batch.metrics, scalars)
        self._say_notes()

    def _tell(self, index: int, genes: Population, metrics: Metrics, scalars: dict[str, float]) -> None:
        """Tell callbacks of the batch that was told last."""
        write_told(self.folder.path, index + 1)
        run, source = place(self.folder.path, "search")
        tell(
            BatchEvent(
                run=run,
                source=source,
                step=self.search.num_told,
                total=self.total,
                batch=index,
                ids=list(self.searcher.space.ids(genes)),
                metrics=as_lists(metrics),
                costs=as_lists(self.searcher.cost(genes)),
                scalars=scalars,
            )
        )

    def _say_notes(self) -> None:
        """Print what the searcher noted since the last time."""
        notes = self.searcher.notes()
        for note in notes[self.num_noted :]:
            say(note)
        self.num_noted = len(notes)

    def describe(self) -> dict[str, Any]:
        """Return the content of best.json."""
        return {
            "objectives": [{"name": o.name, "direction": o.direction} for o in self.searcher.objectives],
            "evaluations": self.searcher.num_told,
            "finished": self.search.is_finished,
            "ended_early": self.search.ended_early,
            "cost_scope": describe_costs(self.searcher.cost, self.searcher.space, list(self.leaders.costs)),
            "best": [self.leaders.entry(index).to_json() for index in range(len(self.leaders))],
        }

    def finish(self) -> None:
        """Write best.json and close what is open."""
        if len(self.leaders):
            self.folder.write_best(self.describe())
        if self._live is not None:
            self._live.close()
            self._live = None
        self._say_notes()
        if self.search.ended_early:
            say(self.search.ended_early)

    def _open_events(self, size: int) -> EventWriter:
        """Open an event file for what was told last, `size` evaluations, and what follows.

        What other files hold of later steps is superseded: it was taken out of the history since.
        """
        events = EventWriter(self.folder.tensorboard, first_step=self.search.num_told)
        if self.search.num_told == size:
            events.hyperparameters(self.folder.description())
        return events

    def _scalars(self, genes: Population, metrics: Metrics) -> dict[str, float]:
        """Return what TensorBoard shows after the batch that was told last."""
        scalars = {}
        objectives = self.searcher.objective_values(genes, metrics)
        for column, objective in zip(objectives.T, self.searcher.objectives, strict=True):
            finite = column[np.isfinite(column)] * objective.sign
            if len(finite):
                scalars[f"{objective.name}/batch_mean"] = float(finite.mean())
                scalars[f"{objective.name}/batch_spread"] = float(finite.std())
        best = self.leaders.entry(0)
        scalars.update({f"{name}/best": value for name, value in best.metrics.items()})
        scalars.update({f"best_cost/{name}": value for name, value in best.costs.items()})
        if len(self.searcher.objectives) > 1:
            scalars["pareto_front/size"] = float(len(self.leaders))
        population = self.searcher.population()
        scalars["population/diversity"] = diversity(population if len(population) else genes)
        return scalars


class _Live:
    """The open ends of a recorder: event file, progress line.

    Args:
        recorder: What is shown.
        size: Evaluations of the batch that was told last, the first to be shown.
    """

    def __init__(self, recorder: Recorder, size: int) -> None:
        self.recorder = recorder
        self.events = recorder._open_events(size)
        # The first batch was under way before this was made: rates count from its end.
        self.first, self.begin = recorder.searcher.num_told, time.monotonic()
        self.progress = ProgressLine(recorder.folder.path.name, recorder.total, done=self.first)
        self.last_best = 0.0

    def show(self, batch: ToldBatch) -> dict[str, float]:
        """Show a batch that was told, and return what TensorBoard shows of it."""
        done = self.recorder.searcher.num_told
        scalars = self.recorder._scalars(batch.proposal.genes, batch.metrics)
        if done > self.first:
            scalars["speed/evaluations_per_second"] = (done - self.first) / (time.monotonic() - self.begin)
        self.events.scalars(done, scalars)
        if time.monotonic() - self.last_best > BEST_INTERVAL:
            self.recorder.folder.write_best(self.recorder.describe())
            self.last_best = time.monotonic()
        self.progress.update(done, self.recorder.leaders.summary())
        return scalars

    def close(self) -> None:
        self.progress.update(self.recorder.searcher.num_told, self.recorder.leaders.summary(), final=True)
        self.events.close()


def diversity(population: Population) -> float:
    """Return the mean probability, over the genes, that two members drawn at random differ; 0 for clones, below 1."""
    if not len(population):
        return 0.0
    total = 0.0
    for column in population.T:
        _, counts = np.unique(column, return_counts=True)
        total += 1.0 - float(((counts / len(population)) ** 2).sum())
    return total / int(population.shape[1])
