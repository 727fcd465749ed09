import copy

import numpy as np
import pytest
import torch
from torch import nn

from nasray.models.norms import freeze, freeze_norms
from nasray.models.supernets import build_supernet
from nasray.models.supernets.elastic import ElasticBatchNorm2d, elastic
from nasray.models.supernets.recalibration import kept_statistics, recalibrate
from nasray.models.supernets.testing import check_supernet
from nasray.spaces import OFAResNetSpace, RestrictedSpace
from nasray.spaces.restricted import forbid_values

TINY = OFAResNetSpace("tiny")
PATHS = TINY.sample(20, np.random.default_rng(0))


def test_the_supernet_keeps_its_contract():
    check_supernet(TINY)


@pytest.mark.slow
def test_the_released_size_keeps_its_contract():
    check_supernet(OFAResNetSpace(), num_paths=2)


def test_the_supernet_has_the_parameters_of_the_largest_network():
    with torch.device("meta"):
        supernet = build_supernet(OFAResNetSpace())
    backbone = sum(parameter.numel() for parameter in supernet.parameters())
    assert backbone + 2049 * 1000 == 48_105_992  # once-for-all's, with its fully connected layer


@pytest.mark.parametrize("training", [False, True])
def test_twenty_paths_compute_what_their_networks_compute(training):
    torch.manual_seed(0)
    supernet = build_supernet(TINY).train(training)
    images = torch.randn(2, 3, 64, 64)
    for row in PATHS:
        network = supernet.extract(row)
        supernet.set_path(row)
        with torch.no_grad():
            ours, theirs = supernet(images), network(images)
        for name, x in theirs.items():
            assert torch.equal(ours[name][:, : x.shape[1]], x)


def test_statistics_of_a_path_leave_the_others_alone():
    torch.manual_seed(0)
    supernet = build_supernet(TINY)
    supernet.set_path(PATHS[0])
    before = copy.deepcopy(supernet.state_dict())
    images = torch.randn(8, 3, 64, 64)
    with kept_statistics(supernet):
        recalibrate(supernet, images.split(4), 8)
        network = supernet.extract(PATHS[0])
    alone = build_supernet(TINY)
    alone.load_state_dict(before)
    twin = alone.extract(PATHS[0])
    recalibrate(twin, images.split(4), 8)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_norms_that_are_frozen_stay_elastic():
    supernet = freeze(build_supernet(TINY)).train()
    before = copy.deepcopy(supernet.state_dict())
    supernet.set_path(PATHS[1])
    supernet(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert not any(norm.training for norm in supernet.modules() if isinstance(norm, nn.BatchNorm2d))
    assert freeze_norms(supernet).state_dict().keys() == before.keys()


def test_the_widest_channels_are_those_of_the_norm_that_pytorch_has():
    norm = nn.BatchNorm2d(6)
    ours = elastic(copy.deepcopy(norm))
    assert isinstance(ours, ElasticBatchNorm2d)
    x = torch.randn(3, 6, 4, 4)
    assert torch.equal(norm(x), ours(x))
    assert torch.equal(norm.running_var, ours.running_var)
    ours(x[:, :2])
    assert torch.equal(norm.running_var[2:], ours.running_var[2:])
    assert not torch.equal(norm.running_var[:2], ours.running_var[:2])


def test_convolutions_with_groups_are_not_elastic():
    with pytest.raises(ValueError, match="depthwise"):
        elastic(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))


def test_paths_of_a_restricted_space_are_paths_of_the_supernet():
    space = RestrictedSpace(TINY, forbid_values(TINY, {"depth": [2], "width": [100], "expand": [35]}))
    supernet = build_supernet(TINY)
    (row,) = space.sample(1, np.random.default_rng(0))
    supernet.set_path(row)
    assert sum(value.numel() for value in supernet.path_state(row).values()) == sum(
        value.numel() for value in supernet.network.state_dict().values()
    )
