"""Supernets: a path is the standalone network with the same weights, and what is off it stays as it is."""

import copy
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from nasray.models import build
from nasray.models.classifier import Classifier
from nasray.models.detectors import DETECTORS, build_detector
from nasray.models.supernets import SUPERNETS, UniformPaths, build_supernet
from nasray.recipe_options import OptimizerOptions
from nasray.spaces import BasicSpace, NasrayError, ShuffleNetSpace
from nasray.spaces.shufflenet import SIZES
from nasray.training.optimizers import make_optimizer
from tests.nasray.models.detectors.common import OPTIONS, shapes_batch, total_loss

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = list(DETECTORS)
NARROW = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 2, 2, 1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seeded(make, seed=0):
    """What `make` builds, with weights that depend on the seed alone, and norms that do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make()
    draws = generator(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1, generator=draws)
            module.running_var.uniform_(0.5, 1.5, generator=draws)
    return network


def num_params(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("size", "whole", "backbone"),
    # the released code's classes, built and counted
    [("small", 8_491_688, 6_808_256), ("large", 30_653_120, 28_642_008)],
)
def test_parameters_of_the_released_supernets(size, whole, backbone):
    with torch.device("meta"):
        supernet = build_supernet(ShuffleNetSpace(size))
        classifier = Classifier(supernet)
    assert (num_params(classifier), num_params(supernet)) == (whole, backbone)


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.slow)])
def test_a_path_is_the_standalone_network(size):
    space = ShuffleNetSpace(size)
    supernet = seeded(lambda: build_supernet(space))
    images = torch.randn(1, 3, 64, 64, generator=generator())
    for index, row in enumerate(space.sample(8, np.random.default_rng(0))):
        supernet.train(index % 2 == 1)
        supernet.set_path(row)
        network = supernet.extract(row)
        # not through `extract`: the network that the architecture's builder makes takes the weights too
        with torch.device("meta"):
            built = build(space.to_architecture(row)).train(supernet.training)
        built.load_state_dict(network.state_dict(), assign=True)
        with torch.no_grad():
            maps = supernet(images)
            for other in (network, built):
                for ours, theirs in zip(maps.values(), other(images).values(), strict=True):
                    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
        assert [x.shape[1] for x in maps.values()] == supernet.out_channels == list(SIZES[size].widths)
    assert maps["c5"].std() > 1e-3


def test_extracted_networks_share_nothing():
    supernet = seeded(lambda: build_supernet(NARROW, momentum=0.01)).double()
    row = np.array([0, 1, 2, 3, 0, 1])
    before = copy.deepcopy(supernet.state_dict())
    network = supernet.extract(row)
    assert all(module.momentum == 0.01 for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert network.training
    network(torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=generator()))["c5"].sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert all(parameter.grad is None for parameter in supernet.parameters())
    assert not supernet.eval().extract(row).training


def test_feature_info_names_the_modules():
    supernet = build_supernet(NARROW, out_levels=(3, 5)).eval()
    supernet.set_path([3] * 6)
    outputs, modules = {}, dict(supernet.named_modules())
    for info in supernet.feature_info:
        modules[info["module"]].register_forward_hook(lambda m, i, o, key=info["reduction"]: outputs.update({key: o}))
    maps = supernet(torch.zeros(1, 3, 64, 64))
    assert list(maps) == ["c3", "c5"]
    assert [info["num_chs"] for info in supernet.feature_info] == supernet.out_channels == [24, 48]
    assert all(outputs[reduction] is x for reduction, x in zip((8, 32), maps.values(), strict=True))


OPTIMIZERS = {  # those of trainings, which are fused, and one that is not
    "sgd": lambda network: make_optimizer(network, OptimizerOptions(learning_rate=0.05, weight_decay=0.1)),
    "adamw": lambda network: make_optimizer(
        network, OptimizerOptions(name="adamw", learning_rate=1e-3, weight_decay=0.1)
    ),
    "nesterov": lambda network: torch.optim.SGD(
        network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parameters_off_the_path_stay_the_same_to_the_bit(optimizer):
    network = seeded(lambda: Classifier(build_supernet(NARROW), 5, width=32, dropout=0.0)).train()
    supernet, sampler = network.backbone, UniformPaths(NARROW, seed=0)
    optimizer = OPTIMIZERS[optimizer](network)
    images, labels = torch.randn(4, 3, 64, 64, generator=generator()), torch.arange(4)
    used = set()  # so that many of those off the path have a momentum
    for iteration in range(10):
        path = sampler.draw(iteration)
        supernet.set_path(path)
        off = [
            (value, value.clone())
            for place, choice in zip(supernet.places().values(), path, strict=True)
            for index, block in enumerate(place)
            if index != choice
            for value in block.state_dict().values()  # parameters, and statistics of norms
        ]
        weights = [(value, value.detach().clone()) for value in network.parameters() if value.ndim > 1]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        assert all(torch.equal(value, before) for value, before in off)
        on = {id(parameter) for parameter, _ in supernet.path_parameters(path)}
        on |= {id(parameter) for parameter in network.head.parameters()}
        assert {id(parameter) for parameter in network.parameters() if parameter.grad is not None} == on
        assert all(torch.equal(value, before) == (id(value) not in on) for value, before in weights)
        used |= on
    assert len(used) > 1.5 * len(on)


def test_paths_between_two_steps_add_up():
    supernet = seeded(lambda: build_supernet(NARROW)).train()
    paths = [[0] * 6, [3] * 6]
    for path in paths:
        supernet.set_path(path)
        supernet(torch.randn(2, 3, 64, 64, generator=generator()))["c5"].sum().backward()
    on = {id(parameter) for path in paths for parameter, _ in supernet.path_parameters(path)}
    assert {id(parameter) for parameter in supernet.parameters() if parameter.grad is not None} == on


@pytest.mark.parametrize("name", NAMES)
def test_a_supernet_is_a_backbone_of_detectors(name):
    supernet, path = seeded(lambda: build_supernet(NARROW)), [0, 1, 2, 3, 0, 1]
    options = OPTIONS.get(name, {"channels": 32})
    detector = build_detector(name, supernet, 3, **options)
    images, targets = shapes_batch(2, (64, 64))
    supernet.set_path(path)
    total_loss(detector, images, targets).backward()
    on = {id(parameter) for parameter, _ in supernet.path_parameters(path)}
    assert {id(parameter) for parameter in supernet.parameters() if parameter.grad is not None} == on
    twin = build_detector(name, supernet.extract(path), 3, **options).eval()
    own = {key: value for key, value in detector.state_dict().items() if not key.startswith("backbone.")}
    assert all(key.startswith("backbone.") for key in twin.load_state_dict(own, strict=False).missing_keys)
    with torch.no_grad():
        for ours, theirs in zip(detector.eval()(images), twin(images), strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)


def test_mistakes():
    supernet = build_supernet(NARROW)
    with pytest.raises(RuntimeError, match="no path is set"):
        supernet(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"6 genes, got shape \(3,\)"):
        supernet.set_path([0, 1, 2])
    with pytest.raises(ValueError, match=r"c5.0=4 not allowed"):
        supernet.extract([0, 0, 0, 0, 0, 4])
    assert supernet.path is None
    with pytest.raises(NasrayError, match="no supernet of space 'basic'; there are those of shufflenet"):
        build_supernet(BasicSpace())
    assert "shufflenet" in SUPERNETS


def test_importing_supernets_leaves_torch_alone():
    code = "import sys, nasray.models.supernets\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_changing_paths_is_cheap():
    supernet = build_supernet(ShuffleNetSpace("large"))
    paths = supernet.space.sample(20, np.random.default_rng(0))
    start = time.perf_counter()
    for path in paths:
        supernet.set_path(path)
    assert (time.perf_counter() - start) / len(paths) < 0.02  # about 0.0002 s
