import math

import pytest
import torch
from torchvision.models.detection.fcos import FCOSHead as TheirHead

from nasray.models.detectors.fcos import FCOSHead, all_points, assign, centerness_of
from nasray.models.detectors.heads import TwinTowers, flatten_level

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]  # of the levels of an image of 128 pixels


def test_parameters_of_the_head():
    """4.92 M in Table 1 of Zhong et al., "Representation sharing for fast object detector search and beyond", ECCV
    2020; to the digit the count of FCOS's own code, which the five scales are not in."""
    head = FCOSHead(TwinTowers(256, 4, "group", 5), 80)
    assert sum(parameter.numel() for parameter in head.parameters()) - len(head.scales) == 4_920_661


def test_the_head_is_that_of_torchvision():
    channels, classes = 96, 5  # the least width at which ours has 32 groups as theirs
    ours, theirs = FCOSHead(TwinTowers(channels, 2, "group", 5), classes), TheirHead(channels, 1, classes, 2)
    pairs = [
        (ours.trunk.class_tower, theirs.classification_head.conv),
        (ours.classes, theirs.classification_head.cls_logits),
        (ours.trunk.box_tower, theirs.regression_head.conv),
    ]
    theirs_boxes = (theirs.regression_head.bbox_reg, theirs.regression_head.bbox_ctrness)
    with torch.no_grad():
        for mine, other in pairs:
            state = sorted(mine.named_parameters(), key=lambda item: item[0])
            weights = dict(state)
            for name, parameter in other.named_parameters():
                torch.nn.init.normal_(parameter, std=0.3)
                weights[_our_name(mine, name)].copy_(parameter)
        for name, parameter in ours.boxes.named_parameters():
            parts = [getattr(predictor, name) for predictor in theirs_boxes]
            for part in parts:
                torch.nn.init.normal_(part, std=0.3)
            parameter.copy_(torch.cat(parts))
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, channels, size, size + 1, generator=generator) for size in (8, 4, 2, 2, 1)]
    raw, expected = ours(levels), theirs(levels)
    for name, other, width in (
        ("logits", "cls_logits", classes),
        ("distances", "bbox_regression", 4),
        ("centerness", "bbox_ctrness", 1),
    ):
        flat = torch.cat([flatten_level(level, width) for level in raw[name]], dim=1)
        torch.testing.assert_close(flat, expected[other], rtol=1e-4, atol=1e-4)


def _our_name(module, name):
    """Theirs is a sequence of convolution, norm and activation."""
    if not hasattr(module, "convs"):
        return name
    index, kind = name.split(".")
    number, part = divmod(int(index), 3)
    return f"convs.{number}.{kind}" if part == 0 else f"norms.{number}.0.{kind}"


def points_and_strides():
    return all_points([torch.zeros(1, 1, *hw) for hw in SIZES])


def test_assignment_by_its_definition():
    points, strides = points_and_strides()
    boxes = torch.tensor([[10, 10, 40, 30], [20, 5, 60, 50], [0, 0, 127, 120], [22, 22, 30, 30], [5, 90, 120, 100.0]])
    ranges = {8: (0, 64), 16: (64, 128), 32: (128, 256), 64: (256, 512), 128: (512, math.inf)}
    expected = []
    for (x, y), stride in zip(points.tolist(), strides.tolist(), strict=True):
        best, least_area = -1, math.inf
        for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            center = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < 1.5 * stride
            low, high = ranges[stride]
            area = (x2 - x1) * (y2 - y1)
            if min(sides) > 0 and center and low <= max(sides) <= high and area < least_area:
                best, least_area = index, area
        expected.append(best)
    assigned = assign(points, strides, boxes)
    assert assigned.tolist() == expected
    assert set(range(5)) <= set(expected)


def test_no_boxes_are_assigned_nowhere():
    assert (assign(*points_and_strides(), torch.zeros(0, 4)) == -1).all()
    assert (assign(*points_and_strides(), torch.tensor([[20, 20, 20, 60.0]])) == -1).all(), "a box without area"


def test_centerness():
    distances = torch.tensor([[5, 7, 5, 7], [1, 2, 3, 6], [1, 1, 4, 1.0]])
    torch.testing.assert_close(centerness_of(distances), torch.tensor([1, 1 / 3, 0.5]))
    assert centerness_of(torch.zeros(0, 4)).shape == (0,)
