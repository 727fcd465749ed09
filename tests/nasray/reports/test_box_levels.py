import math

import numpy as np
import pytest
import torch

from nasray.finding import find_architecture
from nasray.models import build
from nasray.models.detectors import DETECTORS, build_detector
from nasray.models.detectors.fcos import STRIDES
from nasray.recipe import load_recipe, override_recipe
from nasray.reports.box_levels import PYRAMID, count_levels, count_tiny, levels_of


def recipe(name, *arguments):
    return override_recipe(load_recipe("shapes-detect"), ["--detector.name", name, *arguments])


@pytest.mark.parametrize(
    ("name", "arguments", "strides", "bounds"),
    [
        ("gfl", (), (8, 16, 32, 64, 128), (90.5, 181.0)),
        ("fcos", (), (8, 16, 32, 64, 128), (128.0, 256.0)),
        ("retinanet", ("--detector.base-size", "16"), (8, 16, 32, 64, 128), (28.5, 57.0)),
        ("faster-rcnn", (), (4, 8, 16, 32, 64), (45.3, 90.5)),
        ("faster-rcnn", ("--detector.first-level", "3"), (8, 16, 32, 64), (45.3, 90.5)),
        ("ssdlite", (), (16, 32, 64, 128, 256, 512), (33.9, 53.5)),
        ("centernet", (), (4,), (math.inf,)),
        ("yolof", (), (32,), (math.inf,)),
    ],
)  # fmt: skip
def test_levels_meet_and_take_everything(name, arguments, strides, bounds):
    levels = levels_of(recipe(name, *arguments))
    assert tuple(level.stride for level in levels) == strides
    assert (levels[0].low, levels[-1].high) == (0, math.inf)
    assert [level.high for level in levels[: len(bounds)]] == pytest.approx(bounds, abs=0.05)
    assert [level.low for level in levels[1:]] == [level.high for level in levels[:-1]]


def test_a_pyramid_without_a_recipe():
    assert levels_of(None) == levels_of(recipe("gfl"))
    assert PYRAMID == STRIDES


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_strides_are_those_of_the_detector(name):
    strides = [level.stride for level in levels_of(recipe(name))]
    network = build_detector(name, build(find_architecture("basic-tiny")), 3).eval()
    if name in ("faster-rcnn", "mask-rcnn"):
        assert list(network.strides) == strides
        return
    with torch.no_grad():
        maps = next(iter(network.forward_raw(torch.zeros(1, 3, 128, 128)).values()))
    sides = [value.shape[-1] for value in (maps if isinstance(maps, list) else [maps])]
    assert sides == [-(-128 // stride) for stride in strides]


def test_boxes_are_counted_once():
    levels = levels_of(None)
    edges = np.array([0.5, 7.9, 8, 90.5, 90.6, 5000])
    assert count_levels(edges, levels) == [4, 1, 0, 0, 1]
    assert count_tiny(edges, levels) == 2
