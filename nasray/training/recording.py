"""What a training tells its user: log.jsonl, TensorBoard, and the line of progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from nasray.cluster.log_tail import LOG, log_scalars
from nasray.cluster.tensorboard import EventWriter
from nasray.training.bilevel import entropy_and_none
from nasray.training.folder import Log


class Step(NamedTuple):
    """One line of the log.

    Attributes:
        iteration: Steps done.
        epoch: Passes over the training set, with fraction.
        losses: Means since the line before, over all workers.
        learning_rate: Learning rate of the last step, of what has no factor of its own.
        grad_norm: Gradient norm of the last step, before clipping.
        images_per_s: Images per second over all workers, without validations; 0 if unknown.
        acceptance: Share of the paths that were drawn lately which a path filter let through; None without one.
        shares: Of a gradient search, of each group the share of every choice of every edge, `none` the last.
    """

    iteration: int
    epoch: float
    losses: dict[str, float]
    learning_rate: float
    grad_norm: float
    images_per_s: float
    acceptance: float | None = None
    shares: dict[str, list[list[float]]] | None = None


class Recorder:
    """Writes steps and validations; one worker has one.

    Args:
        folder: Folder of the training.
        iteration: Steps done before.
        log_size: Number of bytes of the log that are about these.
    """

    def __init__(self, folder: Path, iteration: int = 0, log_size: int = 0) -> None:
        self.folder = folder
        self.log = Log(folder / LOG, log_size)
        first_step = iteration + 1 if (folder / "tensorboard").exists() else 0
        self.events = EventWriter(folder / "tensorboard", first_step=first_step)
        self.loss_text = self.metric_text = ""

    @property
    def text(self) -> str:
        """What the line of progress says beside the count."""
        return "  ".join(part for part in (self.loss_text, self.metric_text) if part)

    def step(self, step: Step) -> None:
        """Record a step.

        Raises:
            NasrayError: if the disk is full.
        """
        loss = sum(step.losses.values())
        self.loss_text = f"loss {loss:.3f}  lr {step.learning_rate:.2g}"
        line: dict[str, Any] = {
            "iteration": step.iteration,
            "epoch": step.epoch,
            "loss": loss,
            "losses": step.losses,
            "lr": step.learning_rate,
            "grad_norm": step.grad_norm,
        }
        if step.acceptance is not None:
            line["acceptance"] = step.acceptance
        if step.shares:
            entropy, none = entropy_and_none(step.shares)
            line |= {"shares": step.shares, "alpha": {"entropy": entropy, "none": none}}
        line["images_per_s"] = round(step.images_per_s, 2)
        self.log.write(line)
        self.events.scalars(step.iteration, log_scalars(line))

    def validation(
        self, iteration: int, epoch: float, metrics: dict[str, float], pictures: dict[str, bytes], seconds: float
    ) -> None:
        """Record a validation.

        Args:
            iteration: Steps done.
            epoch: Passes over the training set, with fraction.
            metrics: Metrics by name.
            pictures: PNG files by title.
            seconds: Seconds that it took.

        Raises:
            NasrayError: if the disk is full.
        """
        for name in ("mAP", "top1"):
            if name in metrics:
                self.metric_text = f"{name} {metrics[name]:.3f}"
        line = {"iteration": iteration, "epoch": epoch, "metrics": metrics, "seconds": round(seconds, 2)}
        self.log.write(line)
        self.events.scalars(iteration, log_scalars(line))
        for title, png in pictures.items():
            self.events.image(iteration, f"val/{title}", png)

    def close(self) -> None:
        """Close the files."""
        self.log.close()
        self.events.close()
