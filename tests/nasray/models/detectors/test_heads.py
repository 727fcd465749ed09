import math

import pytest
import torch
from torch import nn

from nasray.models.detectors.heads import Scale, Tower, each_level, flatten_level, predictor, prior_bias, take

pytestmark = pytest.mark.usefixtures("one_thread")


def levels(channels, *sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, *hw, generator=generator) for hw in sizes]


def test_a_tower_is_convolution_norm_relu():
    tower = Tower(6, 12, 2, "group", 2)
    maps = levels(6, (4, 5), (2, 3))
    first, second = tower.convs
    expected = [tower.norms[1][0](second(tower.norms[0][0](first(x)).relu())).relu() for x in maps]
    for ours, theirs in zip(each_level(tower, maps), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert tower.out_channels == 12


def test_batch_norms_are_each_levels_own_and_take_the_bias():
    tower = Tower(6, 12, 2, "batch", 3).train()
    assert sum(isinstance(module, nn.BatchNorm2d) for module in tower.modules()) == 6
    assert all(conv.bias is None for conv in tower.convs)
    each_level(tower, levels(6, (4, 5), (2, 3), (2, 2)))
    means = [norm.running_mean for norm in tower.norms[0]]
    assert not torch.equal(means[0], means[1])
    assert all(norm.num_batches_tracked == 1 for norm in tower.norms[1])


def test_a_tower_without_convolutions_gives_the_levels():
    maps = levels(6, (4, 5))
    tower = Tower(6, 12, 0, "none", 1)
    assert torch.equal(tower(maps[0]), maps[0])
    assert tower.out_channels == 6


def test_each_level_computes_the_coarsest_first_and_keeps_the_order():
    seen = []
    result = each_level(lambda x, level: seen.append(level) or (x.shape[-1], level), levels(1, (4, 5), (2, 3)))
    assert seen == [1, 0]
    assert result == [(5, 0), (3, 1)]


def test_a_fresh_classifier_says_one_per_cent():
    conv = predictor(256, 10, prior_bias())
    torch.testing.assert_close(conv.bias.sigmoid(), torch.full((10,), 0.01))
    assert conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert predictor(64, 100).weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_scale():
    scale = Scale()
    assert scale(torch.tensor(3.0)).item() == 3
    nn.init.constant_(scale.factor, 0.5)
    assert scale(torch.tensor(3.0)).item() == 1.5


def test_flattened_anchors_follow_each_other_location_by_location():
    level = torch.arange(2 * 6 * 2 * 2.0).view(2, 6, 2, 2)
    flat = flatten_level(level, 3)
    assert flat.shape == (2, 8, 3)
    assert torch.equal(flat[1, 5], level[1, 3:6, 1, 0])  # location 2 (second row), second of two anchors


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_take_is_what_flattening_gives(layout):
    maps = [level.to(memory_format=layout).bfloat16() for level in levels(6, (3, 4), (1, 2))]
    generator = torch.Generator().manual_seed(1)
    where = [
        (torch.randint(2, (num,), generator=generator), torch.randint(most, (num,), generator=generator))
        for num, most in ((7, 24), (0, 4))
    ]
    taken = take(maps, where, 3)
    assert taken.dtype == torch.float32
    assert torch.equal(taken, flatten_level(maps[0], 3)[where[0]].float())
    assert math.prod(take(maps, [where[1], where[1]], 3).shape) == 0
