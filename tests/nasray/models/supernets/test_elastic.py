import copy
import multiprocessing

import numpy as np
import pytest
import torch
from torch import distributed, nn

from nasray.models.norms import freeze, freeze_norms, synchronize_norms
from nasray.models.supernets import build_supernet
from nasray.models.supernets.elastic import ElasticBatchNorm2d, elastic
from nasray.models.supernets.recalibration import kept_statistics, recalibrate
from nasray.models.supernets.testing import check_supernet
from nasray.spaces import OFAResNetSpace, RestrictedSpace
from nasray.spaces.restricted import forbid_values
from nasray.training.exchange import GradientExchange

TINY = OFAResNetSpace("tiny")
PATHS = TINY.sample(20, np.random.default_rng(0))


def test_the_supernet_keeps_its_contract():
    check_supernet(TINY)


@pytest.mark.slow
def test_the_released_size_keeps_its_contract():
    check_supernet(OFAResNetSpace(), num_paths=2)


def test_the_supernet_has_the_parameters_of_the_largest_network():
    with torch.device("meta"):
        supernet = build_supernet(OFAResNetSpace())
    backbone = sum(parameter.numel() for parameter in supernet.parameters())
    assert backbone + 2049 * 1000 == 48_105_992  # once-for-all's, with its fully connected layer


@pytest.mark.parametrize("training", [False, True])
def test_twenty_paths_compute_what_their_networks_compute(training):
    torch.manual_seed(0)
    supernet = build_supernet(TINY).train(training)
    images = torch.randn(2, 3, 64, 64)
    for row in PATHS:
        network = supernet.extract(row)
        supernet.set_path(row)
        with torch.no_grad():
            ours, theirs = supernet(images), network(images)
        for name, x in theirs.items():
            assert torch.equal(ours[name][:, : x.shape[1]], x)


def test_statistics_of_a_path_leave_the_others_alone():
    torch.manual_seed(0)
    supernet = build_supernet(TINY)
    supernet.set_path(PATHS[0])
    before = copy.deepcopy(supernet.state_dict())
    images = torch.randn(8, 3, 64, 64)
    with kept_statistics(supernet):
        recalibrate(supernet, images.split(4), 8)
        network = supernet.extract(PATHS[0])
    alone = build_supernet(TINY)
    alone.load_state_dict(before)
    twin = alone.extract(PATHS[0])
    recalibrate(twin, images.split(4), 8)
    for name, value in twin.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_norms_that_are_frozen_stay_elastic():
    supernet = freeze(build_supernet(TINY)).train()
    before = copy.deepcopy(supernet.state_dict())
    supernet.set_path(PATHS[1])
    supernet(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    assert not any(norm.training for norm in supernet.modules() if isinstance(norm, nn.BatchNorm2d))
    assert freeze_norms(supernet).state_dict().keys() == before.keys()


def test_the_widest_channels_are_those_of_the_norm_that_pytorch_has():
    norm = nn.BatchNorm2d(6)
    ours = elastic(copy.deepcopy(norm))
    assert isinstance(ours, ElasticBatchNorm2d)
    x = torch.randn(3, 6, 4, 4)
    assert torch.equal(norm(x), ours(x))
    assert torch.equal(norm.running_var, ours.running_var)
    ours(x[:, :2])
    assert torch.equal(norm.running_var[2:], ours.running_var[2:])
    assert not torch.equal(norm.running_var[:2], ours.running_var[:2])


def test_convolutions_with_groups_are_not_elastic():
    with pytest.raises(ValueError, match="depthwise"):
        elastic(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))


def test_paths_of_a_restricted_space_are_paths_of_the_supernet():
    space = RestrictedSpace(TINY, forbid_values(TINY, {"depth": [2], "width": [100], "expand": [35]}))
    supernet = build_supernet(TINY)
    (row,) = space.sample(1, np.random.default_rng(0))
    supernet.set_path(row)
    assert sum(value.numel() for value in supernet.path_state(row).values()) == sum(
        value.numel() for value in supernet.network.state_dict().values()
    )


def train_steps(folder, rank, world):
    """Train the same paths with a share of the same images, in double precision, and save the state."""
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = build_supernet(TINY).double().train()
        images = torch.randn(3, 4, 3, 64, 64, dtype=torch.float64)
    exchange = None
    if world > 1:
        synchronize_norms(supernet, torch.device("cpu"))
        exchange = GradientExchange(supernet, list(supernet.parameters()))
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for row, batch in zip(PATHS, images, strict=False):
        supernet.set_path(row)
        optimizer.zero_grad()
        sum(x.square().mean() for x in supernet(batch.chunk(world)[rank]).values()).backward()
        if exchange is not None:
            exchange()
        optimizer.step()
    torch.save(copy.deepcopy(supernet).state_dict(), folder / f"{rank}-of-{world}.pt")


def test_two_workers_are_one_with_both_batches(tmp_path):
    fork = multiprocessing.get_context("fork")
    for world in (1, 2):
        workers = [fork.Process(target=train_steps, args=(tmp_path, rank, world)) for rank in range(world)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
            assert worker.exitcode == 0
    alone, *both = (torch.load(tmp_path / name) for name in ("0-of-1.pt", "0-of-2.pt", "1-of-2.pt"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = build_supernet(TINY).double().state_dict()
    assert max((alone[name] - value).abs().max().item() for name, value in before.items()) > 0.01
    for state in both:
        for name, value in alone.items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")
