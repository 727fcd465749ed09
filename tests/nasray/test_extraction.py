"""The network of a path by itself computes what the path computes, and shares nothing with the supernet."""

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, compose
from nasray.checkpoint import make_network
from nasray.extraction import extract_network, network_of_path
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, ClassifierOptions
from nasray.spaces import FADSpace, NasrayError, OFAResNetSpace, ShuffleNetSpace
from nasray.training.folder import Description
from tests.nasray.models.supernets.toy import ToySpace, register

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "fcos": {"channels": 16, "num_convs": 1, "norm": "batch"},
    "yolof": {"channels": 32},
    "faster-rcnn": {"channels": 16},
    "centernet": {},
}


def network_around(space, recipe, num_classes=3):
    """A detector or classifier around a supernet with statistics that differ, and what it was built from."""
    described = Description(recipe, supernet_architecture(space), ("a", "b", "c")[:num_classes], ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network(recipe, described.architecture, num_classes).eval()
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0.0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return network, described


def outputs(network, images):
    with torch.no_grad():
        found = network.forward_raw(images) if hasattr(network, "forward_raw") else {"logits": network(images)}
    return {
        f"{name} {index}": value
        for name, values in found.items()
        for index, value in enumerate(values if isinstance(values, list) else [values])
    }


@pytest.mark.parametrize("name", [*OPTIONS, "classifier"])
@pytest.mark.parametrize("space", [ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 2, 1)),
                                   ToySpace(), OFAResNetSpace("tiny")],
                         ids=["choice", "elastic", "once-for-all"])  # fmt: skip
def test_the_network_of_a_path_is_a_standalone_one(space, name, monkeypatch):
    register(monkeypatch)
    if name == "classifier":
        recipe = Recipe(name="r", task="classification", classifier=ClassifierOptions(16), batch_size=8,
                        augmentation=AugmentationOptions(square=64))  # fmt: skip
    else:
        recipe = Recipe(name="r", detector=options_of(DETECTORS, name, **OPTIONS[name]))
    network, described = network_around(space, recipe)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = 255 * torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    rows = space.sample(2, np.random.default_rng(0))
    supernet_of(network).set_path(rows[1])
    state = torch.get_rng_state()
    found = extract_network(network, rows[0], described)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(supernet_of(network).path, rows[1]), "the path that was set has changed"
    assert supernet_of(found) is None
    assert not found.training
    supernet_of(network).set_path(rows[0])
    expected = outputs(network, images)
    for key, value in outputs(found, images).items():
        # Zeros behind the path's channels are added in elastic supernets, which moves the order of sums.
        torch.testing.assert_close(value, expected[key], rtol=0, atol=0 if isinstance(space, ShuffleNetSpace) else 1e-4)
    with torch.no_grad():
        for value in found.state_dict().values():
            value.add_(1)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "they share memory"


def test_an_elastic_neck_is_cut(monkeypatch):
    register(monkeypatch)
    recipe = Recipe(name="r", detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1))
    network, described = network_around(ToySpace(), recipe)
    found = extract_network(network, np.array([8, 4, 6, 4]), described)
    shapes = {tuple(value.shape[:2]) for key, value in found.state_dict().items() if "neck" in key or "fpn" in key}
    assert {(16, 4), (16, 6)} <= shapes
    assert {(16, 8)} <= {tuple(value.shape[:2]) for value in network.state_dict().values()} - shapes


def test_what_has_no_supernet_has_no_paths():
    recipe = Recipe(name="r", detector=options_of(DETECTORS, "fcos", **OPTIONS["fcos"]))
    space = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))
    network, described = network_around(space, recipe)
    alone = extract_network(network, np.zeros(4, dtype=np.int64), described)
    with pytest.raises(ValueError, match="there is no supernet in this network"):
        extract_network(alone, np.zeros(4, dtype=np.int64), described)


def test_a_path_that_is_no_head_has_a_network_as_it_would_be_built():
    """Of heads of two cells, whose relaxed head has one."""
    space = FADSpace(channels=8, operations="darts")
    recipe = Recipe(name="r", detector=options_of(DETECTORS, "fcos", channels=16))
    whole = compose({"backbone": ARCHITECTURES["basic-tiny"], "head": supernet_architecture(space)})
    described = Description(recipe, whole, ("a", "b", "c"), ())
    network = make_network(recipe, whole, 3).eval()
    row = space.sample(1, np.random.default_rng(0))[0]
    with pytest.raises(NasrayError, match="have 2 cells a group"):
        extract_network(network, row, described)
    alone = network_of_path(network, row, described)
    assert supernet_of(alone) is None
    assert len(alone.head.trunk.groups["boxes"].cells) == 2


@pytest.mark.parametrize("decouple", [False, True])
def test_a_path_of_a_relaxed_head_is_a_standalone_detector_if_nothing_is_decoupled(decouple):
    space = FADSpace(channels=8, cells=1)
    recipe = Recipe(name="r", detector=options_of(DETECTORS, "gfl", channels=16))
    head = supernet_architecture(space, {"decouple": decouple})
    whole = compose({"backbone": ARCHITECTURES["basic-tiny"], "head": head})
    network = make_network(recipe, whole, 3).eval()
    row = space.sample(1, np.random.default_rng(0))[0]
    described = Description(recipe, whole, ("a", "b", "c"), ())
    if decouple:
        with pytest.raises(NasrayError, match="of this path has a function behind it"):
            extract_network(network, row, described)
        return
    found = extract_network(network, row, described)
    supernet_of(network).set_path(row)
    images = 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = outputs(network, images)
    for key, value in outputs(found, images).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)
