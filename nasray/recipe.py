"""Recipes: one frozen, validated configuration of the training of a detector, from YAML and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import TypeAdapter

from nasray.callbacks import CallbackName
from nasray.cluster.reading import shown
from nasray.configuration import is_path, load_content, overridden, shipped_names, shipped_texts
from nasray.devices import Precision
from nasray.models.detectors import DETECTORS
from nasray.models.supernets.sampling import PATHS
from nasray.options import Chosen, options_of
from nasray.recipe_options import (
    AlphaOptions,
    AugmentationOptions,
    ClassifierOptions,
    DistilOptions,
    LoaderOptions,
    OptimizerOptions,
    ScheduleOptions,
    WorkerOptions,
)
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.resolutions import size_text
from nasray.validation import checked, validate
from nasray.values import AboveZero, Flag, Name, Natural, Positive, Seed, Text, check_text, number, whole

PACKAGE = "nasray.recipes"
TINY = "-tiny"

DETECTOR = Chosen(DETECTORS, default="gfl")
PATH = Chosen(PATHS, default="uniform")

SCHEDULES: dict[str, tuple[float, tuple[float, ...]]] = {
    "1x": (12, (8, 11)),
    "2x": (24, (16, 22)),
    "3x": (36, (28, 33)),
    "4x": (48, (42, 47)),
    "6x": (73, (65, 71)),
}
"""Epochs of COCO in all, and those after which the learning rate is divided by ten: 1x and 2x as in Detectron and
mmdetection, 3x and 6x of MAE-DET (appendix A), 4x of MSNAS (section 4.1)."""


@checked
class Recipe:
    """One training, completely described.

    Attributes:
        name: Name of the recipe, and of its folder.
        task: Detection, or classification: what a backbone (or a supernet) is pre-trained on.
        seed: Same seed, same training (bit for bit on CPUs of one kind).
        backbone: A named architecture, a JSON file, or a run's folder: a backbone, or a pyramid instead of a backbone
            and a neck.
        head: The same of the architecture that fills the detector's slot for a head; the detector's own if left out.
        data: A YAML file or folder of a data set, or "shapes" for the embedded one. For classification a folder with
            train/CLASS/*.jpg, and val/CLASS/*.jpg to validate on.
        holdout: Images of the training set, drawn by the seed, that are kept apart from training, for a supernet's
            paths to be compared on.
        holdout_seed: Seed by which these images are drawn; `seed` if left out.
        weights: A file of pre-trained weights: of a backbone, or a checkpoint of nasray's, also of a supernet that the
            network is a path of; or published ones of a library by name, such as torchvision:resnet50.
        continues: A checkpoint of a training by the same schedule, whose weights, optimizer and iteration are taken up.
        sort_channels: Whether channels inside a supernet's blocks are put in the order of their importance before the
            first step, so that narrow paths begin with the most important ones.
        batch_size: Images of one step, over all workers.
        backbone_norm: Norm: batch (synchronized if there are several workers), or frozen (fixed statistics and scale).
        frozen_stages: How much of the backbone is not trained: 1 the stem, 2 also the first stage, and so on.
        precision: Precision of the forward pass: float32, or automatic mixed precision.
        channels_last: Whether tensors are NHWC, which convolutions on CPUs and tensor cores prefer.
        ema: Decay of the moving average of weights that is evaluated and exported; 0 for none.
        evaluate_every: Epochs between two validations.
        checkpoint_every: Iterations between two checkpoints; every epoch has one anyway.
        keep_best: Number of the best checkpoints that are kept beside the last.
        log_every: Iterations between two lines of the log.
        detector: Neck and head on top of the backbone.
        classifier: Head on top of the backbone where images are classified.
        paths: Sampler of the path of a supernet that a step trains.
        space: Name and options of the space that the paths are of; that of the supernet's networks if left out.
        within: Values that genes of the paths may have, by the last word of the genes' names, such as
            `{width: [80, 100]}`; all if left out.
        distil: Teacher of a classifier.
        alpha: Architecture parameters of a relaxed supernet.
        augmentation: Changes of training images.
        loader: Loading of images.
        optimizer: Optimizer of the weights.
        schedule: Length, and course of the learning rate.
        resources: Processes that train side by side.
        callbacks: Callbacks that hear what the training tells where it is alone, such as wandb and mlflow; none if
            left out.
    """

    name: Name
    task: Literal["detection", "classification"] = "detection"
    seed: Seed = 0
    backbone: Text = "resnet50"
    head: Text | None = None
    data: Text = "shapes"
    holdout: Natural = 0
    holdout_seed: Seed | None = None
    weights: Text | None = None
    continues: Text | None = None
    sort_channels: Flag = False
    batch_size: Annotated[int, whole(1, 100_000)] = 16
    backbone_norm: Literal["batch", "frozen"] = "batch"
    frozen_stages: Natural = 0
    precision: Precision = "float32"
    channels_last: Flag = True
    ema: Annotated[float, number(0, lt=1)] = 0.0
    evaluate_every: AboveZero = 1
    checkpoint_every: Positive | None = None
    keep_best: Annotated[int, whole(0, 1000)] = 1
    log_every: Positive = 50
    detector: Annotated[Any, DETECTOR] = field(default_factory=DETECTOR.make_default)
    classifier: ClassifierOptions = field(default_factory=ClassifierOptions)
    paths: Annotated[Any, PATH] = field(default_factory=PATH.make_default)
    space: dict[str, Any] | None = None
    within: dict[str, tuple[Natural, ...]] | None = None
    distil: DistilOptions = field(default_factory=DistilOptions)
    alpha: AlphaOptions = field(default_factory=AlphaOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    loader: LoaderOptions = field(default_factory=LoaderOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    resources: WorkerOptions = field(default_factory=WorkerOptions)
    callbacks: tuple[CallbackName, ...] = ()

    def __post_init__(self) -> None:
        parts = self.resources.workers * self.optimizer.accumulate
        if self.batch_size % parts:
            raise NasrayError(
                f"batch_size {self.batch_size} does not divide among {self.resources.workers} workers with "
                f"{self.optimizer.accumulate} parts each; choose a multiple of {parts}"
            )
        if self.continues is not None and (self.weights is not None or self.sort_channels):
            other = "sort_channels" if self.sort_channels else "weights"
            raise NasrayError(f"continues takes up a whole training, its weights too: leave out {other}, or continues")
        if self.task != "classification" and self.distil.teacher is not None:
            raise NasrayError("distil is of classification: detectors learn from labels alone. Leave distil out")
        if self.weights is None and self.continues is None and (self.frozen_stages or self.backbone_norm == "frozen"):
            raise NasrayError(
                f"frozen_stages {self.frozen_stages} and backbone_norm {self.backbone_norm!r} keep random weights as "
                "they are: name pre-trained ones with --weights FILE, or train with 0 and batch"
            )
        if self.task == "classification" and not self.augmentation.square:
            raise NasrayError("classification takes square images: set augmentation.square to their edge in pixels")

    @property
    def split_seed(self) -> int:
        """Seed by which images are held out."""
        return self.seed if self.holdout_seed is None else self.holdout_seed


RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def with_files(recipe: Recipe, place: Callable[[str], str]) -> Recipe:
    """Return a recipe with the paths of the files that its training begins with or needs changed by a function."""
    moved: dict[str, Any] = {}
    for name in ("weights", "continues"):
        value = getattr(recipe, name)
        moved[name] = value and place(value)
    if recipe.distil.teacher is not None:
        moved["distil"] = dataclasses.replace(recipe.distil, teacher=place(recipe.distil.teacher))
    if (pruned := getattr(recipe.paths, "pruned", None)) is not None:
        moved["paths"] = dataclasses.replace(recipe.paths, pruned=place(pruned))
    return dataclasses.replace(recipe, **moved)


def of_one_path(recipe: Recipe) -> Recipe:
    """Return the recipe of a supernet's training for a network of a single path."""
    return dataclasses.replace(
        recipe,
        weights=recipe.weights or recipe.continues,
        continues=None,
        sort_channels=False,
        paths=PATH.make_default(),
        space=None,
        within=None,
    )


def own_sides(recipe: Recipe) -> tuple[int, int]:
    """Return the short and the longest side in pixels to which a recipe brings images that are measured."""
    options = recipe.augmentation
    if options.evaluation_sides is not None:
        return options.evaluation_sides
    if options.square is not None:
        return options.square, options.square
    return options.short_side[-1], options.long_side


def at_resolution(recipe: Recipe, image_hw: tuple[int, int] | None) -> Recipe:
    """Return a recipe that brings images to a resolution.

    Their shorter side becomes the resolution's, unless the longer one would then exceed the resolution's. Sides that
    training draws from keep their proportion. A recipe stays what it is if it has the resolution already.

    Args:
        recipe: Recipe.
        image_hw: Height and width in pixels of the resolution; None of an architecture without.

    Raises:
        NasrayError: if the recipe's images are square, and the resolution is not.
    """
    if image_hw is None:
        return recipe
    options, (short, long), (before, _) = recipe.augmentation, sorted(image_hw), own_sides(recipe)
    is_square = options.square is not None and options.evaluation_sides is None
    if is_square and short != long:
        raise NasrayError(
            f"recipe {recipe.name} brings images to squares, and the resolution {size_text(image_hw)} is none. Take "
            "square ones, or leave augmentation.square out"
        )

    def scaled(side: int) -> int:
        return max(round(side * short / before), 1)

    changed = dataclasses.replace(
        options,
        short_side=tuple(map(scaled, options.short_side)),
        long_side=long,
        square=None if options.square is None else scaled(options.square),
        evaluation_sides=None if is_square else (short, long),
    )
    return dataclasses.replace(recipe, augmentation=changed)


def recipe_texts() -> dict[str, str]:
    """Name and a line about every recipe that comes with nasray; each has a tiny twin."""
    texts = {}
    for name, text in shipped_texts(PACKAGE).items():
        texts[name] = text
        texts[name + TINY] = f"{name} in small: seconds to minutes on two CPU cores"
    return texts


def load_recipe(name_or_path: str) -> Recipe:
    """Return a recipe that comes with nasray, its tiny twin, or one from a YAML file.

    Raises:
        NasrayError: if there is none, or it is not valid; the message names the key and what is allowed.
    """
    name = check_text(name_or_path)
    if not is_path(name):
        if name not in recipe_texts():
            raise NasrayError(
                f"unknown recipe {name!r}{did_you_mean(name, recipe_texts())} `nasray list recipes` prints all; "
                "a path to a YAML file also does"
            )
        if name.endswith(TINY):
            return tiny(load_recipe(name.removesuffix(TINY)))
    recipe = validate(RECIPE, Recipe, load_content(name, PACKAGE, "recipe"), shown(name))
    assert isinstance(recipe, Recipe)
    return recipe


def override_recipe(recipe: Recipe, arguments: Sequence[str], *, declared: Iterable[str] = ()) -> Recipe:
    """Return the recipe with what the command line changes.

    Args:
        recipe: Recipe to change.
        arguments: Arguments of the command line, such as `["--seed", "3"]`; see `nasray.overrides.override`.
        declared: Further options of the command, for suggestions alone.

    Raises:
        NasrayError: if an option is unknown, or what comes out is not valid.
    """
    content = RECIPE.dump_python(recipe, mode="json")
    found = overridden(RECIPE, Recipe, content, arguments, recipe.name, declared=declared)
    assert isinstance(found, Recipe)
    return found


def override_workers(given: WorkerOptions, arguments: Sequence[str], *, declared: Iterable[str] = ()) -> WorkerOptions:
    """Return the workers of a training with what the command line changes.

    Raises:
        NasrayError: if an option is unknown, or a value out of range.
    """
    return overridden(TypeAdapter(WorkerOptions), WorkerOptions, vars(given), arguments, "resources", declared=declared)


def is_recipe(name: str) -> bool:
    """Return whether a name means a recipe rather than an architecture."""
    return name.endswith((".yaml", ".yml")) or name.removesuffix(TINY) in shipped_names(PACKAGE)


def tiny(recipe: Recipe) -> Recipe:
    """Return the same training in small: the embedded data set, a tiny backbone, narrow heads, a few epochs.

    Detector, optimizer, form of the schedule and kinds of augmentation stay; sizes and lengths shrink in proportion.
    """
    augmentation, schedule, optimizer = recipe.augmentation, recipe.schedule, recipe.optimizer
    is_classification = recipe.task == "classification"
    batch_size = 32 if is_classification else 8
    if is_classification:  # batches there shrink by so much that the learning rate has to follow
        rate = optimizer.learning_rate * min(batch_size / recipe.batch_size, 1)
        optimizer = dataclasses.replace(optimizer, learning_rate=rate)
    factor = 128 / max(augmentation.short_side)
    short_sides = {max(round(factor * side / 8) * 8, 64) for side in augmentation.short_side}
    epochs = 6.0
    return dataclasses.replace(
        of_one_path(recipe),
        name=recipe.name + TINY,
        backbone="basic-tiny",
        data="shapes",
        weights=None,
        batch_size=batch_size,
        frozen_stages=0,
        backbone_norm="batch",
        log_every=10,
        evaluate_every=epochs / 2,
        precision="float32",
        detector=_tiny_detector(recipe.detector),
        augmentation=dataclasses.replace(
            augmentation,
            short_side=tuple(sorted(short_sides)),
            long_side=214,
            evaluation_sides=None,
            square=(48 if is_classification else 128) if augmentation.square else None,
        ),
        classifier=dataclasses.replace(recipe.classifier, width=64),
        optimizer=optimizer,
        loader=dataclasses.replace(recipe.loader, processes=0, cache=True),
        schedule=dataclasses.replace(
            schedule,
            epochs=epochs,
            milestones=tuple(milestone * epochs / schedule.epochs for milestone in schedule.milestones),
            warmup_iterations=min(schedule.warmup_iterations, 20),
        ),
        resources=WorkerOptions(workers=1, gpus=0),
    )


def _tiny_detector(options: Any) -> Any:
    """Return the same detector with narrow convolutions, and small anchors where the recipe chose their size."""
    default, changes = options_of(DETECTORS, options.name), {}
    if hasattr(options, "channels"):
        changes["channels"] = 32
    if hasattr(options, "base_size") and options.base_size != default.base_size:
        changes["base_size"] = 8
    return dataclasses.replace(options, **changes)
