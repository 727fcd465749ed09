"""Published weights by name, with files of made-up weights where PyTorch keeps them."""

import importlib.util
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
import torchvision

from nasray.architectures import ARCHITECTURES, named_architecture
from nasray.checkpoint import make_network
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from nasray.training import with_absolute_paths
from nasray.training.published import PublishedWeights, fetch, find_published
from nasray.training.weights import load_weights

needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="timm is not installed")
RECIPE = Recipe(name="x", detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1))


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def made_up(model):
    """A state that no initialization draws."""
    generator = torch.Generator().manual_seed(1)
    return {key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
            for key, value in model.state_dict().items()}  # fmt: skip


def detector(name):
    architecture = named_architecture(name)
    return make_network(RECIPE, architecture, 2), architecture


def load(network, architecture, name):
    return load_weights(network, name, architecture, ("a", "b"))


def test_weights_of_torchvision_by_name(hub):
    published = find_published("torchvision:resnet18")
    assert published.name == "torchvision:resnet18.imagenet1k_v1"
    assert published.path == hub / "resnet18-f37072fd.pth"
    state = made_up(torchvision.models.resnet18())
    hub.mkdir(parents=True)
    torch.save(state, published.path)
    network, architecture = detector("torchvision:resnet18")
    message = load(network, architecture, "torchvision:resnet18")
    assert message.startswith(
        "backbone from torchvision:resnet18.imagenet1k_v1, matched by name; 2 tensors are not used"
    )
    assert "license: that of torchvision, BSD-3-Clause" in message
    assert "Origin: https://" in message
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[key.removeprefix("body.")]) or key.endswith("num_batches_tracked")


def test_the_same_file_fits_the_backbone_of_that_form(hub):
    state = made_up(torchvision.models.resnet18())
    hub.mkdir(parents=True)
    torch.save(state, hub / "resnet18-f37072fd.pth")
    network = make_network(RECIPE, ARCHITECTURES["resnet18"], 2)
    message = load(network, ARCHITECTURES["resnet18"], "torchvision:resnet18.IMAGENET1K_V1")
    assert "matched by order" in message
    assert torch.equal(network.backbone.state_dict()["stem.0.weight"], state["conv1.weight"])


@needs_timm
@pytest.mark.parametrize("name", ["convnext_atto", "mobilenetv3_small_050"])
def test_weights_of_timm_by_name(name, hub):
    import timm
    from safetensors.torch import save_file

    published = find_published(f"timm:{name}")
    assert published.license == "apache-2.0"
    state = made_up(timm.create_model(name, pretrained=False))
    hub.mkdir(parents=True)
    save_file(state, published.path)
    network, architecture = detector(f"timm:{name}")
    message = load(network, architecture, f"timm:{name}")
    assert f"backbone from timm:{name}." in message
    assert "matched by name" in message
    names = network.backbone.published_names
    assert len(set(names.values())) == len(names)
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[names[key]]) or key.endswith("num_batches_tracked")


def test_other_weights_do_not_fit(hub):
    hub.mkdir(parents=True)
    torch.save(made_up(torchvision.models.resnet18()), hub / "resnet18-f37072fd.pth")
    network, architecture = detector("torchvision:resnet34")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(NasrayError, match=r"resnet18\.imagenet1k_v1 does not fit the backbone"):
        load(network, architecture, "torchvision:resnet18")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def weights_at(url):
    return PublishedWeights("torchvision:x", url, "x-0123.pth", "none", "here")


def test_offline_the_message_says_which_file_to_put_where(hub):
    url = "http://127.0.0.1:9/x-0123.pth"  # where nothing listens
    with pytest.raises(NasrayError) as caught:
        fetch(weights_at(url))
    assert f"Fetch {url} on a machine that is online, and put it at {hub}/x-0123.pth" in str(caught.value)
    assert not hub.exists() or not list(hub.iterdir())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"weights")

    def log_message(self, *_):
        pass


def test_a_file_is_fetched_once(hub):
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    try:
        weights = weights_at(f"http://127.0.0.1:{server.server_port}/x-0123.pth")
        assert fetch(weights).read_bytes() == b"weights"
    finally:
        thread.join()
        server.server_close()
    assert fetch(weights) == hub / "x-0123.pth"  # the server answers once


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "torchvision:resnet18.imagenet1k_v9",
            r"no weights 'imagenet1k_v9' of resnet18; did you mean 'imagenet1k_v1'\?",
        ),
        ("torchvision:resnet19", "torchvision has no model 'resnet19'"),
        ("torchvision:mnasnet0_5x", "torchvision has no model"),
        pytest.param("timm:convnext_atto_rms", "timm has published no weights of convnext_atto_rms", marks=needs_timm),
    ],
)
def test_weights_that_there_are_not(name, message):
    with pytest.raises(NasrayError, match=message):
        find_published(name)


def test_licenses_of_their_own_are_told():
    swag = find_published("torchvision:regnet_y_16gf.imagenet1k_swag_e2e_v1")
    assert swag.license.endswith("SWAG/blob/main/LICENSE")


def test_a_name_is_no_path():
    recipe = Recipe(name="x", weights="torchvision:resnet18")
    assert with_absolute_paths(recipe).weights == "torchvision:resnet18"
    assert with_absolute_paths(Recipe(name="x", weights="w.pt")).weights.startswith("/")
