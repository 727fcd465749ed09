import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nasray.models.detectors.necks import FPN, norm_layer

pytestmark = pytest.mark.usefixtures("one_thread")
MAPS = [torch.rand(2, channels, *hw, generator=torch.Generator().manual_seed(channels))
        for channels, hw in ((8, (13, 17)), (16, (7, 9)), (24, (4, 5)))]  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "sizes"),
    [
        ("convs", [(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)]),
        ("pool", [(13, 17), (7, 9), (4, 5), (2, 3)]),
        ("none", [(13, 17), (7, 9), (4, 5)]),
    ],
)
def test_levels(extra, sizes):
    levels = FPN([8, 16, 24], 12, extra)(MAPS)
    assert [level.shape for level in levels] == [(2, 12, *hw) for hw in sizes]


def test_the_extra_level_of_a_pool_is_every_second_pixel():
    levels = FPN([8, 16, 24], 12, "pool")(MAPS)
    assert torch.equal(levels[3], levels[2][:, :, ::2, ::2])


@pytest.mark.parametrize("channels", [12, 24])
def test_the_extra_levels_come_from_p5(channels):
    """Also where P5 and C5 have a different number of channels: torchvision's block takes the one that fits."""
    neck = FPN([8, 16, 24], channels, "convs")
    levels = neck(MAPS)
    blocks = neck.pyramid.extra_blocks
    torch.testing.assert_close(levels[3], blocks.p6(levels[2]))
    torch.testing.assert_close(levels[4], blocks.p7(levels[3].relu()))


def test_norms_follow_each_convolution():
    for name, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)):
        neck = FPN([8, 16, 24], 12, "none", name)
        assert sum(isinstance(module, kind) for module in neck.modules()) == 6
    assert norm_layer("none") is None
    with pytest.raises(ValueError, match="norm is one of batch, group, none; got 'layer'"):
        FPN([8], 12, norm="layer")


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (96, 32), (64, 16), (32, 8), (2, 1)])
def test_groups(channels, groups):
    assert norm_layer("group")(channels).num_groups == groups


@given(st.integers(1, 600))
def test_any_width_has_groups_of_three_channels_or_more(channels):
    groups = norm_layer("group")(channels).num_groups
    assert channels % groups == 0
    assert groups <= 32
    assert groups == 1 or channels // groups >= 3
