"""Several trainings at a time, each a trial of Ray Tune with one worker.

A training's folder is the truth: its own checkpoints say where it goes on, and its own last file that it is done. Tune
starts as many at a time as there is room for, and starts one again when its process is lost; nothing of Tune's own is
kept. So trainings that were killed at any moment are continued by calling `run_jobs` again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nasray.cluster.board import Board, watch
from nasray.cluster.interrupts import closing
from nasray.cluster.log_tail import LogTail
from nasray.cluster.progress import ProgressLine, counted, say
from nasray.cluster.resources import (
    Resources,
    count_actors,
    count_places,
    describe_free,
    describe_needs,
    living_nodes,
    trial_class,
)
from nasray.cluster.run import explained_tune_errors, search_session
from nasray.cluster.training import TRACE, Group, Worker, fitted
from nasray.spaces import NasrayError

FOLDER = ".trainings"
"""What Ray and the trainings need among themselves, removed at the end."""


class Job(Protocol):
    """One training of one worker; it is pickled and sent to where it runs."""

    @property
    def label(self) -> str:
        """Name of the training, and of its folder within the one of all."""
        ...

    def result(self, folder: Path) -> Mapping[str, float] | None:
        """Return the metrics of the training in a folder if it is finished, else None."""
        ...

    def train(self, folder: Path, worker: Worker) -> Iterator[Mapping[str, float]]:
        """Train in a folder, from the last checkpoint in it, and yield the metrics of every validation.

        Everything up to a validation is in the folder when its metrics are yielded. The folder is made if need be.

        Raises:
            NasrayError: For a mistake of the user's, which trying again does not fix.
        """
        ...


def run_jobs(jobs: Sequence[Job], folder: Path, *, group: Group | None = None) -> dict[str, dict[str, float]]:
    """Run trainings, as many at a time as there is room for, until all are finished.

    Each has the cores, and so the threads, and the GPU that it would have alone, so that its bits are the same.

    Those that are finished already are not run, and the others continue from their checkpoints. If all are finished,
    Ray is not started. A Ray session that the caller has begun is used. One training's mistake does not stop the
    others; it is raised when they have ended.

    Args:
        jobs: Trainings; their labels differ.
        folder: Folder that all machines see, owned by the caller; each training is in the folder of its label there.
        group: The one worker of each, and where they run; what it leaves open is decided as in `fitted`.

    Returns:
        Metrics of each training by its label, in the order of the jobs.

    Raises:
        NasrayError: In one line, if there is no room for one training, or some have failed: by a mistake that they
            raised, or more often than the retries of the group.
        KeyboardInterrupt: If the user interrupted it; what runs has saved its state before.
    """
    folder, group = folder.absolute(), group or Group()
    labels = [check_label(job.label) for job in jobs]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise ValueError(f"labels of trainings differ; there are several {sorted(twice)[0]!r}")
    if group.workers != 1:
        raise ValueError(f"trainings at the same time have one worker each, got {group.workers}")
    left = [job for job in jobs if job.result(folder / job.label) is None]
    if left:
        say(f"{counted(len(left), 'training')} of {len(jobs)} to run")
        folder.mkdir(parents=True, exist_ok=True)
        with search_session(Resources(address=group.address)):
            nodes = living_nodes()
            each = fitted(group, nodes)
            say(_describe(len(left), group, each, nodes))
            with explained_tune_errors(folder):
                _run(left, folder, each)
    return {job.label: dict(job.result(folder / job.label) or {}) for job in jobs}


def check_label(label: str) -> str:
    """Return a label if it can be the name of a folder, or names of folders with slashes between them.

    Raises:
        ValueError: If it cannot.
    """
    parts = label.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts) or "\\" in label or "\0" in label:
        raise ValueError(
            f"a label of a training is the path of a folder below that of all, such as 1-ab/seed-0; got {label!r}"
        )
    return label


def _describe(num: int, asked: Group, each: Group, nodes: list[dict[str, float]]) -> str:
    """Return how many trainings run at a time, and with what."""
    cpus, gpus = each.cpus or 1, each.gpus or 0
    places = min(count_places(nodes, cpus, gpus), num)
    text = f"{counted(places, 'training')} at a time, each with {describe_needs(cpus, gpus)}"
    if places < num and asked.cpus is None and not gpus and cpus > 1:
        text += ", as alone; with resources: {cpus: 1} in the recipe, say, more run at a time"
    return text


def _run(jobs: Sequence[Job], folder: Path, each: Group) -> None:
    from ray import tune

    from nasray.cluster.training_trial import Restarts, TrainingTrial

    own, cpus, gpus = folder / FOLDER, each.cpus or 1, each.gpus or 0
    boards = Boards({job.label: Board(own / "boards" / str(index)) for index, job in enumerate(jobs)})
    boards.needs, boards.needs_gpus = describe_needs(cpus, gpus), bool(gpus)
    boards.clear()
    logs = [LogTail(folder / job.label) for job in jobs]
    by_label = {job.label: (job, str(folder / job.label), str(boards.of[job.label].folder)) for job in jobs}
    trainable = trial_class(TrainingTrial, {"cpu": cpus, "gpu": gpus}, jobs=by_label, cpus=cpus)
    tuner = tune.Tuner(
        trainable,
        param_space={"label": tune.grid_search([job.label for job in jobs])},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(
            name=f"trainings-{time.time_ns()}",
            storage_path=str(own),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=each.retries),
            callbacks=[Restarts()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        error = watch(lambda: _fit(tuner, jobs, folder, boards, each.retries), boards, str, logs)
        if error is not None:
            raise error
    finally:
        with closing():
            shutil.rmtree(own, ignore_errors=True)


def _fit(tuner: Any, jobs: Sequence[Job], folder: Path, boards: Boards, retries: int) -> None:
    """Run all trials; raise one line if trainings are not finished then."""
    grid = tuner.fit()
    left = [job for job in jobs if job.result(folder / job.label) is None]
    if not left:
        return
    if boards.stopped:
        raise NasrayError(f"{counted(len(left), 'training')} of {len(jobs)} stopped; their state is saved")
    mistakes, crashes = [], []
    for result in grid:
        label = result.config["label"]
        if result.error is not None:
            lines = [line.strip() for line in str(result.error).splitlines() if line.strip()]
            reason = lines[-1] if lines else "its process has died"
            with contextlib.suppress(OSError):
                (folder / label / TRACE).write_text(str(result.error))
            crashes.append(f"training {label} failed {counted(retries + 1, 'time')}: {reason}")
        elif mistake := result.metrics.get("mistake"):
            mistakes.append(f"training {label}: {mistake}")
    failures = mistakes + crashes or [f"training {left[0].label} has ended without a result"]
    others = f" ({counted(len(failures) - 1, 'other training')} failed too)" if len(failures) > 1 else ""
    raise NasrayError(f"{failures[0].rstrip('.')}{others}. What was saved is in {folder}")


class Boards:
    """The boards of several trainings, shown as one line of progress.

    Args:
        of: Board of each training, by its label.

    Attributes:
        needs: Description of what each of them needs.
        needs_gpus: Whether they need GPUs.
        stopped: Whether the user wanted them to stop.
    """

    def __init__(self, of: Mapping[str, Board]) -> None:
        self.of = dict(of)
        self.line = ProgressLine("trainings", len(of))
        self.needs, self.needs_gpus, self.stopped = "", False, False

    def clear(self) -> None:
        """Remove what an earlier session left."""
        for board in self.of.values():
            board.clear()

    def missing(self) -> str | None:
        """Return what is waited for as long as no training has shown progress; None afterwards."""
        if any(board.latest() is not None for board in self.of.values()):
            return None
        if begun := count_actors("TrainingTrial"):
            return f"waiting for the first iteration of {counted(begun, 'training')}"
        free = describe_free(self.needs_gpus)
        return f"waiting for a training to start ({self.needs}; free in the cluster: {free})"

    def show(self, *, final: bool = False) -> None:
        """Print new lines, each with the label of its training, and how far all of them are."""
        shares, text = [], ""
        for label, board in self.of.items():
            for line in board.new_lines():
                say(f"{label}: {line}")
            progress = board.latest()
            if progress is not None:
                shares.append(progress.done / progress.total)
                if progress.done < progress.total:
                    text = f"{label} {progress.done / progress.total:.0%}  {progress.text}"
        if shares or final:
            share = sum(shares) / len(self.of)
            done = sum(value >= 1 for value in shares)
            self.line.update(done, text, share=share if share > 0 else None, final=final)

    def stop(self) -> None:
        """Ask all trainings to save and to stop, also those that have not begun."""
        self.stopped = True
        for board in self.of.values():
            board.stop()
