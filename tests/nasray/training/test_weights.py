import dataclasses

import numpy as np
import pytest
import torch
import torchvision

from nasray.architectures import ARCHITECTURES, compose
from nasray.checkpoint import Checkpoint, make_network
from nasray.extraction import extract_network
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import build_supernet, supernet_architecture
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.spaces.resolutions import network_genes
from nasray.training.weights import check_fits, load_weights
from tests.nasray.models.detectors.toys import HEAD, TWIN, toys  # noqa: F401

RECIPE = Recipe(name="x", backbone="basic-tiny", detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1))
TINY = ARCHITECTURES["basic-tiny"]
CLASSES = ("cat", "dog")


def fresh(architecture=TINY, num_classes=2, recipe=RECIPE):
    return make_network(recipe, architecture, num_classes)


def saved(path, classes=CLASSES, architecture=TINY, recipe=RECIPE):
    detector = fresh(architecture, len(classes), recipe)
    ids = tuple(range(len(classes)))
    Checkpoint(recipe, architecture, classes, ids, detector.state_dict()).save(path)
    return detector


def load(detector, path, architecture=TINY, classes=CLASSES):
    return load_weights(detector, str(path), architecture, classes)


def equal(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


def test_a_whole_detector_of_the_same_kind_and_classes(tmp_path):
    theirs, ours = saved(tmp_path / "x.pt"), fresh()
    assert not equal(ours, theirs)
    assert "whole network" in load(ours, tmp_path / "x.pt")
    assert equal(ours, theirs)


@pytest.mark.parametrize(
    ("classes", "recipe", "reason"),
    [
        (("cat", "dog", "cow"), RECIPE, "has 3 classes (cat, dog, cow), the data set has 2 classes (cat, dog)"),
        (("dog", "cat"), RECIPE, "has 2 classes (dog, cat), the data set has 2 classes (cat, dog)"),
        (CLASSES, dataclasses.replace(RECIPE, detector=options_of(DETECTORS, "retinanet", channels=16)), "retinanet"),
    ],
)
def test_only_the_backbone_otherwise(tmp_path, classes, recipe, reason):
    theirs, ours = saved(tmp_path / "x.pt", classes, recipe=recipe), fresh()
    head = {name: value.clone() for name, value in ours.state_dict().items() if not name.startswith("backbone.")}
    message = load(ours, tmp_path / "x.pt")
    assert "only the backbone" in message
    assert reason in message
    assert equal(ours.backbone, theirs.backbone)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in head.items())


SPACE = OFAResNetSpace("tiny", image_hw=(96, 128), resolutions=((64, 96), (96, 128)))
SUPERNET = supernet_architecture(SPACE)


def test_a_path_begins_with_the_weights_of_its_supernet(tmp_path):
    theirs = saved(tmp_path / "x.pt", architecture=SUPERNET)
    row = SPACE.sample(1, np.random.default_rng(0))[0]
    path = SPACE.to_architecture(row)
    ours = fresh(path)
    assert "a path of the supernet: whole network" in load(ours, tmp_path / "x.pt", path)
    assert equal(ours, extract_network(theirs, network_genes(SPACE, row), Checkpoint.load(tmp_path / "x.pt")))
    other = fresh(path, 3)
    assert "a path of the supernet: only the backbone" in load(other, tmp_path / "x.pt", path, ("cat", "dog", "cow"))
    assert equal(other.backbone, ours.backbone)


def test_what_is_no_path_of_a_supernet_does_not_begin_with_its_weights(tmp_path):
    saved(tmp_path / "x.pt", architecture=SUPERNET)
    with pytest.raises(NasrayError, match=f"x.pt is of a supernet, and backbone {TINY.id} of the training is no path"):
        load(fresh(), tmp_path / "x.pt")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    recipe = dataclasses.replace(RECIPE, backbone="resnet18")
    saved(tmp_path / "x.pt", architecture=ARCHITECTURES["resnet18"], recipe=recipe)
    with pytest.raises(NasrayError, match=r"another architecture.*\(resnet18\).*train resnet18"):
        load(fresh(), tmp_path / "x.pt")
    checkpoint = Checkpoint.load(tmp_path / "x.pt")
    with pytest.raises(NasrayError, match="another architecture"):
        check_fits(checkpoint, tmp_path / "x.pt", TINY, CLASSES)
    check_fits(checkpoint, tmp_path / "x.pt", checkpoint.architecture, CLASSES)
    with pytest.raises(NasrayError, match=r"has 2 classes \(cat, dog\); the data set has 1 classes \(cat\)"):
        check_fits(checkpoint, tmp_path / "x.pt", checkpoint.architecture, ("cat",))


@pytest.mark.parametrize(
    ("name", "theirs", "wrapped"), [("resnet18", "resnet18", True), ("mobilenet-v2", "mobilenet_v2", False)]
)
def test_torchvisions_classifiers_fit_by_order(tmp_path, name, theirs, wrapped):
    classifier = getattr(torchvision.models, theirs)()
    with torch.no_grad():
        for buffer in classifier.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    state = classifier.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    ours = fresh(ARCHITECTURES[name])
    message = load(ours, tmp_path / "w.pth", ARCHITECTURES[name])
    assert "matched by order; " in message
    assert "at its end are not used" in message
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    classifier.eval()
    ours.eval()
    with torch.no_grad():
        if name == "resnet18":
            expected = torch.nn.Sequential(*list(classifier.children())[:-2])(images)
        else:
            expected = classifier.features[:-1](images)
        torch.testing.assert_close(list(ours.backbone(images).values())[-1], expected, rtol=1e-4, atol=1e-4)


def test_a_backbones_own_names_with_or_without_prefix(tmp_path):
    theirs = fresh()
    state = {f"module.backbone.{name}": value for name, value in theirs.backbone.state_dict().items()}
    torch.save({"head": torch.zeros(3), **state}, tmp_path / "w.pth")
    ours = fresh()
    assert "matched by name" in load(ours, tmp_path / "w.pth")
    assert equal(ours.backbone, theirs.backbone)


def test_the_first_tensor_that_does_not_fit_is_named(tmp_path):
    before = fresh()
    ours = fresh()
    ours.load_state_dict(before.state_dict())
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(NasrayError, match=r"stem.0.weight is 16x3x3x3, the file's conv1.weight is 64x3x7x7"):
        load(ours, tmp_path / "w.pth")
    own = [(name, value) for name, value in before.backbone.state_dict().items() if "num_batches" not in name]
    torch.save({str(index): value for index, (_, value) in enumerate(own[:-1])}, tmp_path / "short.pth")
    with pytest.raises(NasrayError, match=f"it ends before {own[-1][0]} 96; it has {len(own) - 1} tensors"):
        load(ours, tmp_path / "short.pth")
    assert equal(ours, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", "holds no weights, is torn"),
        ([1, 2], "holds a list, not a state dictionary"),
        ({"epoch": 1}, "holds no tensors; its keys are: epoch"),
        (pytest.raises, "more than tensors"),  # any object of Python's
    ],
)
def test_files_of_other_kinds(tmp_path, content, message):
    path = tmp_path / "w.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(NasrayError, match=message):
        load(fresh(), path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NasrayError, match="no file of weights at"):
        load(fresh(), tmp_path / "none.pth")


def head_of(detector):
    return detector.get_submodule(detector.slots["head"])


def test_slots_that_the_same_architectures_fill_are_loaded(tmp_path, toys):  # noqa: F811
    with_toy, with_twin = (compose({"backbone": TINY, "head": head}) for head in (HEAD, TWIN))
    recipe = dataclasses.replace(RECIPE, detector=options_of(DETECTORS, "fcos", channels=16))
    theirs = saved(tmp_path / "x.pt", architecture=with_toy, recipe=recipe)
    ours = fresh(with_twin, recipe=recipe)
    message = load(ours, tmp_path / "x.pt", with_twin)
    assert message == (
        f"only the backbone from {tmp_path}/x.pt: its head is toy-head {HEAD.id}, "
        f"the training's head is toy-twin {TWIN.id}"
    )
    assert equal(ours.backbone, theirs.backbone)
    ours = fresh(recipe=recipe)  # whose head is FCOS's own
    assert "the training's head is the detector's own" in load(ours, tmp_path / "x.pt")
    assert equal(ours.backbone, theirs.backbone)


def test_a_head_goes_to_another_detector_and_backbone(tmp_path, toys):  # noqa: F811
    recipe = dataclasses.replace(RECIPE, detector=options_of(DETECTORS, "fcos", channels=16))
    theirs = saved(tmp_path / "x.pt", architecture=compose({"backbone": TINY, "head": HEAD}), recipe=recipe)
    other = dataclasses.replace(RECIPE, detector=options_of(DETECTORS, "mask-rcnn", channels=16))
    architecture = compose({"backbone": ARCHITECTURES["resnet18"], "head": HEAD})
    ours = fresh(architecture, recipe=other)
    assert load(ours, tmp_path / "x.pt", architecture).startswith("only the head from")
    assert equal(head_of(ours), head_of(theirs))
    wide = dataclasses.replace(RECIPE, detector=options_of(DETECTORS, "fcos", channels=32))
    with pytest.raises(NasrayError, match="its head has other shapes than the training's"):
        load(fresh(architecture, recipe=wide), tmp_path / "x.pt", architecture)


# ---- once-for-all's released ResNet-50 ----------------------------------------------------------------------------


def as_released(supernet):
    """The state of a supernet's largest network under the names of once-for-all's `OFAResNets`."""
    parts = [(f"input_stem.{place}", f"stem.{ours}") for place, ours in (("0", "0"), ("1.conv", "1.main"), ("2", "2"))]
    number = 0
    for level, stage in enumerate(supernet.network.stages):
        for place, block in enumerate(stage):
            ours = f"stages.{level}.{place}"
            parts += [(f"blocks.{number}.conv{index + 1}", f"{ours}.main.{index}") for index in range(3)]
            if len(block.shortcut):
                parts.append((f"blocks.{number}.downsample", f"{ours}.shortcut.{len(block.shortcut) - 1}"))
            number += 1
    own, state = supernet.network.state_dict(), {}
    for theirs, ours in parts:
        state[f"{theirs}.conv.conv.weight"] = own[f"{ours}.0.weight"].clone()
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"{theirs}.bn.bn.{name}"] = own[f"{ours}.1.{name}"].clone()
    assert len(state) == len(own)
    channels = supernet.out_channels[-1]
    return {**state, "classifier.linear.linear.weight": torch.zeros(1000, channels),
            "classifier.linear.linear.bias": torch.zeros(1000)}  # fmt: skip


@pytest.mark.parametrize("size", ["tiny", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_released_once_for_all_weights_are_read_by_order_and_shape(tmp_path, size):
    space = OFAResNetSpace(size)
    torch.manual_seed(1)
    theirs = build_supernet(space)
    for name, value in theirs.named_buffers():
        if name.endswith(("mean", "var")):
            value.uniform_(0.5, 1.5)
    torch.save({"state_dict": as_released(theirs)}, tmp_path / "ofa_resnet50")
    architecture = supernet_architecture(space)
    ours = fresh(architecture)
    message = load(ours, tmp_path / "ofa_resnet50", architecture)
    assert message == f"backbone from {tmp_path}/ofa_resnet50, matched by order; 2 tensors at its end are not used"
    assert equal(ours.backbone, theirs)


def test_once_for_all_weights_of_another_order_or_width_are_refused(tmp_path):
    space = OFAResNetSpace("tiny")
    architecture, state = supernet_architecture(space), as_released(build_supernet(space))
    ours = fresh(architecture)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    names = list(state)
    first, second = (names.index(f"input_stem.{place}.conv.conv.weight") for place in ("0", "2"))
    names[first], names[second] = names[second], names[first]
    torch.save({name: state[name] for name in names}, tmp_path / "order.pth")
    with pytest.raises(NasrayError, match=r"network.stem.0.0.weight is \d+x3x3x3, the file's input_stem.2.conv.conv.w"):
        load(ours, tmp_path / "order.pth", architecture)
    torch.save(as_released(build_supernet(OFAResNetSpace("laptop"))), tmp_path / "width.pth")
    with pytest.raises(NasrayError, match=r"does not fit the backbone: network.*Choose weights of this backbone$"):
        load(ours, tmp_path / "width.pth", architecture)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
