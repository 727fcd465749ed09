"""Costs of whole detectors: published figures, and PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import ARCHITECTURES
from nasray.models import build
from nasray.models.cost import PUBLISHED_PARTS, compare_published, detector_cost
from nasray.models.detectors import DETECTORS, build_detector


@pytest.mark.parametrize("published", PUBLISHED_PARTS, ids=lambda one: one.name)
def test_published_figures_to_one_percent(published):
    row = compare_published(published)
    assert abs(row["difference"]) < 0.01
    assert row["gmacs"] != row["published_gmacs"]  # counted, not copied
    if published.params_m is not None:
        assert row["params_m"] == pytest.approx(published.params_m, abs=0.005)


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
