"""A training's folder on disk.

    recipe.yaml       the resolved recipe, the backbone's architecture, classes, versions, git revision
    checkpoints/      last.pt; best.pt, and best-1200.pt and so on, the best by mAP with the iteration they are of
    log.jsonl         a line for every `log_every` iterations, and one for every validation
    tensorboard/      event files
    summary.json      the end: iterations, metrics of the best and of the last validation
    non-finite.json   the batch that stopped the training, if one did
    ray/              what Ray keeps while it runs

Log and checkpoints belong together: a checkpoint knows how long the log was, and the log is cut there when the training
goes on from it.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nasray.checkpoint import Checkpoint
from nasray.cluster import write_atomic
from nasray.cluster.files import aside_path, explained_disk_errors, to_json
from nasray.cluster.ownership import OWNER, is_empty
from nasray.cluster.progress import say
from nasray.cluster.reading import parse_json, read_text, shown
from nasray.cluster.records import Summary, TrainingDescription, read_record, yaml_record
from nasray.configuration import describe_versions, git_revision
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.recipe import RECIPE, Recipe, with_files
from nasray.spaces import Architecture, NasrayError
from nasray.validation import validate

FORMAT = 1
LAST_LINES = 1 << 18
"""Bytes that hold the last line of a log."""
Ranking = list[dict[str, Any]]
"""Validations, best first: `iteration` and `metrics` of each."""


@dataclass(frozen=True)
class Description:
    """What a training is, as its recipe.yaml says.

    Attributes:
        recipe: Resolved recipe.
        architecture: The backbone's.
        classes: Names of the classes, in the order of labels.
        category_ids: Ids of the classes in the data set.
        pixel_rules: How its images are read.
    """

    recipe: Recipe
    architecture: Architecture
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    pixel_rules: PixelRules = DEFAULT_RULES


def is_training(path: Path) -> bool:
    """Return whether a folder holds a training."""
    return (path / "recipe.yaml").is_file()


def is_finished(path: Path) -> bool:
    """Return whether the training in a folder has come to its end."""
    return (path / "summary.json").is_file()


def read_summary(path: Path) -> dict[str, Any]:
    """Return the content of summary.json of a training that is finished.

    Raises:
        NasrayError: if it is damaged.
    """
    return read_record(path / "summary.json", Summary, f"`nasray resume {path}` writes it anew")


def drop_damaged_summary(path: Path) -> None:
    """Remove a summary that cannot be read: the training then goes on from its last checkpoint, and writes it anew."""
    if is_finished(path):
        try:
            read_summary(path)
        except NasrayError as error:
            say(f"{str(error).rpartition('. ')[0]}. It is written anew")
            (path / "summary.json").unlink()


def last_checkpoint(path: Path) -> Path:
    """Return the newest checkpoint of the training in a folder."""
    return path / "checkpoints" / "last.pt"


def refuse_occupied(path: Path) -> None:
    """Raise `NasrayError` if a folder exists and is not empty."""
    if path.exists() and (not path.is_dir() or not is_empty(path)):
        hint = f"`nasray resume {path}` continues it" if is_training(path) else "it holds something else"
        raise NasrayError(f"training folder {path} exists and is not empty: {hint}; or choose another with --folder")


def clear_unbegun(path: Path) -> None:
    """Remove what is left of a training that was interrupted before its recipe was written: there is nothing in it."""
    if not path.exists() or is_training(path):
        return
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif not child.name.startswith(OWNER):
            child.unlink()


def create_folder(path: Path, description: Description) -> None:
    """Begin a training in a folder that is empty or does not exist.

    Raises:
        NasrayError: if something is in the folder already, or it cannot be written.
    """
    refuse_occupied(path)
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NasrayError(
            f"cannot make training folder {path}: {error.strerror}. Choose one that you may write, with --folder"
        ) from error
    recipe = with_files(description.recipe, partial(_within_run, folder=path))
    content = {
        "format": FORMAT,
        "recipe": RECIPE.dump_python(recipe, mode="json"),
        "architecture": {"family": description.architecture.family, "spec": description.architecture.spec},
        "classes": list(description.classes),
        "category_ids": list(description.category_ids),
        "pixel_rules": description.pixel_rules.to_json(),
        "versions": describe_versions(),
        "git_revision": git_revision(),
    }
    write_atomic(path / "recipe.yaml", yaml_record(content))


def read_description(path: Path) -> Description:
    """Return what the training in a folder is.

    Raises:
        NasrayError: if there is none, or it was begun by a newer version.
    """
    if not is_training(path):
        raise NasrayError(
            f"{path} is no training: it has no recipe.yaml. Name the folder that `nasray train` made, such as "
            "runs/maedet-m/train"
        )
    source = str(path / "recipe.yaml")
    content = read_record(path / "recipe.yaml", TrainingDescription, "Restore it from a copy of the training")
    if content["format"] > FORMAT:
        raise NasrayError(
            f"{path} was written by a newer version of nasray (training format {content.get('format')}, this version "
            f"reads up to {FORMAT}). Upgrade nasray"
        )
    recipe: Recipe = validate(RECIPE, Recipe, content["recipe"], source, is_record=True)
    return Description(
        recipe=with_files(recipe, partial(_where_it_is, folder=path)),
        architecture=Architecture.from_json(to_json(content["architecture"])),
        classes=tuple(content["classes"]),
        category_ids=tuple(content["category_ids"]),
        pixel_rules=PixelRules.from_json(content.get("pixel_rules")),
    )


def _within_run(file: str, folder: Path) -> str:
    """Return the path of a file from a training's folder where both are of one run, so that the run can be moved."""
    runs = [parent for parent in folder.absolute().parents if (parent / "experiment.yaml").is_file()]
    if not runs or not Path(file).is_relative_to(runs[0]):
        return file
    return os.path.relpath(file, folder.absolute())


def _where_it_is(file: str, folder: Path) -> str:
    """Return the path of a file whose path from a training's folder is known, if it is of the same run."""
    return os.path.normpath(folder.absolute() / file) if file.startswith(f"..{os.sep}") else file


class TrainingLog(NamedTuple):
    """The lines of log.jsonl: those of steps, and those of validations."""

    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]


def read_log(folder: Path) -> TrainingLog:
    """Return what a training has logged so far; a last line that is cut short is left out."""
    path = folder / "log.jsonl"
    if not path.is_file():
        return TrainingLog([], [])
    texts = read_text(path).splitlines()
    lines = []
    for place, text in enumerate(texts):
        try:
            lines.append(parse_json(text, f"{shown(path)}, line {place + 1}"))
        except NasrayError:
            if place < len(texts) - 1:
                raise
    return TrainingLog([line for line in lines if "losses" in line], [line for line in lines if "metrics" in line])


def logged_epochs(folder: Path) -> float:
    """Return the epochs of a training up to the last whole line of its log, of which the end alone is read; 0 if none.

    Args:
        folder: Folder of the training, which need not be there.
    """
    try:
        with open(folder / "log.jsonl", "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LAST_LINES, 0))
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines[-2:] if line.endswith(b"\n")]
        return float(parse_json(whole[-1].decode(), "log.jsonl")["epoch"])
    except (OSError, IndexError, KeyError, TypeError, ValueError, NasrayError):
        return 0.0


class Log:
    """The lines of log.jsonl: each is on its way to the disk when `write` returns.

    Args:
        path: Path of the file.
        size: Number of bytes to keep of what is there.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.path = path
        with explained_disk_errors(path):
            self.file: BinaryIO = open(path, "ab")  # noqa: SIM115 - it stays open
            self.file.truncate(min(size, path.stat().st_size))
            self.file.seek(0, os.SEEK_END)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.tell()

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; numbers that are not finite become null.

        Raises:
            NasrayError: if the disk is full.
        """
        with explained_disk_errors(self.path):
            self.file.write(to_json(line).encode() + b"\n")
            self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def ranked(ranking: Ranking, iteration: int, metrics: dict[str, float], keep: int) -> Ranking:
    """Return the ranking by mAP (of classifiers top-1) with one more validation; of equal ones the earlier is better.

    Args:
        ranking: Ranking, best first.
        iteration: Iteration of the new validation.
        metrics: Metrics of the new validation, with `mAP`.
        keep: Maximum length, at least 1.
    """
    entries = [*ranking, {"iteration": iteration, "metrics": metrics}]
    return sorted(entries, key=lambda entry: (-_map(entry["metrics"]), entry["iteration"]))[:keep]


def _map(metrics: dict[str, float]) -> float:
    value = metrics.get("mAP", metrics.get("top1", -1.0))
    return value if math.isfinite(value) else -1.0


class CheckpointFiles:
    """The checkpoints of a training: the last, and those of the best validations.

    The best are further names (hard links) of what once was the last, so that they cost no second write.

    Args:
        folder: Folder of the files.
        keep_best: Number of the best that are kept.
    """

    def __init__(self, folder: Path, keep_best: int) -> None:
        self.folder, self.keep_best = folder, keep_best

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.pt"

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the last checkpoint, and keep it as one of the best if its ranking says so.

        Raises:
            NasrayError: if the disk is full; the files that were there before are whole.
        """
        checkpoint.save(self.last)
        self.keep(checkpoint)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Make the names of the best what the ranking of the last checkpoint says; it can be done twice."""
        if not self.keep_best:
            return
        ranking = [entry["iteration"] for entry in checkpoint.training["ranking"]]
        if checkpoint.iteration in ranking:
            self._link(self._best(checkpoint.iteration))
        if checkpoint.iteration in ranking[:1]:
            self._link(self.folder / "best.pt")
        kept = {self._best(iteration) for iteration in ranking}
        for path in self.folder.glob("best-*.pt"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def load(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest sound checkpoint, None if there is none of any kind; and a line about each that is damaged.

        Raises:
            NasrayError: if there are checkpoints, and all are damaged.
        """
        best = [path for path in self.folder.glob("best-*.pt") if path.stem.removeprefix("best-").isdecimal()]
        best.sort(key=lambda path: int(path.stem.removeprefix("best-")))
        paths = [path for path in (self.last, *reversed(best)) if path.is_file()]
        lines: list[str] = []
        for path in paths:
            try:
                return Checkpoint.load(path), lines
            except NasrayError as error:
                lines.append(str(error))
        if paths:
            raise NasrayError(
                f"no checkpoint in {self.folder} can be read: {' '.join(lines)}. Begin the training anew in another "
                "folder"
            )
        return None, lines

    def _best(self, iteration: int) -> Path:
        return self.folder / f"best-{iteration}.pt"

    def _link(self, name: Path) -> None:
        """Make a name, whole or not at all, of what is the last checkpoint now."""
        aside = aside_path(name)
        try:
            aside.unlink(missing_ok=True)
            os.link(self.last, aside)
            os.replace(aside, name)
            aside.unlink(missing_ok=True)  # where both were the same file already, replacing did nothing
        except OSError:  # a file system without hard links
            with open(self.last, "rb") as source:
                write_atomic(name, partial(shutil.copyfileobj, source))
