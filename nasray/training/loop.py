"""The training loop of one worker; it knows nothing of Ray.

Whatever is random follows from the seed and the place (epoch, iteration, worker), and what a step leaves behind is in
the checkpoint. So a training that was killed at any moment and resumed goes on as if it had not been: on CPUs bit for
bit.

Every worker runs the same iterations, and takes part in all of their messages. Only the first writes files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nasray.checkpoint import Checkpoint
from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.training import Worker
from nasray.data.classification import ClassificationBatch
from nasray.data.examples import Batches
from nasray.data.loader import Batch
from nasray.data.order import SAMPLING, seed_sequence
from nasray.models.detectors.losses import mean_over_workers
from nasray.models.supernets import PathSampler
from nasray.models.supernets.base import supernet_of
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training.accepted import AcceptedPaths
from nasray.training.averaging import MovingAverage
from nasray.training.bilevel import AlphaLearner
from nasray.training.folder import CheckpointFiles, Description, Ranking, ranked
from nasray.training.learner import Learner, StepResult
from nasray.training.recording import Recorder, Step
from nasray.training.resolutions import PathResolutions
from nasray.training.schedules import is_due, last_iteration, learning_rate_factor
from nasray.training.watch import LossWatch


class StoppedError(NasrayError):
    """The training was asked to stop; its state is saved, unless the last loss was not finite."""


class Validation(NamedTuple):
    """What a validation found.

    Attributes:
        metrics: `mAP` and others, by name; only the first worker needs them.
        pictures: PNG files by title.
    """

    metrics: dict[str, float]
    pictures: dict[str, bytes]


@dataclass
class Parts:
    """What a training is put together from.

    Attributes:
        network: Network on its device, with its first weights; it maps images and targets to named losses.
        batches: Batches to train on.
        validate: Function that measures a network in inference mode, called by all workers. None for no validation.
        describe: File and id of an image, from its position in the data set.
        description: Description of the training; it goes into its checkpoints.
        paths: Of a network around a supernet: draws the path that each step trains, the same for all workers.
        resolutions: Of paths with resolutions: brings the batch of a step to that of its path.
        alphas: Of a network around a relaxed supernet: moves its architecture parameters, before each step.
    """

    network: nn.Module
    batches: Batches
    validate: Callable[[nn.Module], Validation] | None
    describe: Callable[[int], str]
    description: Description
    paths: PathSampler | None = None
    resolutions: PathResolutions | None = None
    alphas: AlphaLearner | None = None


class Loop:
    """One training of one worker.

    Args:
        recipe: Recipe of the training.
        folder: Output folder.
        parts: Network, data and callbacks.
        worker: Rank and device of this process.
        checkpoint: Checkpoint to continue from; None for a new training.
        is_begun: Whether it is of this training, not of one whose schedule this one goes on with.

    Raises:
        NasrayError: if the checkpoint is not one of this training.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        parts: Parts,
        worker: Worker,
        checkpoint: Checkpoint | None = None,
        *,
        is_begun: bool = True,
    ) -> None:
        self.recipe, self.folder, self.parts, self.worker = recipe, folder, parts, worker
        self.device = torch.device(worker.device)
        self.network = parts.network.train()
        self.supernet = supernet_of(self.network)
        self.per_epoch = len(parts.batches)
        self.total = last_iteration(recipe.schedule, self.per_epoch)
        self.iteration = 0
        self.result: StepResult | None = None
        self.window, self.num_in_window = torch.zeros((), device=self.device), 0  # losses since the last line
        self.metrics: dict[str, float] = {}
        self.ranking: Ranking = []
        self.summary: dict[str, Any] = {}
        self.average = MovingAverage(self.network, recipe.ema) if recipe.ema else None
        self.learner = Learner(
            self.network,
            recipe.optimizer,
            partial(learning_rate_factor, per_epoch=self.per_epoch, options=recipe.schedule),
            precision=recipe.precision,
            channels_last=recipe.channels_last,
            world=worker.world,
            uses_all=parts.paths is None,
        )
        if checkpoint is not None:
            try:
                self._restore(checkpoint)
            except NasrayError:
                raise
            except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
                place = folder if is_begun else recipe.continues
                remedy = "Move it away: an older one is taken" if is_begun else "Continue with the recipe of that one"
                raise NasrayError(
                    f"the checkpoint of iteration {checkpoint.iteration} in {place} is not one of this training: "
                    f"{type(error).__name__}: {' '.join(str(error).split())[:200]}. {remedy}"
                ) from error
        if not is_begun:
            self.ranking, self.metrics, checkpoint = [], {}, None  # its files are elsewhere
        self.watch = LossWatch(folder, parts.describe, worker.rank)
        self.files = CheckpointFiles(folder / "checkpoints", recipe.keep_best)
        self.recorder: Recorder | None = None
        if worker.rank == 0:
            log_size = checkpoint.training["log_size"] if checkpoint else 0
            self.recorder = Recorder(folder, self.iteration, log_size)
            if checkpoint is not None:
                self.files.keep(checkpoint)
        self._restart_clock()

    def run(self) -> dict[str, Any]:
        """Train to the end, and return the content of summary.json; raises as `validations` does."""
        for _ in self.validations():
            pass
        return self.summary

    def validations(self) -> Iterator[dict[str, float]]:
        """Train to the end, and yield the metrics of every validation, once the checkpoint that follows it is saved.

        The last thing that it does is to write summary.json.

        Raises:
            NasrayError: if a loss is not finite, an image cannot be read, memory or disk are full.
            StoppedError: if the worker was asked to stop.
        """
        try:
            self._tell()
            while self.iteration < self.total:
                epoch, first = divmod(self.iteration, self.per_epoch)
                for batch in self.parts.batches.epoch(epoch, first):
                    self._step(batch)
                    if self._after_step():
                        yield self.metrics
                    if self.iteration == self.total:
                        break
        except torch.OutOfMemoryError as error:
            raise NasrayError(
                f"{self.device} is out of memory with {self.recipe.batch_size // self.worker.world} images a worker: "
                f"{str(error).splitlines()[0]} Divide the batch with optimizer.accumulate, choose precision bfloat16, "
                "smaller images, or more workers"
            ) from error
        finally:
            if self.recorder is not None:
                self.recorder.close()
        self.summary = self._summarize()

    # ---- one step ------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch | ClassificationBatch) -> None:
        """Learn from one batch of this worker."""
        seed = seed_sequence(self.recipe.seed, SAMPLING, self.iteration, self.worker.rank).generate_state(1)
        if self.parts.paths is not None and self.supernet is not None:
            genes = self.parts.paths.draw(self.iteration)
            if self.parts.resolutions is not None:
                genes, batch = self.parts.resolutions(genes, batch)
            self.supernet.set_path(genes)
        if self.parts.alphas is not None:
            self.parts.alphas.step(self.iteration)
        result = self.learner.step(batch, self.iteration, int(seed[0]))
        if self.average is not None:
            self.average.update(self.network)
        self.iteration += 1
        mean = mean_over_workers(result.losses)
        self.window = self.window + mean
        self.num_in_window += 1
        self.result = result
        norm = torch.zeros_like(result.grad_norm) if self.learner.skips_overflows else result.grad_norm
        self.watch.add(self.iteration, result.names, result.losses, mean, norm, batch.indices)

    # ---- between steps -------------------------------------------------------------------------------------------

    def _after_step(self) -> bool:
        """Log, validate, save and stop where it is time to; return whether there was a validation.

        All workers get here with the same count.
        """
        recipe, is_end = self.recipe, self.iteration == self.total
        if is_end or self.iteration % recipe.log_every == 0:
            self.watch.check()
            self._log()
        evaluate = is_end or is_due(self.iteration, recipe.evaluate_every * self.per_epoch)
        save = is_end or self.iteration % self.per_epoch == 0
        save |= recipe.checkpoint_every is not None and self.iteration % recipe.checkpoint_every == 0
        if evaluate or save:
            self.watch.check()
            if evaluate and self.parts.validate is not None:
                self._validate(self.parts.validate)
            self._save()
            self._restart_clock()
        self._tell()
        if self.worker.should_stop() and not is_end:
            if self.watch.is_sound():
                self._save()
            raise StoppedError(f"stopped after {self.iteration:,} of {self.total:,} iterations")
        return bool(evaluate and self.parts.validate is not None)

    def _log(self) -> None:
        if self.recorder is not None and self.result is not None:
            seconds = time.perf_counter() - self.clock
            num_images = (self.iteration - self.clock_iteration) * self.recipe.batch_size
            losses = (self.window / self.num_in_window).tolist()
            self.recorder.step(
                Step(
                    iteration=self.iteration,
                    epoch=self._epoch(),
                    losses=dict(zip(self.result.names, losses, strict=True)),
                    learning_rate=self.recipe.optimizer.learning_rate * self.result.factor,
                    grad_norm=self.result.grad_norm.item(),
                    images_per_s=num_images / seconds if seconds > 0 else 0.0,
                    acceptance=self._acceptance(),
                    shares=self.parts.alphas.shares() if self.parts.alphas is not None else None,
                )
            )
        self.window, self.num_in_window = torch.zeros_like(self.window), 0
        self._restart_clock()

    def _acceptance(self) -> float | None:
        """Return which share of the paths that were drawn lately was trained; None where all are."""
        paths = self.parts.paths
        return paths.acceptance(self.iteration - 1) if isinstance(paths, AcceptedPaths) else None

    def _validate(self, validate: Callable[[nn.Module], Validation]) -> None:
        begin = time.perf_counter()
        with torch.no_grad():
            found = validate(self._evaluated().eval())
        self.network.train()
        if self.recorder is not None:
            self.metrics = found.metrics
            self.ranking = ranked(self.ranking, self.iteration, found.metrics, max(self.recipe.keep_best, 1))
            seconds = time.perf_counter() - begin
            self.recorder.validation(self.iteration, self._epoch(), found.metrics, found.pictures, seconds)

    def _tell(self) -> None:
        if self.recorder is not None:
            self.worker.progress(self.iteration, self.total, self.recorder.text)

    def _restart_clock(self) -> None:
        self.clock, self.clock_iteration = time.perf_counter(), self.iteration

    def _epoch(self) -> float:
        return round(self.iteration / self.per_epoch, 4)

    def _evaluated(self) -> nn.Module:
        """Return what is validated and exported."""
        return self.network if self.average is None else self.average.model

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.recorder is None:
            return
        description = self.parts.description
        training = {
            "weights": self.network.state_dict() if self.average is not None else None,
            "updates": self.average.updates if self.average is not None else 0,
            **self.learner.state_dict(),
            "alphas": self.parts.alphas.state_dict() if self.parts.alphas is not None else None,
            "window": self.window,
            "num_in_window": self.num_in_window,
            "ranking": self.ranking,
            "per_epoch": self.per_epoch,
            "log_size": self.recorder.log.size,
        }
        self.files.save(
            Checkpoint(
                recipe=self.recipe,
                architecture=description.architecture,
                classes=description.classes,
                category_ids=description.category_ids,
                pixel_rules=description.pixel_rules,
                model=self._evaluated().state_dict(),
                metrics=self.metrics,
                iteration=self.iteration,
                training=training,
            )
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        training = checkpoint.training
        if training["per_epoch"] != self.per_epoch:
            raise NasrayError(
                f"the training set has changed: an epoch has {self.per_epoch} batches, and had {training['per_epoch']} "
                f"when {self.folder} was begun. Continue with the data that it was begun with, or begin a new training"
            )
        self.network.load_state_dict(training["weights"] if self.average is not None else checkpoint.model)
        if self.average is not None:
            self.average.model.load_state_dict(checkpoint.model)
            self.average.updates = training["updates"]
        self.learner.load_state_dict(training)
        if self.parts.alphas is not None:
            self.parts.alphas.load_state_dict(training["alphas"])
        self.window, self.num_in_window = training["window"].to(self.device), training["num_in_window"]
        self.ranking, self.metrics, self.iteration = training["ranking"], checkpoint.metrics, checkpoint.iteration

    def _summarize(self) -> dict[str, Any]:
        best: dict[str, Any] = self.ranking[0] if self.ranking else {"iteration": self.iteration, "metrics": {}}
        summary = {
            "iterations": self.iteration,
            "epochs": self._epoch(),
            "best": {"iteration": best["iteration"], **_finite(best["metrics"])},
            "last": _finite(self.metrics),
        }
        if self.recorder is not None:
            write_atomic(self.folder / "summary.json", to_json(summary, indent=1).encode())
        return summary


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
