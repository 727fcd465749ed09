"""Costs of whole detectors: published figures, and PyTorch's own counter."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import ARCHITECTURES
from nasray.loading import load_plan
from nasray.models import build
from nasray.models.cost import PUBLISHED_PARTS, compare_published, detector_cost
from nasray.models.detectors import DETECTORS, build_detector
from nasray.spaces import MSNASSpace
from nasray.spaces.windows import count_within

SCALES = (4, 8, 16, 32, 64)
ENCODER = ("backbone.stem", "backbone", "neck", "rpn")


@pytest.mark.parametrize("published", PUBLISHED_PARTS, ids=lambda one: one.name)
def test_published_figures_to_one_percent(published):
    row = compare_published(published)
    assert abs(row["difference"]) < 0.01
    assert row["gmacs"] != row["published_gmacs"]  # counted, not copied
    if published.params_m is not None:
        assert row["params_m"] == pytest.approx(published.params_m, abs=0.005)


@pytest.mark.parametrize("published", [one for one in PUBLISHED_PARTS if "RPN" in one.name], ids=lambda one: one.name)
def test_baselines_of_msnas_to_two_decimals(published):
    """Its RPN has two outputs for objectness: three more a location, each of 256 weights and a bias."""
    locations = sum(832 * 1280 // scale**2 for scale in SCALES)
    gmacs = compare_published(published)["gmacs"] + 3 * 257 * locations / 1e9
    assert round(gmacs, 2) == published.gmacs
    assert ("backbone.stem" in published.parts) == (published.architecture == "resnet18")


@pytest.mark.parametrize("label", ["r18-1", "r34-4", "r50-1"])
def test_encoders_of_msnas_as_their_space_counts_them(label):
    architecture, space = ARCHITECTURES[f"msnas-{label}"], MSNASSpace(label[:3])
    parts = detector_cost("faster-rcnn", architecture, space.image_hw)
    own = space.cost(space.from_architecture(architecture)[None])
    assert sum(parts[part]["gmacs"] for part in ENCODER if part in parts) == pytest.approx(own["gmacs"][0], rel=1e-12)
    params = sum(parts[part]["params_m"] for part in ENCODER if part in parts)
    assert params == pytest.approx(own["params_m"][0], rel=1e-12)


def test_small_encoders_of_msnas_as_their_space_counts_them():
    space = MSNASSpace("tiny", image_hw=(100, 150))
    rows = space.sample(12, np.random.default_rng(0))
    for row, gmacs in zip(rows, space.cost(rows)["gmacs"], strict=True):
        parts = detector_cost("faster-rcnn", space.to_architecture(row), space.image_hw)
        assert sum(parts[part]["gmacs"] for part in ENCODER if part in parts) == pytest.approx(gmacs, rel=1e-12)


@pytest.mark.parametrize(("name", "baseline", "channels", "share"), [
    ("msnas-r18", "resnet18", 256, 0.01),
    ("msnas-r18-norandom", "resnet18", 256, 0.01),
    ("msnas-r18-nofinetune", "resnet18", 256, 0.01),
    ("msnas-r18-fpn-style", "resnet18", 256, 0.01),
    ("msnas-r18-unconstrained", "resnet18", 256, 0.01),
    ("msnas-r34", "resnet34", 256, 0.01),
    ("msnas-r50", "resnet50", 256, 0.01),
    ("msnas-mask-r50", "resnet50", 256, 0.01),
    ("msnas-laptop", "resnet18-quarter", 32, 0.01),
])  # fmt: skip
def test_windows_of_shipped_experiments_are_around_the_baseline_with_fpn(name, baseline, channels, share):
    plan = load_plan(name)
    space, budget = plan.parts.space, plan.parts.searcher.budget
    parts = detector_cost("faster-rcnn", ARCHITECTURES[baseline], space.image_hw, channels=channels, norm="batch")
    gmacs = sum(parts[part]["gmacs"] for part in ENCODER)
    assert budget.lower["gmacs"] == pytest.approx((1 - share) * gmacs, rel=2e-5)
    assert budget.upper["gmacs"] == pytest.approx((1 + share) * gmacs, rel=2e-5)
    assert count_within(space, budget) > 2 * plan.experiment.evaluations


def test_fcos_head_exactly():
    """4,920,661 parameters and 104,824,834,560 multiply-adds of convolutions at 1280x800, as the authors' modules."""
    head = detector_cost("fcos", ARCHITECTURES["resnet50"], (800, 1280))["head"]
    assert head["params_m"] * 1e6 == pytest.approx(4_920_661 + 5, abs=0.5)  # and a scale for each level
    assert head["gmacs"] * 1e9 == pytest.approx(104_824_834_560, abs=0.5)


def test_centernet_neck_and_heads_exactly():
    """10,935,316 parameters for 80 classes and 2048 channels; 7.52 and 7.34 G at 512x512."""
    costs = detector_cost("centernet", ARCHITECTURES["resnet50"], (512, 512))
    own = {part: figures for part, figures in costs.items() if not part.startswith(("backbone", "total"))}
    assert sum(figures["params_m"] for figures in own.values()) * 1e6 == pytest.approx(10_935_316, abs=0.5)
    assert sum(figures["gmacs"] for figures in own.values()) == pytest.approx(7.52 + 7.34, abs=0.01)


@pytest.mark.parametrize("name", DETECTORS)
def test_as_pytorch_counts(name):
    architecture, image_hw = ARCHITECTURES["basic-tiny"], (160, 192)
    costs = detector_cost(name, architecture, image_hw, num_classes=5)
    with torch.device("meta"):
        detector = build_detector(name, build(architecture), 5).eval()
        images = torch.empty(1, 3, *image_hw)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(images)
    assert costs["total"]["gmacs"] == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)
    assert costs["total"]["params_m"] == pytest.approx(sum(p.numel() for p in detector.parameters()) / 1e6)
    assert costs["total"]["gmacs"] <= costs["total"]["gmacs_bias"] < costs["total"]["gmacs_mmcv"]
