"""Runs, trainings and trained detectors from Python, as the command line has them.

What is heavy is imported when it is used, so that `import nasray` stays quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.cluster import RunFolder
from nasray.cluster.files import to_json
from nasray.cluster.leaders import Entry, best_within
from nasray.spaces import Architecture, Budget

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import nn

    from nasray.callbacks import Callback
    from nasray.checkpoint import Checkpoint
    from nasray.recipe import Recipe

PathLike = str | os.PathLike[str]


class Run:
    """A run on disk, finished or not.

    Args:
        folder: Folder of the run.

    Raises:
        NasrayError: if the folder holds no run.

    Examples:
        >>> run = nasray.Run("runs/maedet-m")
        >>> run.best.architecture.id, run.best.metrics["score"]
        >>> run.within({"gmacs": 60}).costs
    """

    def __init__(self, folder: PathLike) -> None:
        self._run = RunFolder.open(Path(folder))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self._run.path

    @property
    def is_finished(self) -> bool:
        """Whether the search has come to its end."""
        return self._run.is_finished()

    @property
    def front(self) -> list[Entry]:
        """The ten best architectures, best first; with several objectives the Pareto front.

        Raises:
            NasrayError: if nothing is evaluated yet.
        """
        return self._run.read_entries()

    @property
    def best(self) -> Entry:
        """The winner; with several objectives the best by the first of them."""
        return self.front[0]

    def within(self, budget: Mapping[str, float]) -> Entry:
        """Return the best architecture within a budget.

        Args:
            budget: Upper bounds on costs by name, such as `{"gmacs": 60}`; `min_gmacs` is a lower one.

        Raises:
            NasrayError: if none of the front meets it.
        """
        return best_within(self.front, _budget(budget))

    def history(self) -> pa.Table:
        """Return all evaluations in the order told: `id`, `genes`, `parents`, `metric.NAME` and `cost.NAME`.

        Raises:
            NasrayError: if nothing is evaluated yet.
        """
        import pyarrow as pa

        told = self._run.read_history()
        columns: dict[str, Any] = {"id": told.ids, "genes": list(told.genes), "parents": list(told.parents)}
        columns |= {f"metric.{name}": np.asarray(values) for name, values in told.metrics.items()}
        columns |= {f"cost.{name}": np.asarray(values) for name, values in told.costs.items()}
        return pa.table(columns)


class Detector:
    """A trained detector.

    Args:
        file: Checkpoint file.

    Examples:
        >>> detector = nasray.load("runs/maedet-m/train")
        >>> detector.predict("photo.jpg")[0]["detections"]
        >>> detector.evaluate()["coco"]["mAP"]
        >>> detector.export("model.onnx")
    """

    def __init__(self, file: PathLike) -> None:
        self.file = Path(file)

    def __repr__(self) -> str:
        return f"Detector({str(self.file)!r})"

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Content of the checkpoint.

        Raises:
            NasrayError: if it cannot be read.
        """
        from nasray.checkpoint import Checkpoint

        return Checkpoint.load(self.file)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.checkpoint.classes

    @property
    def architecture(self) -> Architecture:
        """Architecture that was trained."""
        return self.checkpoint.architecture

    def module(self) -> nn.Module:
        """Return the network, on the CPU, in inference mode."""
        return self.checkpoint.detector()

    def predict(
        self,
        images: PathLike | Sequence[PathLike],
        *,
        to: PathLike | None = None,
        threshold: float = 0.3,
        device: str = "auto",
        batch_size: int = 8,
    ) -> list[dict[str, Any]]:
        """Find objects in images.

        Args:
            images: Files, folders, globs, or .txt files with one of these a line.
            to: Folder for pictures with the boxes drawn, or with one image a file; none are drawn if left out.
            threshold: Least score of what is returned.
            device: "auto" (a GPU where there is one), "cpu" or "cuda".
            batch_size: Images at a time.

        Returns:
            For each image `image` and `detections`: `class`, `score` and `box` (xyxy in pixels) of each, best first.

        Raises:
            NasrayError: if no image can be read.
        """
        from nasray.predicting import find_images, picture_paths, predict_images

        given = [images] if isinstance(images, str | os.PathLike) else list(images)
        files = find_images([os.fspath(image) for image in given])
        pictures = picture_paths(files, Path(to)) if to is not None else None
        return predict_images(
            self.checkpoint, files, pictures, threshold=threshold, device=device, batch_size=batch_size
        )

    def evaluate(self, *, data: PathLike | None = None, split: str = "val", device: str = "auto") -> dict[str, Any]:
        """Return COCO's and VOC's figures on a data set.

        Args:
            data: YAML file or folder of a data set; that of the training if left out.
            split: "train", "val", "test", or "held", the images of the training set that a search looks at.
            device: "auto" (a GPU where there is one), "cpu" or "cuda".

        Returns:
            `coco` (the twelve numbers), `voc`, `classes` (a row for each), `images`, `seconds`.

        Raises:
            NasrayError: if the data set has other classes, or cannot be read.
        """
        from nasray.evaluation import evaluate_checkpoint

        source = os.fspath(data) if data is not None else None
        return evaluate_checkpoint(self.checkpoint, data=source, split=split, device=device)

    def export(self, to: PathLike, *, image_hw: tuple[int, int] | None = None) -> dict[str, Any]:
        """Write the detector as ONNX (.onnx) or as PyTorch's exported program (.pt2), and check it.

        Args:
            to: File; its suffix chooses.
            image_hw: Height and width in pixels with which it is checked; those of its evaluation if left out.

        Returns:
            `file`, and how much the export differs from the detector.

        Raises:
            NasrayError: if it cannot be exported, or does not compute the same; nothing is written then.
        """
        from nasray.detector_export import export_checkpoint

        return export_checkpoint(self.checkpoint, Path(to), image_hw=image_hw)


def run(
    experiment: PathLike,
    *,
    folder: PathLike | None = None,
    resume: bool = False,
    callbacks: Sequence[str | Callback] = (),
    **changes: Any,
) -> Run:
    """Run an experiment, all its stages, as `nasray search` does.

    Args:
        experiment: Name from `nasray list experiments`, or a YAML file.
        folder: Folder of the run, empty or absent; runs/NAME if left out.
        resume: Whether to continue the run in `folder` instead, with what it was begun with.
        callbacks: Functions that hear what it tells, and names of callbacks, beside those of the experiment; see
            `nasray.callbacks`.
        **changes: Keys of the experiment with their values, as in its YAML: `budget={"gmacs": 60}`.

    Raises:
        NasrayError: for every mistake that can be fixed; the message says how.

    Examples:
        >>> run = nasray.run("maedet-tiny", folder="runs/tiny", budget={"gmacs": 40})
        >>> run.best.metrics["score"]
    """
    from nasray.loading import load_plan
    from nasray.searching import resume_experiment, search_experiment

    plan = load_plan(os.fspath(experiment), list(_arguments(changes)))
    where = Path(folder) if folder is not None else _runs() / plan.experiment.name
    if resume and RunFolder(where).is_run():
        resume_experiment(where, callbacks=callbacks)
    else:
        search_experiment(plan, where, callbacks=callbacks)
    return Run(where)


def train(
    what: PathLike | Run | Entry | Architecture,
    *,
    recipe: str | None = None,
    detector: str | Mapping[str, Any] | None = None,
    folder: PathLike,
    resume: bool = False,
    callbacks: Sequence[str | Callback] = (),
    **changes: Any,
) -> Detector:
    """Train a detector, as `nasray train` does.

    Args:
        what: Architecture, entry of a run, run (its winner), or whatever names one: a name from
            `nasray list architectures`, a JSON file, a folder; or a recipe.
        recipe: Recipe; a default one if left out.
        detector: Name of the detector, instead of the recipe's, or keys of its section.
        folder: Folder of the training, empty or absent.
        resume: Whether to continue the training in `folder` if there is one.
        callbacks: Functions that hear what it tells, and names of callbacks, beside those of the recipe; see
            `nasray.callbacks`.
        **changes: Keys of the recipe with their values, as in its YAML: `data="voc.yaml"`, `schedule={"epochs": 12}`.

    Raises:
        NasrayError: for every mistake that can be fixed; the message says how.

    Examples:
        >>> detector = nasray.train(run, recipe="cpu-scratch", data="my-images", folder="runs/m/train")
    """
    from nasray.recipe import override_recipe
    from nasray.training import begin_training, resume_training
    from nasray.training.choosing import training_recipe
    from nasray.training.folder import is_finished, is_training

    path = Path(folder)
    if resume and is_training(path):
        if not is_finished(path):
            resume_training(path, callbacks=callbacks)
        return load(path)
    given = what.best if isinstance(what, Run) else what
    given = given.architecture if isinstance(given, Entry) else given
    architecture = given if isinstance(given, Architecture) else None
    name = given.id if isinstance(given, Architecture) else os.fspath(given)
    if isinstance(detector, Mapping):
        changes["detector"], detector = detector, None
    chosen: Recipe = training_recipe(name, recipe=recipe, detector=detector, architecture=architecture)
    begin_training(override_recipe(chosen, list(_arguments(changes))), path, architecture, callbacks=callbacks)
    return load(path)


def load(what: PathLike, *, budget: Mapping[str, float] | None = None) -> Detector:
    """Return a trained detector.

    Args:
        what: Checkpoint file, folder of a training, or of a run; of one with a supernet whose winner was not trained,
            the winner is taken out of the supernet.
        budget: Of a run with a supernet, the best within this budget instead of the winner, such as `{"gmacs": 0.3}`.

    Raises:
        NasrayError: if there is none.

    Examples:
        >>> detector = nasray.load("runs/detnas-laptop", budget={"gmacs": 0.05})
    """
    from nasray.subnets import trained_checkpoint

    return Detector(trained_checkpoint(os.fspath(what), _budget(budget) if budget else None))


def _budget(bounds: Mapping[str, float]) -> Budget:
    upper = {name: float(value) for name, value in bounds.items() if not name.startswith("min_")}
    lower = {name.removeprefix("min_"): float(value) for name, value in bounds.items() if name.startswith("min_")}
    return Budget(upper, lower)


def _runs() -> Path:
    return Path(os.environ.get("NASRAY_RUNS") or "runs").expanduser()


def _arguments(changes: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield keys and values as options of the command line, so that they mean and are refused as there."""
    for key, value in changes.items():
        option = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _arguments(value, f"{option}.")
        else:
            yield f"--{option.replace('_', '-')}"
            yield value if isinstance(value, str) else to_json(_plain(value))


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
