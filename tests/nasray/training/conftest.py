"""A training that takes seconds: FCOS with narrow heads on a tiny backbone, images of 64 pixels."""

import dataclasses
import functools
import json

import pytest
import torch

from nasray.data import open_data
from nasray.finding import find_architecture
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, LoaderOptions, OptimizerOptions, ScheduleOptions
from nasray.training import setup
from nasray.training.folder import Description, create_folder
from nasray.training.loop import Validation

RECIPE = Recipe(
    name="tiny",
    backbone="basic-tiny",
    batch_size=16,
    log_every=2,
    detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1),
    augmentation=AugmentationOptions(short_side=(64, 96), long_side=96),
    loader=LoaderOptions(processes=0, cache=True),
    optimizer=OptimizerOptions(learning_rate=0.02),
    schedule=ScheduleOptions(epochs=1.5, milestones=(1,), warmup_iterations=3),
)  # 10 iterations an epoch, 15 in all


open_once = functools.cache(open_data)  # drawing the shapes takes longer than a training here


def first_weight(model):
    """Stands for a validation: any figure that depends on the weights."""
    return Validation({"mAP": next(model.parameters()).abs().mean().item()}, {})


@pytest.fixture
def quick_validation(monkeypatch):
    monkeypatch.setattr(setup, "make_validation", lambda *_: first_weight)
    monkeypatch.setattr(setup, "open_data", open_once)


@pytest.fixture
def recipe():
    return RECIPE


@pytest.fixture
def open_shapes_once():
    return open_once


@pytest.fixture
def begin():
    """A function that makes a training's folder; it gives the recipe."""

    def begin_in(folder, architecture=None, **changes):
        recipe = dataclasses.replace(RECIPE, **changes)
        dataset = open_once(recipe.data).split("train")
        architecture = architecture or find_architecture(recipe.backbone)
        of_data = (dataset.classes, dataset.category_ids, dataset.pixel_rules)
        create_folder(folder, Description(recipe, architecture, *of_data))
        return recipe

    return begin_in


@pytest.fixture
def log_of():
    """A function that reads a log without times."""

    def read(folder):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [{key: line[key] for key in line if key not in ("images_per_s", "seconds")} for line in lines]

    return read


@pytest.fixture
def same():
    """A function that tells whether nested values are equal bit for bit; NaN, of figures that there are not, too."""

    def equal(one, other):
        if isinstance(one, torch.Tensor):
            return one.dtype == other.dtype and torch.equal(one, other)
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
        if isinstance(one, list | tuple):
            return len(one) == len(other) and all(map(equal, one, other))
        return bool(one == other or (one != one and other != other))

    return equal


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Small maps on few threads."""
