"""Networks of ShuffleNetV2 blocks are what their layer tables say, and what DetNAS builds."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.models import build, shufflenet
from nasray.models.classifier import Classifier
from nasray.models.shufflenet import KERNELS, SHUFFLES, ShuffleBlock, ShuffleNet, divide
from nasray.spaces import Architecture, NasrayError, ShuffleNetSpace
from nasray.spaces import shufflenet as space_module

pytestmark = pytest.mark.usefixtures("one_thread")

NAMED = [name for name, architecture in ARCHITECTURES.items() if architecture.family == "shufflenet"]
NARROW = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(2, 2, 2, 2))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def counted(network, image_hw):
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(2, 3, *image_hw, device="meta"))
    return counter.get_total_flops() / 4, sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("image_hw", [(224, 224), (97, 131)])
def test_named_architectures_count_as_pytorch_counts(name, image_hw):
    with torch.device("meta"):
        network = build(ARCHITECTURES[name])
    table = layer_table(ARCHITECTURES[name], image_hw)
    assert counted(network, image_hw) == (table.macs.sum(), table.params.sum())


@pytest.mark.parametrize("image_hw", [pytest.param((224, 224), marks=pytest.mark.slow), (97, 131)])
def test_space_counts_as_pytorch_counts(image_hw):
    space = ShuffleNetSpace("small", image_hw=image_hw)
    for row in space.sample(4, np.random.default_rng(0)):
        with torch.device("meta"):
            backbone = build(space.to_architecture(row))
            classifier = Classifier(build(space.to_architecture(row)))
        for network, costs in ((backbone, space.cost(row[None])), (classifier, space.classifier_cost(row[None]))):
            macs, params = counted(network, image_hw)
            assert (costs["gmacs"][0] * 1e9, costs["params_m"][0] * 1e6) == pytest.approx((macs, params), abs=0.01)
    # a convolution to 1024 channels with bias and norm, and a linear layer to 1000 classes with bias
    assert params - table_params(backbone) == 640 * 1024 + 3 * 1024 + 1024 * 1000 + 1000


def table_params(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_space_and_the_network_have_the_same_kinds():
    assert tuple(KERNELS) == space_module.CHOICES
    assert tuple(KERNELS.values()) == tuple(space_module.KERNELS)
    assert SHUFFLES == space_module.SHUFFLES


@pytest.mark.parametrize("image_hw", [(64, 64), (75, 41)])
def test_forward_and_feature_info(image_hw):
    network = build(NARROW.to_architecture(np.arange(8) % 4)).eval()
    outputs, modules = {}, dict(network.named_modules())
    for info in network.feature_info:
        modules[info["module"]].register_forward_hook(lambda m, i, o, key=info["module"]: outputs.update({key: o}))
    with torch.no_grad():
        maps = network(torch.zeros(2, 3, *image_hw))
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    assert network.out_channels == [16, 24, 32, 48]
    for x, info in zip(maps.values(), network.feature_info, strict=True):
        assert tuple(x.shape) == (2, info["num_chs"], *(math.ceil(size / info["reduction"]) for size in image_hw))
        assert outputs[info["module"]] is x


def test_divisions():
    x = torch.arange(8.0).view(1, 8, 1, 1).expand(2, 8, 3, 5)
    first, second = divide(x, "interleave")  # DetNAS's channel_shuffle1
    assert first[1, :, 2, 4].tolist() == [0, 4, 1, 5]
    assert second[1, :, 2, 4].tolist() == [2, 6, 3, 7]
    first, second = divide(x, "even-odd")  # DetNAS's channel_shuffle2
    assert first[1, :, 2, 4].tolist() == [0, 2, 4, 6]
    assert second[1, :, 2, 4].tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_channels_last_stays_so_in_every_block(shuffle):
    x = torch.randn(2, 8, 3, 5, generator=generator())
    last = x.contiguous(memory_format=torch.channels_last)
    for one, other in zip(divide(last, shuffle), divide(x, shuffle), strict=True):
        assert torch.equal(one, other)
        assert one.contiguous(memory_format=torch.channels_last).stride() == one.stride() or shuffle == "even-odd"
    for kind in KERNELS:
        for block in (ShuffleBlock(kind, 8, 16, 2, shuffle), ShuffleBlock(kind, 8, 8, 1, shuffle)):
            block.eval().to(memory_format=torch.channels_last)
            with torch.no_grad():
                assert block(last).is_contiguous(memory_format=torch.channels_last)
                torch.testing.assert_close(block(last), block(x))


def test_the_two_shuffles_are_two_functions():
    spec = ARCHITECTURES["detnas-coco-fpn"].spec
    one, other = (build(Architecture.create("shufflenet", spec | {"shuffle": shuffle})).eval() for shuffle in SHUFFLES)
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 3, 64, 64, generator=generator())
    with torch.no_grad():
        difference = (one(images)["c5"] - other(images)["c5"]).abs().max()
        assert difference > 0.1 * one(images)["c5"].std()


def modules_of(block):
    return [
        (type(layer).__name__, *((layer.kernel_size[0], layer.stride[0], layer.in_channels, layer.out_channels,
                                  layer.groups) if isinstance(layer, nn.Conv2d) else ()))
        for layer in block
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["7x7", "xception"])
def test_layers_of_a_block_with_stride(kind):
    block = ShuffleBlock(kind, 8, 20, 2, "interleave")
    kernel = 7 if kind == "7x7" else 3
    norm, relu = ("BatchNorm2d",), ("ReLU",)

    def pointwise(width_in, width_out):
        return [("Conv2d", 1, 1, width_in, width_out, 1), norm, relu]

    def depthwise(width, size, stride):
        return [("Conv2d", size, stride, width, width, width), norm]

    # the projection has the block's kernel and keeps the input's channels; the main branch makes up the rest
    assert modules_of(block.projection) == depthwise(8, kernel, 2) + pointwise(8, 8)
    if kind == "xception":  # the first of its convolutions has the stride
        main = [*depthwise(8, 3, 2), *pointwise(8, 10), *depthwise(10, 3, 1), *pointwise(10, 10)]
        main += [*depthwise(10, 3, 1), *pointwise(10, 12)]
    else:
        main = [*pointwise(8, 10), *depthwise(10, 7, 2), *pointwise(10, 12)]
    assert modules_of(block.main) == main


def test_half_of_the_channels_pass_a_block_of_stride_1():
    block = ShuffleBlock("5x5", 16, 16, 1, "interleave")
    x = torch.randn(2, 16, 6, 6, generator=generator())
    assert block.projection is None
    passed, convolved = divide(x, "interleave")
    assert torch.equal(block(x)[:, :8], passed)
    assert torch.equal(block(x)[:, 8:], block.main(convolved))


def test_initial_weights_and_momentum():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ShuffleNet(**ARCHITECTURES["detnas-coco-fpn"].spec, momentum=0.01)
    assert network.stem[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (network.stem[0].bias == 0).all()
    depthwise, pointwise = network.stages[3][3].main[3], network.stages[3][3].main[0]
    assert depthwise.groups == 320
    assert depthwise.weight.std().item() == pytest.approx(1.0, rel=0.05)
    assert pointwise.weight.std().item() == pytest.approx(1 / 320, rel=0.05)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        assert (norm.eps, norm.momentum) == (1e-5, 0.01)
        assert (norm.weight == 1).all()
        assert (norm.bias == 1e-4).all()


def test_classifier():
    network = Classifier(build(NARROW.to_architecture(np.zeros(8, dtype=np.int64))), 10, width=32)
    names = [type(layer).__name__ for layer in network.head.modules()]
    assert names[1:] == ["Sequential", "Conv2d", "BatchNorm2d", "ReLU", "Dropout2d", "Linear"]
    assert network.head.dropout.p == 0.2
    images = torch.randn(2, 3, 64, 96, generator=generator())
    assert network(images).shape == (2, 10)
    with torch.no_grad():
        c5 = network.eval().backbone(network.normalize(images))["c5"]
        expected = network.head.linear(network.head.conv(c5).mean(dim=(2, 3)))
        scale = expected.abs().max().item()  # they are small; sums in another order differ by a share of them
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_torch_export(shuffle):
    space = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 2, 1, 1), shuffle=shuffle)
    network = build(space.to_architecture(np.array([0, 3, 1, 2, 3]))).eval()
    images = torch.randn(1, 3, 75, 41, generator=generator())
    exported = torch.export.export(network, (images,)).module()
    with torch.no_grad():
        for ours, theirs in zip(network(images).values(), exported(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_file_needs_only_torch():
    code = (
        "import runpy, sys\n"
        f"names = runpy.run_path({shufflenet.__file__!r})\n"
        "names['ShuffleNet']({'width': 4}, [{'width': 8, 'blocks': ['3x3']}], 'even-odd', out_levels=(2,))\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('nasray', 'torchvision', 'timm')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shuffle": "both"}, "spec.shuffle is one of interleave, even-odd; got 'both'"),
        ({"stem": {"width": 0}}, "spec.stem.width is a whole number"),
        ({"stem": {"width": 16, "kernel": 3}}, "unknown key 'kernel'"),
        ({"depth": 3}, "unknown key 'depth'"),
        ({"stages": 4}, "list of the four stages"),
        ({"stages": [{"width": 32, "blocks": ["9x9"]}]}, r"stages\[0\].blocks is a list of 3x3.*got '9x9'"),
        ({"stages": [{"width": 32, "blocks": []}] * 4}, "from 1 to 1,024"),
        ({"stages": [{"width": 32, "blocks": ["3x3"]}] * 4}, "each more than the one before"),
    ],
)
def test_a_bad_spec_is_named(change, message):
    spec = NARROW.to_architecture(np.zeros(8, dtype=np.int64)).spec
    with pytest.raises(NasrayError, match=message):
        build(Architecture.create("shufflenet", spec | change))
    with pytest.raises(NasrayError, match=message):
        layer_table(Architecture.create("shufflenet", spec | change), (64, 64))


def test_bad_arguments():
    with pytest.raises(ValueError, match="a block is one of"):
        ShuffleBlock("9x9", 8, 8, 1, "interleave")
    with pytest.raises(ValueError, match="shuffle is one of"):
        ShuffleBlock("3x3", 8, 8, 1, "random")
    with pytest.raises(ValueError, match="got 8 after 8 at stride 2"):
        ShuffleBlock("3x3", 8, 8, 2, "interleave")
    with pytest.raises(ValueError, match=r"got \[6\]"):
        ShuffleNet({"width": 4}, [{"width": 8, "blocks": ["3x3"]}], "even-odd", out_levels=(2, 6))
