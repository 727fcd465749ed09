import copy

import pytest
import torch
from torch import distributed, nn

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
