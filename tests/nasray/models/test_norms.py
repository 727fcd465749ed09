import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import distributed, nn

from nasray.models import norms
from nasray.models.norms import FrozenBatchNorm, SyncedBatchNorm, freeze, freeze_norms, synchronize_norms
from nasray.spaces import NasrayError


@pytest.fixture
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, eps=1e-3)))


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def images(seed, size=4):
    return torch.randn(size, 3, 9, 7, generator=torch.Generator().manual_seed(seed)) * 3 + 5


def test_frozen_norms_keep_everything_and_have_the_same_state(network):
    network(images(0))
    plain = copy.deepcopy(network).eval()
    frozen = freeze_norms(network).train()
    state = {name: value.clone() for name, value in frozen.state_dict().items()}
    assert torch.equal(frozen(images(1)), plain(images(1)))
    assert [name for name, parameter in frozen.named_parameters() if parameter.requires_grad] == ["0.weight", "0.bias"]
    assert list(frozen.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in frozen.state_dict().items())
    assert frozen[2][0].eps == 1e-3


def test_freeze_takes_all_gradients(network):
    freeze(network)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert isinstance(network.train()[1], FrozenBatchNorm)
    assert not network[1].training


@pytest.mark.usefixtures("alone")
def test_a_synchronized_norm_of_one_worker_is_a_batch_norm(network):
    plain, synced = copy.deepcopy(network), synchronize_norms(network, torch.device("cpu"))
    assert isinstance(synced[2][0], SyncedBatchNorm)
    inputs = [images(1).requires_grad_(), images(1).requires_grad_()]
    for model, x in zip((plain, synced), inputs, strict=True):
        model(x).pow(3).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-3)
    for (name, one), other in zip(plain.named_parameters(), synced.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-2, msg=name)
    for (name, one), other in zip(plain.named_buffers(), synced.buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=name)
    torch.testing.assert_close(synced.eval()(images(2)), plain.eval()(images(2)))


@pytest.mark.usefixtures("alone")
def test_a_synchronized_norm_can_be_copied_and_frozen_ones_stay_so(network):
    freeze_norms(network[2])
    synced = synchronize_norms(network, torch.device("cpu"))
    twin = copy.deepcopy(synced)
    assert isinstance(twin[2][0], FrozenBatchNorm)
    assert twin[1].weight is not synced[1].weight
    assert torch.equal(twin(images(3)), synced(images(3)))


@pytest.fixture
def on_two_workers(monkeypatch):
    """A function that runs one of a rank in two threads, which exchange messages as two workers do."""
    barrier, sent = threading.Barrier(2, timeout=60), [None, None]
    rank = threading.local()

    def exchanged(value):
        sent[rank.own] = value.clone()
        barrier.wait()
        both = torch.stack(sent)
        barrier.wait()
        return both

    messages = SimpleNamespace(
        all_reduce=lambda value, group: value.copy_(exchanged(value).sum(dim=0)),
        all_gather_into_tensor=lambda output, value, group: output.copy_(exchanged(value)),
        get_world_size=lambda group: 2,
    )
    monkeypatch.setattr(norms, "distributed", messages)

    def run(function):
        def of(number):
            rank.own = number
            return function(number)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(of, range(2)))

    return run


@pytest.fixture
def fused(monkeypatch, host_waits):
    """CUDA's operations of synchronized norms, as the simple ones on CPUs, and the norm that is made of them."""
    for name, function in host_waits.CUDA_ONLY.items():
        monkeypatch.setattr(torch, name.removeprefix("aten::"), function)

    def normalize(norm, x):
        statistics = norm.running_mean, norm.running_var
        return norms._Fused.apply(x, norm.weight, norm.bias, *statistics, norm.eps, norm.momentum, None)

    return normalize


@pytest.mark.parametrize("sizes", [(4, 1), (0, 3), (2, 0)])
@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_two_workers_normalize_as_one_with_all_images(on, sizes, on_two_workers, fused):
    norm = SyncedBatchNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 2, -1]))
        norm.bias.copy_(torch.tensor([1.0, 0, 3]))
    whole = nn.BatchNorm2d(3)
    whole.load_state_dict(norm.state_dict())
    x, own = images(5, sum(sizes)).requires_grad_(), [copy.deepcopy(norm) for _ in sizes]
    expected = whole(x)
    (expected.pow(3) / 9).sum().backward()
    parts = [part.clone().requires_grad_() for part in x.detach().split(sizes)]
    normalize = fused if on == "gpu" else SyncedBatchNorm.forward

    def work(rank):
        found = normalize(own[rank], parts[rank])
        (found.pow(3) / 9).sum().backward()
        return found.detach()

    torch.testing.assert_close(torch.cat(on_two_workers(work)), expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([part.grad for part in parts]), x.grad, rtol=1e-3, atol=1e-4)
    for name, parameter in whole.named_parameters():
        summed = sum(one.get_parameter(name).grad for one in own if one.get_parameter(name).grad is not None)
        torch.testing.assert_close(summed, parameter.grad, rtol=1e-3, atol=1e-3)
    for one in own:
        torch.testing.assert_close(one.running_mean, whole.running_mean)
        torch.testing.assert_close(one.running_var, whole.running_var, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [SyncedBatchNorm, nn.SyncBatchNorm])
def test_no_host_waits_for_a_norm_on_an_accelerator(module, host_waits, in_a_child):
    def count():
        with host_waits.pretending(num_workers=2) as waits:
            norm = module(3).to(host_waits.DEVICE)
            x = images(6).to(host_waits.DEVICE)
            waits.counts.clear()
            norm(x)
            return sum(waits.counts.values())

    assert in_a_child(count) == (3 if module is nn.SyncBatchNorm else 0)  # PyTorch's shows that waits are counted


class OwnNorm(nn.BatchNorm2d):
    """A norm of a class of its own, which is frozen and synchronized in its own way."""

    def frozen(self):
        return nn.Identity()

    def synchronized(self, group):
        return nn.Sequential(self, nn.Identity()) if group is not None else self


@pytest.mark.usefixtures("alone")
def test_norms_of_other_classes_say_themselves_how():
    network = nn.Sequential(OwnNorm(3), nn.Sequential(nn.BatchNorm2d(3)))
    synced = synchronize_norms(copy.deepcopy(network), torch.device("cpu"))
    assert isinstance(synced[0], nn.Sequential)
    assert isinstance(synced[1][0], SyncedBatchNorm)
    assert isinstance(freeze_norms(network)[0], nn.Identity)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("how", [freeze_norms, lambda network: synchronize_norms(network, torch.device("cpu"))])
def test_norms_of_other_classes_are_not_passed_over(how):
    with pytest.raises(NasrayError, match="BatchNorm1d is a batch norm of a class of its own, which cannot be"):
        how(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm1d(3)))
    frozen = freeze_norms(nn.Sequential(nn.BatchNorm2d(3)))
    assert how(frozen)[0] is frozen[0]
