import pytest
import torch

from nasray.latency import (
    measure,
)
from tests.nasray.latency.common import HW


def test_measures_a_network_and_leaves_it_and_the_random_state_alone():
    network = torch.nn.Conv2d(3, 8, 3)
    weight, state = network.weight.clone(), torch.get_rng_state()
    result = measure(network, HW, batch_size=2, device="cpu", dtype="bfloat16", repeats=5, channels_last=True)
    assert 0 < result["min_ms"] <= result["median_ms"]
    assert result["fps"] == pytest.approx(2000 / result["median_ms"])
    assert (result["device"], result["dtype"], result["batch_size"]) == ("cpu", "bfloat16", 2)
    assert network.training
    assert network.weight.dtype == torch.float32
    assert torch.equal(network.weight, weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(result["reference_ms"]) == 2, "looks before and after"
    assert result["steady"] in (True, False)


def test_threads_are_those_that_are_asked_for():
    before, found = torch.get_num_threads(), []
    network = torch.nn.Identity()
    network.register_forward_hook(lambda *_: found.append(torch.get_num_threads()))
    result = measure(network, HW, device="cpu", threads=before + 1, warmup=1, repeats=1)
    assert (set(found), result["threads"]) == ({before + 1}, before + 1)
    assert torch.get_num_threads() == before
