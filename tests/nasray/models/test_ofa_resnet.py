import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, checked_spec
from nasray.models import build
from nasray.models.cost import detector_cost
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.architecture import Architecture

TINY = OFAResNetSpace("tiny")


def test_networks_have_the_parameters_and_maps_of_the_space():
    for space in (OFAResNetSpace(), TINY):
        for row in space.sample(4, np.random.default_rng(0)):
            with torch.device("meta"):
                network = build(space.to_architecture(row))
                maps = network(torch.empty(1, 3, 65, 97))
            params = sum(parameter.numel() for parameter in network.parameters())
            assert params == round(space.cost(row[None])["params_m"][0] * 1e6)
            assert [x.shape[2:] for x in maps.values()] == [(17, 25), (9, 13), (5, 7), (3, 4)]
            assert [x.shape[1] for x in maps.values()] == network.out_channels


@pytest.mark.parametrize(
    ("name", "side", "gmacs"),
    [("largest", 512, 53.98), ("smallest", 512, 19.12), ("largest", 384, 30.33), ("smallest", 384, 10.72)],
)
def test_whole_detectors_of_detofa(name, side, gmacs):
    """CenterNet of the largest and the smallest network, by arithmetic from the papers: 80 classes, or VOC's 20."""
    architecture = ARCHITECTURES[f"ofa-resnet50-{name}"]
    costs = detector_cost("centernet", architecture, (side, side), num_classes=80 if side == 512 else 20)
    assert round(costs["total"]["gmacs"], 2) == gmacs
    if side == 512 and name == "largest":
        rest = sum(part["params_m"] for key, part in costs.items() if key not in ("backbone", "backbone.stem", "total"))
        assert round(rest * 1e6) == 10_935_316


@pytest.mark.parametrize(("change", "message"), [
    ({"stem": {"depth": 1, "mid": 65, "width": 65}}, "spec.stem.depth is one of 0, 2; got 1"),
    ({"stem": {"depth": 2, "mid": 65}}, "width"),
    ({"widths": [64, 80, 96]}, "spec.widths is a list, one for each of the stages"),
    ({"widths": [8, 80, 96, 128]}, "have the same channels"),
    ({"divisor": "2"}, "divisor"),
    ({"depths": [1, 1, 1, 10**9]}, "blocks of a stage"),
    ({"extra": 1}, "extra"),
])  # fmt: skip
def test_specs_that_make_no_network_are_refused(change, message):
    spec = TINY.to_architecture(TINY.sample(1, np.random.default_rng(0))[0]).spec
    with pytest.raises(NasrayError, match=message):
        checked_spec(Architecture.create("ofa-resnet", {**spec, **change}))


@pytest.mark.parametrize(("stage", "message"), [
    ({"depth": 0, "width": 65, "expand": [20, 20]}, r"stages\[0\].expand is a list of 1 numbers"),
    ({"depth": 0, "width": 70, "expand": [20]}, r"stages\[0\].width is one of 65, 80, 100; got 70"),
    ({"depth": 0, "width": 65, "expand": [0]}, r"stages\[0\].expand is one of 20, 25, 35; got 0"),
    ({"depth": True, "width": 65, "expand": [20, 20]}, r"stages\[0\].depth is one of 0, 1, 2; got True"),
])  # fmt: skip
def test_stages_that_make_no_network_are_refused(stage, message):
    spec = TINY.to_architecture(TINY.sample(1, np.random.default_rng(0))[0]).spec
    with pytest.raises(NasrayError, match=message):
        checked_spec(Architecture.create("ofa-resnet", {**spec, "stages": [stage, *spec["stages"][1:]]}))
