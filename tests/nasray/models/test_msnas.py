"""Encoders of MSNAS compute what the paper's equations say, and as many multiply-adds as the published ones."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasray.models.cost import module_macs
from nasray.models.msnas import StrideBlock, StridePyramid, padded
from tests.spaces.msnas_rows import LABELLED

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = {"r18": (180, None), "r34": (160, None), "r50": (576, 144)}
PATH, HEADS = (1, 2, 0.5, 2, 2, 0.5, 1), (4, 8, 8, 16, 16)
"""Absolute strides 4 8 4 8 16 8 8."""


def make(strides=PATH, heads=HEADS, width=8, mid=None, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StridePyramid("basic" if mid is None else "bottleneck", 4, width, strides, heads, mid)


def published(label):
    """The network of a row of the paper's tables, on the meta device."""
    strides, heads = LABELLED[label]
    width, mid = WIDTHS[label[:3]]
    with torch.device("meta"):
        return StridePyramid("basic" if mid is None else "bottleneck", 64, width, strides, heads, mid)


def images(num=2, image_hw=(64, 128), seed=0):
    return torch.randn(num, 3, *image_hw, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("label", ["r18-1", "r18-2", "r34-3", "r50-1", "r50-3"])
def test_maps_have_the_strides_of_the_heads(label):
    network = published(label)
    with torch.no_grad():
        maps = network.eval()(torch.empty(1, 3, 128, 192, device="meta"))
    assert network.strides == tuple(LABELLED[label][1])
    expected = [(1, network.out_channels, 128 // stride, 192 // stride) for stride in network.strides]
    assert [tuple(x.shape) for x in maps] == expected
    assert network.out_channels == {"r18": 180, "r34": 160, "r50": 144}[label[:3]]
    assert len({id(x) for x in maps}) == len(set(network.strides))


@pytest.mark.parametrize(
    ("label", "macs"),
    [("r18-1", 145_897_758_240), ("r18-2", 147_587_238_240), ("r34-1", 180_501_813_440), ("r50-2", 200_079_091_680)],
)
def test_multiply_adds_of_published_rows(label, macs):
    """Computed from the definition: biases count 1 an output, and the RPN has 18 outputs a location (832 x 1280)."""
    network = published(label)
    channels = network.out_channels
    with torch.device("meta"):
        rpn = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, 18, 1))
    counted = []

    def count(module, inputs, output):
        own, bias, _ = module_macs(module, inputs[0], output)
        counted.append(own + bias)

    for module in [*network.modules(), *rpn.modules()]:
        if not any(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        for x in network(torch.empty(1, 3, 832, 1280, device="meta")):
            rpn(x)
    assert sum(counted) == macs


def test_maps_are_merged_as_equations_4_to_6_say():
    """By hand: 2 <- 0, 3 <- 1, 6 <- 3, of ends of stages 0 1 2 3 4 6; outputs 4: 2, 8: 6, 16: 4."""
    network = make().eval()
    with torch.no_grad():
        x = network.stem(images())
        blocks = []
        for index, block in enumerate(network.blocks):
            x = block(x)
            if index in (2, 3, 6):
                source = {2: 0, 3: 1, 6: 3}[index]
                x = x + network.laterals[str(source)](blocks[source])
            blocks.append(x)
        expected = [network.outputs[str(scale)](blocks[index]) for scale, index in ((4, 2), (8, 6), (16, 4))]
        found = network(images())
    assert set(network.laterals) == {"0", "1", "3"}
    assert all(torch.equal(found[group], expected[which]) for group, which in enumerate((0, 1, 1, 2, 2)))
    assert found[1] is found[2]


@pytest.mark.parametrize("mid", [None, 6])
def test_a_block_doubles_keeps_or_halves(mid):
    x = torch.randn(2, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    for stride, image_hw in ((0.5, (16, 24)), (1, (8, 12)), (2, (4, 6))):
        block = StrideBlock(5, 7, stride, mid).eval()
        assert tuple(block(x).shape) == (2, 7, *image_hw)
    doubling = StrideBlock(7, 7, 0.5, mid).eval()
    y = torch.randn(2, 7, 8, 12, generator=torch.Generator().manual_seed(0))
    large = y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(doubling(y), F.relu(doubling.residual.main(large) + doubling.residual.shortcut(large)))
    assert isinstance(StrideBlock(7, 7, 1, mid).residual.shortcut, nn.Identity)


def test_images_of_any_size_are_padded():
    network = make().eval()
    odd = images(image_hw=(70, 100))
    framed = F.pad(odd, (0, 28, 0, 58))
    with torch.no_grad():
        assert all(torch.equal(one, other) for one, other in zip(network(odd), network(framed), strict=True))
    whole = images()
    assert padded(whole) is whole


@pytest.mark.slow
def test_images_of_any_size_are_padded_in_exports():
    """Of ONNX too: sides that are free, and no multiples of 64."""
    network = make().eval()
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(network, (images(1, (128, 192)),), dynamic_shapes=({2: free, 3: free},)).module()
    for image_hw in ((64, 64), (70, 100), (129, 191)):
        odd = images(1, image_hw)
        with torch.no_grad():
            pairs = zip(network(odd), program(odd), strict=True)
            assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_what_no_head_reads_runs_and_learns_nothing():
    """Blocks 5 and 6 are behind the last block that a head reads, which is 4; their lateral comes from block 3."""
    network = make((1, 2, 0.5, 2, 2, 0.5, 1), (4, 4, 16, 16, 16))
    ran = []
    network.blocks[6].register_forward_hook(lambda *_: ran.append(6))
    sum(x.square().mean() for x in network(images())).backward()
    dead = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert ran == [6]
    assert {name.split(".")[1] for name in dead if name.startswith("blocks")} == {"5", "6"}
    assert {name for name in dead if name.startswith("laterals")} == {"laterals.3.weight", "laterals.3.bias"}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (name in dead), name


def test_signals_stay_of_one_size():
    """A fresh network of 21 blocks neither dies out nor explodes."""
    strides, heads = LABELLED["r50-5"]
    network = make(strides, heads, width=16, mid=4).train()
    deviations = np.array([float(x.detach().std()) for x in network(images(4, (128, 128)))])
    assert ((deviations > 0.05) & (deviations < 50)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (0.5, 2), "heads": (4, 8, 8, 8, 8)}, "strides from 4 to 64"),
        ({"strides": (2, 2, 2, 2, 2), "heads": (8, 16, 16, 16, 16)}, "strides from 4 to 64"),
        ({"heads": (4, 8, 16, 32, 32)}, "no block of this path has stride 32"),
    ],
)
def test_what_is_no_path_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
    with pytest.raises(ValueError, match="block is basic, or bottleneck with its mid channels; got 'bottleneck'"):
        StridePyramid("bottleneck", 4, 8, PATH, HEADS)
