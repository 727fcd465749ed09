"""The sections of recipes: frozen, validated dataclasses, which `nasray.recipe` puts together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from nasray.cluster.progress import counted
from nasray.cluster.resources import check_address
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_CORES, MAX_RETRIES, MAX_SIDE, MAX_WIDTH
from nasray.validation import checked
from nasray.values import AboveZero, AtLeastZero, Flag, Natural, Share, Text, number, whole

Channels = Annotated[int, whole(1, MAX_WIDTH)]
Scale = Annotated[float, number(maximum=100, gt=0)]
Average = Annotated[float, number(0, lt=1)]
Side = Annotated[int, whole(1, MAX_SIDE)]


@checked
class ClassifierOptions:
    """Head on top of the backbone for classification: a 1x1 convolution, the mean, a linear layer.

    Attributes:
        width: Channels of the convolution; DetNAS's widened network has 1728.
        dropout: Share of its channels that are dropped in training.
        label_smoothing: What the loss takes from the right class and spreads over all.
    """

    width: Channels = 1024
    dropout: Share = 0.2
    label_smoothing: Share = 0.1


@checked
class AugmentationOptions:
    """What is done to images. Validation only resizes.

    Classification takes a random part of 8 % to all of an image, of `square` pixels, and mirrors half of them; of the
    options below it takes `square` alone. Detection, training: mosaic, expand, crop, flips, then the size (with scale
    jitter, if any), and last the colors.

    Attributes:
        mosaic: Share of training images that are put together from four.
        expand: Share of images that are put on a larger canvas, up to four times the area (SSD).
        crop: Share of images of which a random part with overlapping boxes is taken (SSD's IoU crop).
        scale_jitter: Least and most factor of a random resize before a crop to the final size (CenterNet), or nothing.
        flip: Share of images that are mirrored left to right.
        vertical_flip: Share of images that are mirrored top to bottom.
        color: Strength of random brightness, contrast, saturation and hue; 0 for none.
        short_side: Pixels of the shorter side after resizing; of several each image draws one.
        long_side: The longer side is never more than this.
        square: Edge of a square to resize to instead, whatever the aspect ratio (SSD, CenterNet, classification).
        evaluation_sides: Short and longest side in validation; the last short side and the long side if left out.
    """

    mosaic: Share = 0.0
    expand: Share = 0.0
    crop: Share = 0.0
    scale_jitter: tuple[Scale, Scale] | None = None
    flip: Share = 0.5
    vertical_flip: Share = 0.0
    color: Annotated[float, number(0, 10)] = 0.0
    short_side: tuple[Side, ...] = (800,)
    long_side: Side = 1333
    square: Side | None = None
    evaluation_sides: tuple[Side, Side] | None = None

    def __post_init__(self) -> None:
        if self.scale_jitter is not None and self.scale_jitter[0] > self.scale_jitter[1]:
            raise NasrayError(f"scale_jitter is the least and the most factor; got {self.scale_jitter}. Exchange them")
        if not self.short_side:
            raise NasrayError("short_side is a list of at least one number of pixels, such as [800]; got none")


@checked
class LoaderOptions:
    """How images reach the network.

    Attributes:
        processes: Number of processes that load and transform, for each worker; 0 loads in the worker itself. If left
            out as many as a worker with a GPU has cores, less one, from 1 to 16 (with `cache` to 2); 1 without a GPU.
        group_aspect: Whether to put images of like shape (wide, tall) into one batch, so that little is padding.
        cache: Whether to keep decoded images in memory, each worker its own (small data sets).
    """

    processes: Annotated[int, whole(0, 1024)] | None = None
    group_aspect: Flag = True
    cache: Flag = False


@checked
class OptimizerOptions:
    """How weights move.

    Attributes:
        name: The algorithm.
        learning_rate: Learning rate at the recipe's own batch size; it does not follow `batch_size` by itself.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of weights.
        norm_weight_decay: Weight decay of norms and biases; that of weights if left out.
        backbone_factor: The learning rate of the backbone (or the pyramid) as a multiple of the others'.
        head_factor: The same of the architecture in the slot of the head, or of the detector's own there.
        clip: Maximum norm of the gradient; larger ones are scaled down.
        betas: How slowly the averages of gradients and of their squares follow (Adam alone).
        accumulate: Number of backward passes of one step: a batch is divided into that many parts.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: AboveZero = 0.01
    momentum: Share = 0.9
    weight_decay: AtLeastZero = 1e-4
    norm_weight_decay: AtLeastZero | None = None
    backbone_factor: AtLeastZero = 1.0
    head_factor: AtLeastZero = 1.0
    clip: AboveZero | None = None
    betas: tuple[Average, Average] = (0.9, 0.999)
    accumulate: Annotated[int, whole(1, 100_000)] = 1


@checked
class ScheduleOptions:
    """How long, and how the learning rate changes.

    Attributes:
        epochs: Passes over the training set.
        until: Epochs after which the training ends before its schedule does; another one goes on from there with
            `continues`.
        name: Form: step (divided by ten after each milestone), cosine (to 0), linear (to 0), or constant.
        milestones: Epochs after which a step schedule divides by ten.
        warmup_iterations: Iterations over which the learning rate rises linearly.
        warmup_factor: Factor of the learning rate at the first iteration.
    """

    epochs: Annotated[float, number(maximum=1e6, gt=0)] = 12
    until: AboveZero | None = None
    name: Literal["step", "cosine", "linear", "constant"] = "step"
    milestones: tuple[AtLeastZero, ...] = (8, 11)
    warmup_iterations: Natural = 500
    warmup_factor: Share = 0.001

    def __post_init__(self) -> None:
        if self.until is not None and self.until > self.epochs:
            raise NasrayError(
                f"until {self.until:g} is beyond the schedule's {counted(self.epochs, 'epoch')}. Lower it"
            )

    @property
    def end(self) -> float:
        """Epochs after which the training ends."""
        return self.until or self.epochs


@checked
class DistilOptions:
    """What a classifier learns from a teacher beside the labels.

    Attributes:
        teacher: Checkpoint of a trained classifier for the same classes, or of a supernet, whose largest path teaches.
        weight: Factor of the cross-entropy with the teacher's probabilities, beside that with the labels.
    """

    teacher: Text | None = None
    weight: AboveZero = 1.0


@checked
class AlphaOptions:
    """How the architecture parameters of a relaxed supernet move, on the images that `holdout` keeps apart.

    Attributes:
        learning_rate: Learning rate of Adam, such as 0.0003; none is searched if left out.
        weight_decay: Weight decay.
        betas: How slowly the averages of gradients and of their squares follow.
        warm_up: Epochs in which the weights alone move.
    """

    learning_rate: AboveZero | None = None
    weight_decay: AtLeastZero = 1e-3
    betas: tuple[Average, Average] = (0.5, 0.999)
    warm_up: AtLeastZero = 0.0

    @property
    def is_searched(self) -> bool:
        """Whether architecture parameters move at all."""
        return self.learning_rate is not None


@checked
class WorkerOptions:
    """The processes that train side by side.

    Attributes:
        workers: Number of processes; each takes its share of every batch.
        cpus: Cores of each; all of this machine divided by the workers if left out and there is no GPU.
        gpus: GPUs of each, 0 or 1; 1 where there are any if left out.
        retries: How often training starts again from its last checkpoint after a worker is lost.
        address: Address of a running Ray cluster, "auto" or host:port; by default RAY_ADDRESS, else this machine alone.
    """

    workers: Annotated[int, whole(1, 10_000)] = 1
    cpus: Annotated[float, number(maximum=MAX_CORES, gt=0)] | None = None
    gpus: Annotated[int, whole(0, 1)] | None = None
    retries: Annotated[int, whole(0, MAX_RETRIES)] = 3
    address: Annotated[str, AfterValidator(check_address)] | None = None
