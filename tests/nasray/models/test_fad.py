"""Receptive fields are measured: which pixels of the input the gradient of one pixel reaches."""

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, checked_spec, compose
from nasray.models.cost import detector_cost
from nasray.models.detectors import assemble_detector
from nasray.models.fad import Edge, FADHead
from nasray.spaces import Architecture, FADSpace
from nasray.spaces.transformations import BY_NAME, DARTS, TRANSFORMATIONS
from tests.nasray.models.detectors.common import TINY, EndToEnd, shapes_batch
from tests.nasray.models.detectors.toys import exported


def head_of(architecture, channels=256):
    return FADHead(**checked_spec(architecture), in_channels=channels, num_levels=5)


@pytest.mark.parametrize("name", ["fad-paper", "fad-other"])
def test_a_head_has_the_parameters_that_the_space_counts(name):
    architecture = ARCHITECTURES[name]
    space = FADSpace()
    counted = space.cost(space.from_architecture(architecture)[None])["params_m"][0]
    assert sum(parameter.numel() for parameter in head_of(architecture).parameters()) == round(counted * 1e6)


def test_a_head_in_fcos_costs_what_the_paper_says_and_the_space_counts():
    """89.05 G as mmcv counts at 1280x800, "89" in the paper; 88,377,868,800 multiply-adds of convolutions."""
    architecture = compose({"backbone": ARCHITECTURES["resnet50"], "head": ARCHITECTURES["fad-paper"]})
    head = detector_cost("fcos", architecture, (800, 1280))["head"]
    assert head["gmacs"] * 1e9 == pytest.approx(88_377_868_800, abs=0.5)
    assert head["gmacs_mmcv"] == pytest.approx(89.05, abs=0.005)
    assert head["params_m"] * 1e6 == pytest.approx(4_169_493 + 5, abs=0.5)  # and a scale for each level


def linear(transformation):
    """The convolutions and pools of an edge with weights of one: no ReLU cuts a pixel off, no norm mixes all."""
    kinds = torch.nn.Conv2d | torch.nn.MaxPool2d | torch.nn.AvgPool2d
    layers = [module for module in Edge(4, 6, transformation).modules() if isinstance(module, kinds)]
    for layer in layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 1.0)
            torch.nn.init.zeros_(layer.bias) if layer.bias is not None else None
    return torch.nn.Sequential(*layers)


# channels within edges for boxes and classes, cells: parameters, multiply-adds of convolutions, elements of group norms
COUNTED = {
    (96, 96, 1): (2_182_197, 46_277_568_000, 53_239_680),
    (96, 96, 2): (4_169_493, 88_377_868_800, 117_400_320),
    (128, 128, 2): (6_097_493, 129_375_152_640, 152_893_440),
    (128, 256, 2): (11_340_373, 240_949_140_480, 223_879_680),
}


@pytest.mark.parametrize("options", COUNTED, ids=str)
def test_whole_detectors_count_every_published_width(options):
    """As the released modules, at 1280x800; mmcv adds biases, two for an element of a norm and one for its ReLU."""
    channels, class_channels, cells = options
    groups = ARCHITECTURES["fad-paper"].spec["groups"]
    widths = {"box": channels, "class": class_channels}
    spec = {"cells": cells, "groups": {key: {**group, "channels": widths[key]} for key, group in groups.items()}}
    architecture = compose({"backbone": TINY, "head": Architecture.create("fad", spec)})
    head = detector_cost("fcos", architecture, (800, 1280))["head"]
    params, macs, normed = COUNTED[options]
    assert round(head["params_m"] * 1e6) == params + 5  # a scale for each level
    assert round(head["gmacs"] * 1e9) == macs
    assert round((head["gmacs_mmcv"] - head["gmacs_bias"]) * 1e9) == 3 * normed


@pytest.mark.parametrize("transformation", TRANSFORMATIONS, ids=lambda each: each.name)
def test_receptive_fields(transformation):
    pixels = torch.zeros(1, 4, 31, 31, requires_grad=True)
    linear(transformation)(pixels)[0, 0, 15, 15].backward()
    reached = pixels.grad[0, 0].nonzero()
    sides = reached.max(dim=0).values - reached.min(dim=0).values + 1
    assert sides.tolist() == [transformation.receptive_field] * 2


@pytest.mark.parametrize("transformation", DARTS, ids=lambda each: each.name)
def test_receptive_fields_of_operations_that_pool(transformation):
    """Of a maximum the gradient reaches one pixel: here every pixel by itself is raised."""
    raised = torch.eye(15 * 15).view(-1, 1, 15, 15).expand(-1, 4, -1, -1)
    with torch.no_grad():
        reached = (linear(transformation)(raised)[:, 0, 7, 7] > 0).view(15, 15).nonzero()
    sides = reached.max(dim=0).values - reached.min(dim=0).values + 1
    assert sides.tolist() == [transformation.receptive_field] * 2


@pytest.mark.parametrize("transformation", BY_NAME.values(), ids=lambda each: each.name)
def test_an_edge_has_the_parameters_that_are_counted(transformation):
    edge = Edge(16, 12, transformation)
    around = 2 * 16 * 12 + 16 + 12
    assert sum(parameter.numel() for parameter in edge.parameters()) == around + transformation.cost(12)[1]
    assert edge(torch.randn(2, 16, 9, 7)).shape == (2, 16, 9, 7)


@pytest.mark.parametrize(
    "name",
    ["fcos", *(pytest.param(name, marks=pytest.mark.slow) for name in ("retinanet", "gfl", "mask-rcnn"))],
)
def test_a_head_exports_in_every_detector(name):
    space = FADSpace(groups=1 if name == "mask-rcnn" else 2, channels=8)
    head = space.to_architecture(space.sample(1, np.random.default_rng(0))[0])
    torch.manual_seed(0)
    whole = compose({"backbone": TINY, "head": head})
    detector = assemble_detector(name, whole, 3, channels=16, score_threshold=0.001)  # it is fresh: sure of nothing
    images = shapes_batch(1, (64, 96))[0].float()
    module = EndToEnd(detector.eval())
    with torch.no_grad():
        expected = module(images)
    for ours, theirs in zip(expected, exported(module, images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)


IDS = {
    ("maedet-m", "fad-paper"): "4bdbf08f10bb2e41",
    ("maedet-m", "fad-other"): "372895494a3f7201",
    ("resnet50", "fad-paper"): "f879ffb578372f0e",
    ("resnet50", "fad-other"): "46db2f33b852ca93",
}


def test_what_a_head_on_a_backbone_is_called_stays():
    """Ids of composites are in folders and histories; a backbone alone keeps its own."""
    ids = {
        (backbone, head): compose({"backbone": ARCHITECTURES[backbone], "head": ARCHITECTURES[head]}).id
        for backbone in ("maedet-m", "resnet50")
        for head in ("fad-paper", "fad-other")
    }
    assert ids == IDS
    assert compose({"backbone": ARCHITECTURES["maedet-m"]}).id == ARCHITECTURES["maedet-m"].id == "353ff5964d4863c7"
    assert [ARCHITECTURES[name].id for name in ("fad-paper", "fad-other")] == ["14351ef2298f2237", "efc522c62f8b8c21"]


def test_the_cells_for_classes_see_the_features_of_boxes():
    torch.manual_seed(0)
    head = head_of(ARCHITECTURES["fad-paper"], channels=16).eval()
    level = torch.randn(1, 16, 12, 14)
    classes, boxes = head.towers(level, 0)
    assert classes.shape == boxes.shape == level.shape
    with torch.no_grad():
        head.groups["boxes"].end.weight.zero_()
        head.groups["boxes"].end.bias.zero_()
    changed, none = head.towers(level, 0)
    assert not none.any()
    assert not torch.equal(changed, classes)


def test_a_head_of_masks_maps_regions():
    space = FADSpace(groups=1, channels=8, cells=1)
    row = space.sample(1, np.random.default_rng(0))[0]
    head = head_of(space.to_architecture(row), channels=16)
    assert head(torch.randn(3, 16, 14, 14)).shape == (3, 16, 14, 14)
