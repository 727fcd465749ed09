"""Receptive fields are measured: which pixels of the input the gradient of one pixel reaches."""

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, checked_spec, compose
from nasray.models.cost import detector_cost
from nasray.models.fad import Edge, FADHead
from nasray.spaces import FADSpace
from nasray.spaces.transformations import BY_NAME, DARTS, TRANSFORMATIONS


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
