"""Models of torchvision and timm as backbones."""

import copy
import importlib.util

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import named_architecture
from nasray.models import build
from nasray.models.cost import backbone_cost, detector_cost
from nasray.models.detectors import assemble_detector
from nasray.spaces import Architecture, NasrayError
from tests.nasray.models.detectors.common import EndToEnd, export, framed, overfit, run, shapes_batch
from tests.nasray.models.detectors.toys import exported

pytestmark = pytest.mark.usefixtures("one_thread")
needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
BACKBONES = ["torchvision:resnet18", pytest.param("timm:mobilenetv3_small_050", marks=needs_timm)]
STAGES = {
    "torchvision:resnet18": [64, 128, 256, 512],
    "torchvision:densenet121": [256, 512, 1024, 1024],
    "torchvision:swin_t": [96, 192, 384, 768],  # whose maps are (B, H, W, C)
    "torchvision:regnet_y_400mf": [48, 104, 208, 440],  # which cannot be made on the meta device
    "timm:convnext_atto": [40, 80, 160, 320],
    "timm:mobilenetv3_small_050": [8, 16, 24, 288],  # a map of reduction 2 before
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[needs_timm] * name.startswith("timm")) for name in STAGES])
def test_features_by_stage(name):
    with torch.device("meta"):
        network, images = build(name).eval(), torch.empty(2, 3, 64, 96)
    maps = network(images)
    assert [info["num_chs"] for info in network.feature_info] == network.out_channels == STAGES[name]
    assert [info["reduction"] for info in network.feature_info] == [4, 8, 16, 32]
    assert list(maps) == ["c2", "c3", "c4", "c5"]
    assert [tuple(x.shape) for x in maps.values()] == [
        (2, channels, 64 // reduction, 96 // reduction)
        for channels, reduction in zip(STAGES[name], (4, 8, 16, 32), strict=True)
    ]


def test_maps_are_those_of_the_model():
    network = build("torchvision:resnet18").eval()
    theirs = torchvision.models.resnet18().eval()
    theirs.load_state_dict({network.published_names[key]: value for key, value in network.state_dict().items()},
                           strict=False)  # fmt: skip
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    with torch.no_grad():
        found = network(images)
        for stage, ours in zip(
            (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4), found.values(), strict=True
        ):
            x = stage(x)
            assert torch.equal(x, ours)


@pytest.mark.parametrize("detector", ["fcos", "gfl"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_librarys_backbone_trains_and_exports(name, detector):
    images, targets = shapes_batch(2, (128, 128))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = assemble_detector(detector, named_architecture(name), 3, channels=16, num_convs=1)
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    losses = overfit(network, images, targets, steps=30)
    assert sum(losses[-3:]) < sum(losses[:3])
    after = network.backbone.state_dict()
    unchanged = [key for key, value in before.items() if value.is_floating_point() and torch.equal(value, after[key])]
    assert not unchanged, "every parameter and statistic of the backbone is used"
    image = images[:1].float()
    module = EndToEnd(network.eval())
    with torch.no_grad():
        expected = module(image)
        twin = copy.deepcopy(module)(image)  # as the moving average does
    assert all(torch.equal(one, other) for one, other in zip(expected, twin, strict=True))
    for ours, theirs in zip(expected, exported(module, image), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_onnx_finds_the_same_at_other_sizes(name, tmp_path):
    images, targets = shapes_batch(2, (128, 128))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = assemble_detector("fcos", named_architecture(name), 3, channels=16, num_convs=1)
    overfit(network, images, targets, steps=60)
    module = EndToEnd(network.eval())
    session = export(module, tmp_path / "detector.onnx")
    for image_hw in ((128, 128), (97, 150)):
        image = framed(images[:1], image_hw).float()
        with torch.no_grad():
            boxes, scores, _ = module(image)
        theirs = run(session, image)
        torch.testing.assert_close(theirs[1], scores, rtol=0, atol=1e-4)
        sure = scores > 0.1
        assert sure.any()
        torch.testing.assert_close(
            theirs[0][sure].sort(dim=0).values, boxes[sure].sort(dim=0).values, rtol=0, atol=1e-2
        )


@pytest.mark.parametrize("is_training", [True, False])
def test_a_copy_has_the_mode_of_every_part(is_training):
    network = build("torchvision:resnet18").train(is_training)
    network.get_submodule("body.layer1").eval()
    twin = copy.deepcopy(network)
    assert {name: part.training for name, part in network.named_modules()} == {
        name: part.training for name, part in twin.named_modules()
    }
    assert list(twin.state_dict()) == list(network.state_dict())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(network(images).values(), twin(images).values(), strict=True):
        assert torch.equal(one, other)


def test_a_seed_draws_the_same_weights_whatever_was_built_before():
    states = []
    for _ in range(2):  # the first time the model is looked at on the meta device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            states.append(build("torchvision:shufflenet_v2_x0_5").state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_costs_are_counted():
    # torchvision's own figure of ResNet-18 at 224x224 is 1.814 G, of which its classifier has 512,000.
    cost = backbone_cost(named_architecture("torchvision:resnet18"), (224, 224))
    assert cost["gmacs"] == pytest.approx(1.814 - 0.000512, abs=5e-4)
    assert cost["params_m"] * 1e6 == 11_689_512 - 513_000


def test_attention_counts_in_detectors_too():
    swin = named_architecture("torchvision:swin_t")
    parts = detector_cost("fcos", swin, (128, 128), num_classes=3, channels=16)
    with torch.device("meta"):
        detector, images = assemble_detector("fcos", swin, 3, channels=16).eval(), torch.empty(1, 3, 128, 128)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector(images)
    assert parts["total"]["gmacs"] == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet19", r"torchvision has no model 'resnet19'; did you mean 'resnet1"),
        ("torchvision:vit_b_16", "torchvision:vit_b_16 does not take images of any size.*Choose another model"),
        ("torchvision:alexnet", "torchvision:alexnet has no maps whose height and width"),
        pytest.param("timm:vit_tiny_patch16_224", "timm:vit_tiny_patch16_224 does not take images", marks=needs_timm),
        pytest.param("timm:convnext_tny", r"timm has no model 'convnext_tny'; did you mean 'convnext_tiny'",
                     marks=needs_timm),
    ],
)  # fmt: skip
def test_what_is_no_backbone_is_one_message(name, message):
    with pytest.raises(NasrayError, match=message):
        build(name)


def test_an_architecture_of_a_model_that_this_version_lacks():
    with pytest.raises(NasrayError, match="torchvision has no model 'resnet18_next'"):
        build(Architecture.create("torchvision", {"name": "resnet18_next"}))
