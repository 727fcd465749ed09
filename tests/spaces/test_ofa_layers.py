"""Channels of the released ResNet-50 of once-for-all (Cai et al., ICLR 2020)."""

import numpy as np
import pytest

from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.ofa_layers import SIZES, Size, channels_of, check_size, divisible

MIDS = {
    168: (32, 40, 56), 208: (40, 56, 72), 256: (48, 64, 88), 336: (64, 88, 120), 408: (80, 104, 144),
    512: (104, 128, 176), 664: (136, 168, 232), 816: (160, 208, 288), 1024: (208, 256, 360), 1328: (264, 336, 464),
    1640: (328, 408, 576), 2048: (408, 512, 720),
}  # fmt: skip


def test_channels_of_the_released_network():
    channels = channels_of(SIZES["resnet50"])
    assert (channels.stem_mid, channels.stem) == ((24, 24, 32), (40, 48, 64))
    found = {
        out: mids
        for outs, by_width in zip(channels.stages, channels.mids, strict=True)
        for out, mids in zip(outs, by_width, strict=True)
    }
    assert found == MIDS


def test_channels_are_multiples_and_not_much_fewer():
    for divisor in (2, 8):
        for value in np.arange(1, 300) / 2:
            channels = divisible(value, divisor)
            assert channels % divisor == 0
            assert channels >= 0.9 * value
            assert channels <= max(value + divisor, divisor)


def test_costs_are_those_of_the_layers():
    rng = np.random.default_rng(0)
    for space in (
        OFAResNetSpace(),
        OFAResNetSpace("laptop", image_hw=(240, 320)),
        OFAResNetSpace("tiny", coupled=True),
    ):
        rows = space.sample(200, rng)
        assert space.cost(rows).keys() == space.layers(rows).cost().keys()
        for name, values in space.layers(rows).cost().items():
            np.testing.assert_array_equal(space.cost(rows)[name], values)


def test_sizes_whose_choices_coincide_are_refused():
    for size in SIZES.values():
        check_size(size)
    with pytest.raises(NasrayError, match="the middle of blocks of C5, 16 wide have the same channels, 4, 4, 6"):
        check_size(Size(16, (64, 80, 96, 24), (1, 1, 1, 1), 2))
