"""Sorted channels; what holds for every elastic supernet is in test_elastic.py."""

import numpy as np
import pytest
import torch
from torch import nn

from nasray.models.supernets import build_supernet
from nasray.models.supernets.elastic import sort_between
from nasray.spaces import OFAResNetSpace, RestrictedSpace, forbid_values

TINY = OFAResNetSpace("tiny")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def trained(space=TINY):
    """A supernet whose weights, norms and statistics differ from channel to channel, as after a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(space)
        for module in supernet.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data *= torch.rand(module.out_channels, 1, 1, 1) + 0.5
            elif isinstance(module, nn.BatchNorm2d):
                for value in (module.weight.data, module.running_var):
                    value.uniform_(0.5, 1.5)
                for value in (module.bias.data, module.running_mean):
                    value.normal_(0, 0.3)
    return supernet.eval()


def outputs(supernet, row):
    supernet.set_path(row)
    with torch.no_grad():
        return torch.cat([x.flatten() for x in supernet(IMAGES).values()])


def change(supernet, row, before):
    after = outputs(supernet, row)
    return ((after - before).abs().max() / before.abs().max()).item()


def smallest(space):
    return space.repair(np.array([[gene.values[0] for gene in space.genes]]))[0]


@pytest.mark.parametrize("space", [
    TINY,
    OFAResNetSpace("laptop"),
    pytest.param(OFAResNetSpace(), marks=pytest.mark.slow),
], ids=["tiny", "laptop", "resnet50"])  # fmt: skip
def test_the_largest_path_computes_the_same_and_the_smallest_another_thing(space):
    supernet = trained(space)
    rows = supernet.largest, smallest(space)
    before = [outputs(supernet, row) for row in rows]
    supernet.sort_channels()
    assert change(supernet, rows[0], before[0]) < 1e-5
    assert change(supernet, rows[1], before[1]) > 1e-3


def test_channels_are_in_the_order_of_the_weights_that_take_them():
    supernet = trained()
    supernet.sort_channels()
    supernet.sort_channels()  # a second time: nothing is left to do
    for stage in supernet.network.stages:
        for block in stage:
            first, second, third = block.main
            for conv in (second[0], third[0]):
                importance = conv.weight.abs().sum(dim=(0, 2, 3))
                # Those between the first two were sorted before the second's outputs moved, which changes no sum.
                assert (importance.diff() <= 1e-5).all()
            assert first[0].weight.requires_grad


@pytest.mark.parametrize("within", [
    {"width": [80, 100], "expand": [35]},
    {"width": [65, 80, 100], "expand": [25, 35]},
    {"width": [100], "expand": [35]},
])  # fmt: skip
def test_paths_that_were_trained_before_compute_the_same(within):
    kept = RestrictedSpace(TINY, forbid_values(TINY, within))
    supernet = trained()
    rows = kept.sample(6, np.random.default_rng(0))
    before = [outputs(supernet, row) for row in rows]
    weights = {name: value.clone() for name, value in supernet.state_dict().items()}
    supernet.sort_channels(kept)
    for row, value in zip(rows, before, strict=True):
        assert change(supernet, row, value) < 1e-5
    assert any(not torch.equal(value, weights[name]) for name, value in supernet.state_dict().items())
    if within["width"] == [80, 100]:
        fully = trained()
        fully.sort_channels()  # as if the largest path alone had been trained
        assert max(change(fully, row, value) for row, value in zip(rows, before, strict=True)) > 1e-3


def test_leading_channels_stay_leading_ones():
    conv, norm, following = nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1)
    following.weight.data = torch.tensor([1.0, 2.0, 4.0, 3.0]).reshape(1, 4, 1, 1)
    conv.bias.data = torch.arange(4.0)
    sort_between(conv, norm, following, (2,))
    assert conv.bias.tolist() == [1, 0, 2, 3]
    assert following.weight.flatten().tolist() == [2, 1, 4, 3]
