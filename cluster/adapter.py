"""Any searcher as a Ray Tune search algorithm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.search import Searcher as TuneSearcher
from ray.tune.search import SearchGenerator

from nasray.cluster.files import to_json, write_atomic
from nasray.cluster.ordering import OrderedSearch
from nasray.cluster.progress import say
from nasray.cluster.reading import read_json
from nasray.cluster.recorder import Recorder
from nasray.cluster.trial import pack, pack_genes, unpack
from nasray.cluster.tune_folder import sign
from nasray.searchers import Metrics


@dataclass
class Session:
    """What `run_search` and the searcher tell each other: after a restore Tune holds one that nobody else can reach.

    Attributes:
        retries: How often one batch may fail before the run stops.
        errors: What went wrong while results were recorded, to be raised.
        recorder: Recorder of the running search; None before it runs.
    """

    retries: int = 0
    recorder: Recorder | None = None
    errors: list[Exception] = field(default_factory=list)


SESSION = Session()


class TuneSearchAlgorithm(TuneSearcher):
    """Hands batches to Tune's trials and their results, in the search's order, to the searcher and the run folder.

    Safe against all that Tune does after a crash: a batch that is reported twice counts once, one that is reported
    late waits for its turn, and what Tune's snapshot has forgotten comes back from the history. A batch whose trial
    failed goes to another trial: Tune itself repeats only what fails while it runs, not a trial that was just given
    the actor of a node that is gone.

    Args:
        search: Search to run, fresh or begun.
        recorder: Recorder that keeps the run folder in step with it.
    """

    CKPT_FILE_TMPL = "searcher-state-{}.json"  # Ray's own name ends in .pkl

    def __init__(self, search: OrderedSearch, recorder: Recorder) -> None:
        super().__init__(metric="batch", mode="max")
        self.search, self.recorder = search, recorder
        self.failures: Counter[int] = Counter()  # batch -> how often it failed in this session
        self.records: dict[int, dict[str, Any]] = {}  # batch -> where and when, until it is told
        self.handed_out: dict[int, str] = {}  # batch -> trial
        self.batch_of_trial: dict[str, int] = {}
        self.stopped = False

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Return False: the experiment says it all."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """Return the next batch; None while all that are due are in evaluation; FINISHED when none can follow."""
        SESSION.recorder = self.recorder
        if self.stopped or self.search.is_finished:
            return TuneSearcher.FINISHED
        for index, proposal in self.search.pending.items():
            if index not in self.handed_out and index not in self.search.waiting:
                self.handed_out[index] = trial_id
                self.batch_of_trial[trial_id] = index
                return {"batch": index, "genes": pack_genes(proposal.genes)}
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the result of a trial."""
        index = self.batch_of_trial.pop(trial_id, None)
        if index is not None and self.handed_out.get(index) == trial_id:
            del self.handed_out[index]
        if self.stopped:
            return
        try:
            if error or not result or "metrics" not in result:
                self._take_failure(index)
            else:
                self._take(trial_id, result)
        except Exception as failure:  # Tune would wrap it, or go on without the batch
            self.stopped = True
            SESSION.errors.append(failure)

    def _take_failure(self, index: int | None) -> None:
        if index is None or index not in self.search.pending:  # of an earlier session, or evaluated meanwhile
            return
        self.failures[index] += 1
        if self.failures[index] <= SESSION.retries:
            say(f"batch {index} failed, and is evaluated again (retry {self.failures[index]} of {SESSION.retries})")
        else:
            self.stopped = True
            self.recorder.finish()

    def _take(self, trial_id: str, result: dict[str, Any]) -> None:
        where = {name: result[name] for name in ("batch", "started", "seconds", "host", "process")}
        self.records[result["batch"]] = {**where, "trial": trial_id}
        self._receive(result["batch"], unpack(result["metrics"]))

    def _receive(self, index: int, metrics: Metrics) -> None:
        """Take the results of batch `index`, and tell every batch whose turn has come."""
        for batch in self.search.receive(index, metrics):
            self.recorder.write(batch, {**self.records.pop(batch.number), "batch": batch.index})
            self.search.tell(batch)
            self.recorder.show(batch)
        if self.search.is_finished:
            self.recorder.finish()

    def save(self, checkpoint_path: str) -> None:
        """Write for Tune's checkpoint what the history does not hold: results that wait for their turn."""
        waiting = {
            str(index): {
                "genes": pack_genes(self.search.pending[index].genes),
                "metrics": pack(metrics),
                "record": self.records[index],
            }
            for index, metrics in self.search.waiting.items()
        }
        write_atomic(Path(checkpoint_path), to_json({"waiting": waiting}).encode())

    def restore(self, checkpoint_path: str) -> None:
        """Take the results that waited in Tune's checkpoint; all else that matters was replayed from the history."""
        for key, entry in read_json(checkpoint_path)["waiting"].items():
            proposal = self.search.pending.get(int(key))
            if proposal is not None and np.array_equal(unpack(entry["genes"])["genes"], proposal.genes):
                self.records[int(key)] = entry["record"]
                self._receive(int(key), unpack(entry["metrics"]))


class BatchGenerator(SearchGenerator):
    """Tune's generator of trials; its checkpoints are signed, and one of a search that was stopped can be continued.

    Args:
        algorithm: What suggests.
        search: Tune's folder in the run.
    """

    def __init__(self, algorithm: TuneSearchAlgorithm, search: Path) -> None:
        super().__init__(algorithm)
        self.algorithm, self.folder = algorithm, search

    def save_to_dir(self, dirpath: str, session_str: str) -> None:  # type: ignore[override]  # as SearchGenerator's
        """Write the state; Tune has written that of its trials just before."""
        super().save_to_dir(dirpath, session_str)
        sign(Path(dirpath), session_str, self.folder, self.algorithm.search.num_batches_told)

    def restore_from_dir(self, dirpath: str) -> None:
        """Restore the state, and that of the algorithm; Tune has restored its trials just before."""
        super().restore_from_dir(dirpath)
        say(f"Tune continues {self.folder}")

    def set_state(self, state: dict[str, Any]) -> None:
        """Take a state; whether there is more to do, the search itself knows."""
        super().set_state({**state, "finished": False})
