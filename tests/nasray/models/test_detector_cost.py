"""Costs of whole detectors for populations: what `nasray cost --detector` prints, to the last digit."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from nasray.architectures import ARCHITECTURES
from nasray.cli import main
from nasray.models import build
from nasray.models.cost import detector_cost
from nasray.models.detector_cost import DetectorCost
from nasray.models.detectors import DETECTORS
from nasray.models.detectors.yolof import YOLOF
from nasray.spaces import SPACES, NasrayError, RestrictedSpace, ShuffleNetSpace, forbid_values
from nasray.spaces.buckets import Buckets
from tests.nasray.models.detectors.toys import HEAD, toys  # noqa: F401

BACKBONES = [name for name, space in SPACES.items() if space.cost_scope == "backbone"]
PAIRS = list(itertools.product(BACKBONES, DETECTORS))
QUICK = set(zip(itertools.cycle(BACKBONES), DETECTORS, strict=False))
"""Every space and every detector at least once."""


@pytest.mark.parametrize(
    ("space", "name"), [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS]
)
def test_what_nasray_cost_prints_exactly(space, name, tmp_path, capsys):
    space = SPACES[space](image_hw=(224, 320))
    rows = space.sample(2, np.random.default_rng(3))
    costs = DetectorCost(space, name, num_classes=7)(rows)
    paths = [tmp_path / f"{index}.json" for index in range(len(rows))]
    for path, row in zip(paths, rows, strict=True):
        path.write_text(space.to_architecture(row).text)
    options = ["--detector", name, "--image-size", "224x320", "--classes", "7", "--json"]
    assert main(["cost", *map(str, paths), *options]) == 0
    printed = json.loads(capsys.readouterr().out)["detectors"]
    for index, path in enumerate(paths):
        total = printed[str(path)]["total"]
        assert (costs["gmacs"][index], costs["params_m"][index]) == (total["gmacs"], total["params_m"])
    assert (costs["layers"] == space.cost(rows)["layers"]).all()


@pytest.mark.parametrize("space", BACKBONES)
def test_channels_are_those_of_the_networks(space):
    space = SPACES[space]()
    rows = space.sample(2, np.random.default_rng(0))
    channels = space.map_channels(rows)
    for index, row in enumerate(rows):
        with torch.device("meta"):
            network = build(space.to_architecture(row))
        assert [(info["reduction"], info["num_chs"]) for info in network.feature_info] == [
            (reduction, values[index]) for reduction, values in channels.items()
        ]


def test_a_head_and_options_are_counted(toys):  # noqa: F811
    space = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))
    cost = DetectorCost(space, "retinanet", num_classes=3, head=HEAD, channels=32)
    row = space.sample(1, np.random.default_rng(0))
    own = DetectorCost(space, "retinanet", num_classes=3, channels=32)(row)
    whole, architecture = cost(row), space.to_architecture(row[0])
    assert cost.of(architecture) == {name: values[0] for name, values in whole.items()}
    assert whole["gmacs"] != own["gmacs"]
    assert cost.scope == f"detector retinanet with head toy-head {HEAD.id} (3 classes)"


def test_an_architecture_outside_of_the_space():
    cost = DetectorCost(ShuffleNetSpace(), "centernet", num_classes=20)
    resnet = ARCHITECTURES["resnet18"]
    total = detector_cost("centernet", resnet, (224, 224), num_classes=20)["total"]
    assert cost.of(resnet) == {"gmacs": total["gmacs"], "params_m": total["params_m"], "layers": 17}


def test_a_restricted_space_counts_alike():
    space = SPACES["basic"](image_hw=(128, 128))
    restricted = RestrictedSpace(space, forbid_values(space, {"kernel": [3]}))
    rows = restricted.sample(5, np.random.default_rng(0))
    ours, others = DetectorCost(restricted, "yolof")(rows), DetectorCost(space, "yolof")(rows)
    assert all((ours[name] == others[name]).all() for name in others)


class SquareNeck(YOLOF):
    """A detector that takes its map by a layer whose size grows with the square of its channels."""

    def __init__(self, backbone, num_classes):
        super().__init__(backbone, num_classes)
        channels = backbone.feature_info[-1]["num_chs"]
        self.square = nn.Conv2d(channels, channels, 1)

    def features(self, images, reductions):
        return [self.square(x) for x in super().features(images, reductions)]


def test_a_detector_that_does_not_grow_in_proportion_is_counted_for_each_combination(monkeypatch):
    monkeypatch.setitem(DETECTORS, "square", SquareNeck)
    space = SPACES["basic"](image_hw=(64, 64))
    rows = space.sample(4, np.random.default_rng(0))
    costs = DetectorCost(space, "square", num_classes=2)(rows[[0, 1, 2, 3, 0]])
    wanted = [detector_cost("square", space.to_architecture(row), (64, 64), num_classes=2)["total"] for row in rows]
    for name in ("gmacs", "params_m"):
        assert costs[name].tolist() == [total[name] for total in [*wanted, wanted[0]]]
    assert DetectorCost(space, "square", num_classes=2).surcharges is None


@pytest.mark.parametrize("name", ["centernet", "fcos", "faster-rcnn"])
def test_buckets_of_a_whole_detector_are_drawn_directly(name):
    """The last bucket of five holds about a hundred-thousandth of all backbones: rejection would find none."""
    space = SPACES["ofa-resnet"](image_hw=(384, 384))
    cost = DetectorCost(space, name, num_classes=20)
    buckets = Buckets.spanning(space, "gmacs", 5, count=cost)
    constant, per_channel = cost.surcharges["gmacs", (384, 384)]
    rows = space.sample(50, np.random.default_rng(0))
    rest = constant + sum(each * space.map_channels(rows)[reduction] for reduction, each in per_channel.items())
    np.testing.assert_array_equal(np.rint(cost(rows)["gmacs"] * 1e9), np.rint(space.cost(rows)["gmacs"] * 1e9) + rest)
    for bucket in range(5):
        drawn = space.sample_within(200, buckets.budget(bucket), np.random.default_rng(0), cost=cost, max_tries=400)
        assert (buckets.of(cost(drawn)["gmacs"]) == bucket).tolist() == [True] * 200


def test_buckets_of_a_whole_centernet_begin_and_end_with_the_known_costs():
    # DetOFA's detector at 384 and 20 classes: 10.72 and 30.33 G, by arithmetic over its layers.
    space = SPACES["ofa-resnet"](image_hw=(384, 384))
    edges = Buckets.spanning(space, "gmacs", 5, count=DetectorCost(space, "centernet", num_classes=20)).edges
    assert (round(edges[0], 2), round(edges[-1], 2)) == (10.72, 30.33)


def test_what_goes_to_trials_is_small_and_counts_alike():
    space = SPACES["bottleneck"]()
    cost = DetectorCost(space, "faster-rcnn", source="recipe x")
    rows = space.sample(64, np.random.default_rng(0))
    costs = cost(rows)
    data = pickle.dumps(cost)
    assert len(data) < len(pickle.dumps(space)) + 1000
    again = pickle.loads(data)(rows)
    assert all((again[name] == costs[name]).all() for name in costs)


class Bare(ShuffleNetSpace):
    """A space that does not say its maps."""

    def map_channels(self, population):
        return {}


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (Bare(), "fcos", "whose map_channels says the channels of their maps; space 'shufflenet' is none"),
        (ShuffleNetSpace(image_hw=(224, 250)), "fcos", "multiples of 32, got 224x250. Set space.image_hw to 224x256"),
        (ShuffleNetSpace(), "fcoss", "unknown detector 'fcoss'; did you mean 'fcos'?"),
        (ShuffleNetSpace(), "centernet", "detector 'centernet' has no slot for a head"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(space, name, message):
    with pytest.raises(NasrayError, match=message) as caught:
        DetectorCost(space, name, head=HEAD if name == "centernet" else None)
    assert "\n" not in str(caught.value)
