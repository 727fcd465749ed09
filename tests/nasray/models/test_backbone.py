"""Networks are what their layer tables say, at any image size."""

import math
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import ARCHITECTURES, FAMILIES, layer_table
from nasray.models import build
from nasray.models.backbone import Backbone, Gate, Residual, gate_width
from nasray.spaces import SPACES, Architecture, NasrayError
from nasray.spaces.staged import StagedSpace
from nasray.spaces.staged_layers import gate_width as gate_widths_of_table

STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]
SMALL = {
    "bottleneck": {"max_width": 64, "max_mid": 32, "max_stem_width": 16},
    "basic": {"max_width": 64, "max_stem_width": 16},
    "inverted": {"max_width": 64, "max_stem_width": 16},
    "inverted-se": {"max_width": 64, "max_stem_width": 16},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def random_architectures(family, num, *, seed=0, **options):
    space = SPACES[family](**options)
    return [space.to_architecture(row) for row in space.sample(num, np.random.default_rng(seed))]


def on_meta(architecture, image_hw):
    """The multiply-adds, parameters and output shapes of the built network, counted by PyTorch."""
    with torch.device("meta"):
        network = build(architecture)
        images = torch.empty(1, 3, *image_hw)
    with FlopCounterMode(display=False) as counter:
        maps = network(images)
    num_params = sum(parameter.numel() for parameter in network.parameters())
    return counter.get_total_flops() / 2, num_params, [tuple(x.shape) for x in maps.values()]


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("image_hw", [(224, 224), (97, 131)])
def test_layer_table_counts_as_pytorch_counts(family, image_hw):
    for architecture in random_architectures(family, 2, seed=image_hw[0], max_depth=3):
        table = layer_table(architecture, image_hw)
        macs, num_params, shapes = on_meta(architecture, image_hw)
        assert macs == table.macs.sum()
        assert num_params == table.params.sum()
        assert shapes[-1][2:] == tuple(table.out_hw[np.flatnonzero(table.role == "main")[-1]])


@pytest.mark.parametrize("name", ["maedet-s", "maedet-single-scale", "resnet18", "resnet50", "mobilenet-v2"])
def test_named_architectures_count_as_pytorch_counts(name):
    table = layer_table(ARCHITECTURES[name], (800, 1333))
    macs, num_params, shapes = on_meta(ARCHITECTURES[name], (800, 1333))
    assert (macs, num_params) == (table.macs.sum(), table.params.sum())
    assert [shape[2:] for shape in shapes] == [(200, 334), (100, 167), (50, 84), (25, 42)]


@pytest.mark.parametrize("family", STAGED)
def test_space_and_layer_table_agree(family):
    space = SPACES[family](image_hw=(97, 131))
    rows = space.sample(16, np.random.default_rng(1))
    costs = space.cost(rows)
    for index, row in enumerate(rows):
        cost = layer_table(space.to_architecture(row), space.image_hw).cost()
        assert all(cost[name][0] == costs[name][index] for name in costs)


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("image_hw", [(64, 64), (75, 41)])
def test_forward_and_feature_info(family, image_hw):
    (architecture,) = random_architectures(family, 1, **SMALL[family], max_depth=2)
    network = build(architecture).eval()
    with torch.no_grad():
        maps = network(torch.zeros(2, 3, *image_hw))
    assert isinstance(maps, OrderedDict)
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    for x, info, channels in zip(maps.values(), network.feature_info, network.out_channels, strict=True):
        reduced = tuple(math.ceil(size / info["reduction"]) for size in image_hw)
        assert tuple(x.shape) == (2, channels, *reduced)
        assert channels == info["num_chs"]
    # `module` names the module whose output the map is
    outputs = {}
    modules = dict(network.named_modules())
    for info in network.feature_info:
        modules[info["module"]].register_forward_hook(lambda m, i, o, key=info["module"]: outputs.update({key: o}))
    maps = network(torch.zeros(1, 3, *image_hw))
    for x, info in zip(maps.values(), network.feature_info, strict=True):
        assert outputs[info["module"]] is x


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet-v2"])
def test_same_function_as_torchvision(name):
    factory = {"mobilenet-v2": "mobilenet_v2"}.get(name, name)
    theirs = getattr(torchvision.models, factory)(weights=None).eval()
    features = theirs.features[:-1] if name == "mobilenet-v2" else nn.Sequential(*list(theirs.children())[:-2])
    ours = build(ARCHITECTURES[name]).eval()
    generator = torch.Generator().manual_seed(0)
    state = features.state_dict()
    for key, value in state.items():  # norms that do something
        if key.endswith(("running_mean", "bias")):
            value.normal_(0.0, 0.1, generator=generator)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
    assert [v.shape for v in state.values()] == [v.shape for v in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    images = torch.randn(1, 3, 75, 64, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(ours(images)["c5"], features(images), rtol=1e-4, atol=1e-4)


def test_pyramid_takes_the_maps():
    (architecture,) = random_architectures("bottleneck", 1, **SMALL["bottleneck"], max_depth=2)
    network = build(architecture)
    pyramid = torchvision.ops.FeaturePyramidNetwork(network.out_channels, 16)
    maps = pyramid(network(torch.zeros(1, 3, 75, 41)))
    assert [tuple(x.shape[1:]) for x in maps.values()] == [(16, 19, 11), (16, 10, 6), (16, 5, 3), (16, 3, 2)]


@pytest.mark.parametrize("family", ["bottleneck", "inverted-se"])
def test_torch_export(family):
    (architecture,) = random_architectures(family, 1, **SMALL[family], max_depth=2, seed=3)
    network = build(architecture).eval()
    images = torch.randn(1, 3, 75, 41, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(network, (images,)).module()
    with torch.no_grad():
        for ours, theirs in zip(network(images).values(), exported(images).values(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_backbone_file_needs_only_torch():
    import nasray.models.backbone as module

    code = (
        "import runpy, sys\n"
        f"names = runpy.run_path({module.__file__!r})\n"
        "stages = [{'kernel': 3, 'width': 8, 'depth': 1, 'stride': 2, 'bottleneck': 8}] * 4\n"
        "names['Backbone']('bottleneck', {'kernel': 3, 'width': 8}, stages)\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('nasray', 'torchvision', 'timm')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_importing_models_leaves_torch_alone():
    code = "import sys, nasray.models, nasray.architectures\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_level_c1_and_zero_init():
    stage = {"kernel": 3, "width": 8, "depth": 2, "stride": 2}
    network = Backbone("basic", {"kernel": 3, "width": 8}, [stage] * 4, out_levels=(1, 5), zero_init_residual=True)
    assert list(network(torch.zeros(2, 3, 64, 64))) == ["c1", "c5"]
    assert network.feature_info[0] == {"num_chs": 8, "reduction": 2, "module": "stem"}
    blocks = [module for module in network.modules() if isinstance(module, Residual)]
    assert len(blocks) == 8
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)).relu()
    torch.testing.assert_close(blocks[1](x), x)  # a block with an identity shortcut starts as the identity


def test_initial_weights_keep_the_fan_out():
    network = build(ARCHITECTURES["mobilenet-v2"])
    conv = network.stages[6][0].main[3]  # depthwise: every filter reaches nine outputs
    assert conv.groups == conv.out_channels == 960
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 9), rel=0.05)
    assert all((m.weight == 1).all() for m in network.modules() if isinstance(m, nn.BatchNorm2d))


def test_gate_width_is_that_of_the_table():
    widths = np.arange(8, 4000, 8)
    assert [gate_width(int(width)) for width in widths] == gate_widths_of_table(widths.astype(float)).tolist()
    gate = Gate(32)
    x = torch.rand(1, 32, 3, 3)
    assert ((gate(x) >= 0) & (gate(x) <= x)).all()


def test_unknown_family_gets_a_hint():
    with pytest.raises(NasrayError, match=r"'botleneck'.*did you mean 'bottleneck'\?"):
        build(Architecture.create("botleneck", {}))
    assert set(SPACES) <= set(FAMILIES)


def test_a_name_is_built_too():
    assert type(build("resnet18")) is Backbone
    with pytest.raises(NasrayError, match=r"unknown architecture 'resnet19'; did you mean 'resnet18'\?"):
        build("resnet19")


def test_bad_arguments():
    stages = [{"kernel": 3, "width": 8, "depth": 1, "stride": 2}] * 4
    with pytest.raises(ValueError, match="block is one of"):
        Backbone("botleneck", {"kernel": 3, "width": 8}, stages)
    with pytest.raises(ValueError, match="shortcut is"):
        Backbone("basic", {"kernel": 3, "width": 8}, stages, "max")
    with pytest.raises(ValueError, match=r"got \[6\]"):
        Backbone("basic", {"kernel": 3, "width": 8}, stages, out_levels=(5, 6))
