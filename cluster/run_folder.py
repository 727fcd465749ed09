"""A run on disk: everything that resuming, reporting, training and exporting need.

    experiment.yaml     the resolved configuration, seed, versions, git revision
    history/000012.parquet   batch 12: id, genes, costs, metrics, batch, parents; the same bytes in every run of the
                        same experiment
    trials/000012.json  where and when batch 12 was evaluated
    tune/               Ray Tune's own folders, one for each time that it began anew
    tensorboard/        event files
    best.json           the winners, or the Pareto front
    report/             report.html and its figures

The history is the truth: a part file is written when its batch is told, in order, before anything depends on it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import to_json, write_atomic
from nasray.cluster.leaders import Entry
from nasray.cluster.ordering import ToldBatch
from nasray.cluster.ownership import is_empty
from nasray.cluster.records import Best, RunDescription, Trial, read_record, yaml_record
from nasray.searchers import Metrics
from nasray.spaces import Architecture, Costs, NasrayError, Population, Space

if TYPE_CHECKING:  # the command line starts without PyArrow
    import pyarrow as pa

FORMAT = 2
_GENES, _PARENTS, _ASKED = "genes", "parents", "asked"
_COST_PREFIX, _METRIC_PREFIX = "cost.", "metric."


@dataclass(frozen=True)
class HistoryBatch:
    """One part file: ids (N), genes (N, G), parents (N, 2), and (N,) arrays of costs and metrics; `asked` as told."""

    index: int
    ids: list[str]
    genes: Population
    parents: NDArray[np.int64]
    costs: Costs
    metrics: Metrics
    asked: int | None = None


class RunFolder:
    """A run's folder. Nothing is kept open, nothing is cached.

    Args:
        path: The folder; see `create` and `open`.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()

    @classmethod
    def create(cls, path: Path | str, description: dict[str, Any]) -> RunFolder:
        """Begin a run in a folder that is empty or does not exist.

        Raises:
            NasrayError: if something is in the folder already.
        """
        run = cls(path)
        run.refuse_occupied()
        try:
            for folder in (run.history, run.trials, run.tune, run.tensorboard):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NasrayError(
                f"cannot make run folder {path}: {error.strerror}. Choose one that you may write, with --folder"
            ) from error
        write_atomic(run.path / "experiment.yaml", yaml_record({"format": FORMAT, **description}))
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return a run that was begun before.

        Raises:
            NasrayError: if the folder is no run, or was written by a newer version.
        """
        run = cls(path)
        if not run.is_run():
            raise NasrayError(
                f"{path} is no run: it has no experiment.yaml. Name the folder that `nasray search` made, "
                "such as runs/maedet-m"
            )
        found = run.description()["format"]
        if found > FORMAT:
            raise NasrayError(
                f"{path} was written by a newer version of nasray (run format {found}, this version reads up to "
                f"{FORMAT}). Upgrade nasray"
            )
        return run

    def refuse_occupied(self) -> None:
        """Raise `NasrayError` if the folder exists and is not empty."""
        if self.path.exists() and (not self.path.is_dir() or not is_empty(self.path)):
            hint = "`nasray resume` continues it" if self.is_run() else "it holds something else"
            raise NasrayError(
                f"run folder {self.path} exists and is not empty: {hint}; or choose another with --folder"
            )

    def is_run(self) -> bool:
        """Return whether the folder holds a run."""
        return (self.path / "experiment.yaml").is_file()

    @property
    def history(self) -> Path:
        """Parquet part files, one for each batch."""
        return self.path / "history"

    @property
    def trials(self) -> Path:
        """Where and when each batch was evaluated."""
        return self.path / "trials"

    @property
    def tune(self) -> Path:
        """Ray Tune's own folders."""
        return self.path / "tune"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    def description(self) -> dict[str, Any]:
        """Return the content of experiment.yaml.

        Raises:
            NasrayError: if it cannot be read, or is damaged.
        """
        return read_record(self.path / "experiment.yaml", RunDescription, "Restore it from a copy of the run")

    def write_batch(self, batch: ToldBatch, space: Space, costs: Costs) -> None:
        """Write the part file of a batch."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        genes, parents = batch.proposal.genes, batch.proposal.parents
        # The narrow type is chosen by the space, so that equal batches have equal bytes.
        gene_type = pa.int16() if max(g.values[-1] for g in space.genes) < 2**15 else pa.int64()
        columns = {
            "id": pa.array(space.ids(genes), pa.string()),
            _GENES: _list_column(genes, gene_type),
            **{_COST_PREFIX + name: pa.array(value, pa.float64()) for name, value in costs.items()},
            **{_METRIC_PREFIX + name: pa.array(value, pa.float64()) for name, value in batch.metrics.items()},
            "batch": pa.array(np.full(len(genes), batch.index), pa.int32()),
            _PARENTS: _list_column(parents, pa.int64()),
        }
        if batch.asked is not None:
            columns[_ASKED] = pa.array(np.full(len(genes), batch.asked), pa.int32())
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
        write_atomic(self.history / f"{batch.index:06d}.parquet", sink.getvalue())

    def write_trial(self, index: int, record: dict[str, Any]) -> None:
        """Write where and when a batch was evaluated."""
        write_atomic(self.trials / f"{index:06d}.json", to_json(record).encode())

    def read_trials(self) -> list[dict[str, Any]]:
        """Return the records of `write_trial`, by batch."""
        remedy = "Remove it: a report then does not say when this batch was evaluated"
        return [read_record(path, Trial, remedy) for path in sorted(self.trials.glob("*.json"))]

    def read_batches(self) -> Iterator[HistoryBatch]:
        """Yield all batches in order.

        Raises:
            NasrayError: if a part file is corrupt or missing.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names: set[str] | None = None
        for expected, path in enumerate(sorted(self.history.glob("*.parquet"))):
            if path.stem != f"{expected:06d}":
                raise NasrayError(
                    f"history part file {self.history / f'{expected:06d}.parquet'} is missing, though later ones are "
                    "there. Restore it, or move the later ones away: the search then repeats them"
                )
            try:
                table = pq.read_table(path, page_checksum_verification=True)
                if names is not None and names != set(table.column_names):
                    raise ValueError("it has other columns than the parts before it")
                names = set(table.column_names)
                batch = _history_batch(expected, table)
            except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())
                raise NasrayError(
                    f"history part file {path} is corrupt: {reason}. Restore it, or move it and all later ones away: "
                    "the search then repeats them. Nothing was changed"
                ) from error
            yield batch

    def read_history(self) -> HistoryBatch:
        """Return all batches as one, with index -1."""
        batches = list(self.read_batches())
        if not batches:
            raise NasrayError(f"{self.path} has no finished batch yet. `nasray resume` continues the search")
        return HistoryBatch(
            -1,
            [key for batch in batches for key in batch.ids],
            np.concatenate([batch.genes for batch in batches]),
            np.concatenate([batch.parents for batch in batches]),
            {name: np.concatenate([batch.costs[name] for batch in batches]) for name in batches[0].costs},
            {name: np.concatenate([batch.metrics[name] for batch in batches]) for name in batches[0].metrics},
        )

    def write_best(self, best: dict[str, Any]) -> None:
        """Write best.json."""
        write_atomic(self.path / "best.json", to_json(best, indent=1).encode())

    def read_best(self) -> dict[str, Any]:
        """Return the content of best.json; numbers that are none are NaN.

        Raises:
            NasrayError: if no batch has been finished yet, or the file is damaged.
        """
        path = self.path / "best.json"
        if not path.is_file():
            raise NasrayError(f"{self.path} has no finished batch yet. `nasray resume` continues the search")
        remedy = f"`nasray resume {self.path}` writes it anew from the history"
        content = read_record(path, Best, remedy)
        for number, entry in enumerate(content["best"]):
            if Architecture.create(**entry["architecture"]).id != entry["id"]:
                raise NasrayError(f"{path} was changed: best.{number}.architecture has not the id beside it. {remedy}")
        return content

    def read_entries(self) -> list[Entry]:
        """Return the best architectures of best.json, best first; raises as `read_best` does."""
        return [Entry.from_json(entry) for entry in self.read_best()["best"]]

    def is_finished(self) -> bool:
        """Return whether the search has ended, as far as best.json says; resuming finds out what it really is."""
        try:
            return bool(self.read_best()["finished"])
        except NasrayError:
            return False


def _list_column(values: NDArray[np.int64], item: pa.DataType) -> pa.Array:
    import pyarrow as pa

    flat = pa.array(values.reshape(-1), pa.int64()).cast(item)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _history_batch(index: int, table: pa.Table) -> HistoryBatch:
    def rows(name: str) -> NDArray[np.int64]:
        column = table.column(name).combine_chunks()
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), dtype=np.int64)
        return flat.reshape(table.num_rows, column.type.list_size)

    def named(prefix: str) -> dict[str, NDArray[np.float64]]:
        names = [name for name in table.column_names if name.startswith(prefix)]
        return {name.removeprefix(prefix): table.column(name).to_numpy() for name in names}

    if set(table.column("batch").to_pylist()) != {index}:
        raise ValueError("it is the file of another batch")
    return HistoryBatch(
        index,
        table.column("id").to_pylist(),
        rows(_GENES),
        rows(_PARENTS),
        named(_COST_PREFIX),
        named(_METRIC_PREFIX),
        int(table.column(_ASKED)[0].as_py()) if _ASKED in table.column_names else None,
    )
