import math

import pytest
import torch

from nasray.models import build
from nasray.scores.aznas import az_components
from nasray.scores.naswot import naswot_score
from nasray.scores.swap import swap_score
from nasray.scores.synflow import synflow_score
from nasray.scores.zen import zen_score
from tests.nasray.scores.common import STAGED, generator, small

pytestmark = pytest.mark.usefixtures("one_thread")


PROXIES = {
    "zen": (zen_score, {"batch_size": 4}),
    "naswot": (naswot_score, {"batch_size": 6}),
    "synflow": (synflow_score, {}),
    "swap": (swap_score, {"batch_size": 16}),  # six have 64 patterns at most, and show them all
    "aznas": (lambda *args, **options: sum(az_components(*args, **options)), {"batch_size": 4}),
}


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("family", STAGED)
def test_proxies_are_pure(proxy, family):
    score, options = PROXIES[proxy]
    options = {"image_hw": (32, 32), **options}
    network = build(small(family)).eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modules = [str(module) for module in network.modules()]
    first = score(network, generator=generator(1), **options)
    assert math.isfinite(first)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert [str(module) for module in network.modules()] == modules
    assert not network.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    # neither the module's own weights nor the global generator matter
    network.reset_parameters()
    torch.manual_seed(5)
    assert score(network, generator=generator(1), **options) == pytest.approx(first, rel=1e-6)
    assert score(network, generator=generator(2), **options) != first


@pytest.mark.parametrize("proxy", ["zen", "synflow"])
def test_deeper_networks_score_higher(proxy):
    score, options = PROXIES[proxy]
    shallow, deep = (build(small("bottleneck", depth=depth)) for depth in (1, 6))
    scores = [score(m, generator=generator(), image_hw=(64, 64), **options) for m in (shallow, deep)]
    assert scores[1] > scores[0]
