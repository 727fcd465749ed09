"""A path of MSNAS's supernet is the standalone encoder, alone and in detectors; other paths leave nothing behind."""

import numpy as np
import pytest
import torch

from nasray.architectures import slot_of
from nasray.checkpoint import make_network
from nasray.extraction import extract_network
from nasray.models.detectors import DETECTORS, assemble_detector
from nasray.models.supernets import build_supernet, space_of_supernet, supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.testing import check_supernet
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.spaces import MSNASSpace, NasrayError
from nasray.training.folder import Description
from tests.nasray.models.detectors.common import detect, shapes_batch

pytestmark = pytest.mark.usefixtures("one_thread")

BASIC = MSNASSpace("tiny", blocks=7, stem_width=8, width=8, image_hw=(64, 64))
BOTTLENECK = MSNASSpace("tiny", block="bottleneck", blocks=5, stem_width=8, width=16, mid=8, image_hw=(64, 64))
RECIPES = {
    name: Recipe(name="r", detector=options_of(DETECTORS, name, box_head="2conv1fc", norm="batch"))
    for name in ("faster-rcnn", "mask-rcnn")
}


def around(space, name):
    """A detector around the supernet, with statistics that differ, and what it was built from."""
    described = Description(RECIPES[name], supernet_architecture(space), ("a", "b", "c"), ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network(described.recipe, described.architecture, 3)
        for key, value in network.named_buffers():
            if key.endswith("running_mean"):
                value.normal_(0.0, 0.1)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    network.region_samples = 32
    return network, described


def losses_of(network, batch):
    images, targets = batch
    return network.train()(images, targets, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("space", [BASIC, pytest.param(BOTTLENECK, marks=pytest.mark.slow)])
def test_supernets_conform(space):
    check_supernet(space, image_hw=(64, 64), num_paths=3)


@pytest.mark.parametrize("space", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_maps_of_20_paths_are_those_of_the_encoder(space):
    """Bit for bit, in either mode, one path after another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(space)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for index, row in enumerate(space.sample(20, np.random.default_rng(0))):
        supernet.train(index % 2 == 1)
        alone = supernet.extract(row)
        supernet.set_path(row)
        with torch.no_grad():
            ours, theirs = supernet(images), alone(images)
        assert supernet.strides == alone.strides == tuple(space.to_architecture(row).spec["heads"])
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        assert [x.shape[-1] for x in ours] == [64 // stride for stride in alone.strides]


@pytest.mark.parametrize("name", ["faster-rcnn", pytest.param("mask-rcnn", marks=pytest.mark.slow)])
def test_losses_and_detections_of_20_paths_are_those_of_the_detector(name):
    """One after another: anchors, strides and pooling are those of the path that is set, and of no other."""
    network, described = around(BASIC, name)
    batch = shapes_batch(2, (64, 64))
    for row in BASIC.sample(20, np.random.default_rng(1)):
        alone = extract_network(network, row, described)
        alone.region_samples = network.region_samples
        supernet_of(network).set_path(row)
        with torch.no_grad():
            pairs = [
                *zip(losses_of(network, batch).values(), losses_of(alone, batch).values(), strict=True),
                *zip(
                    detect(network, batch[0]), detect(extract_network(network, row, described), batch[0]), strict=True
                ),
            ]
        for ours, theirs in pairs:
            if ours is not None:
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert network.groups == alone.groups
        assert network.groups.first == 1


def test_a_path_computes_the_same_after_another_one():
    network, _ = around(BASIC, "faster-rcnn")
    images = shapes_batch(2, (64, 64))[0]
    first, other = BASIC.sample(2, np.random.default_rng(2))
    found = []
    for row in (first, other, first):
        supernet_of(network).set_path(row)
        found.append(detect(network, images))
    assert all(torch.equal(one, two) for one, two in zip(found[0][:3], found[2][:3], strict=True))
    assert not torch.equal(found[0].boxes, found[1].boxes)


def test_a_supernet_fills_the_slot_of_its_architectures():
    architecture = supernet_architecture(BASIC)
    assert slot_of(architecture) == "pyramid"
    assert space_of_supernet(architecture).num_genes == 12
    assert assemble_detector("faster-rcnn", architecture, 3).stride == 64
    with pytest.raises(NasrayError, match="'retinanet' has no slot for a pyramid"):
        assemble_detector("retinanet", architecture, 3)
    with pytest.raises(RuntimeError, match="no path is set"):
        _ = build_supernet(BASIC).strides
