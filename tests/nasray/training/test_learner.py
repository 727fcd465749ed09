"""One training step on small networks, against PyTorch's own steps written out."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasray.recipe_options import OptimizerOptions
from nasray.spaces import NasrayError
from nasray.training.learner import Learner

OPTIONS = OptimizerOptions(learning_rate=0.1, momentum=0.9, weight_decay=0.01, clip=0.5)


class Colors(nn.Module):
    """Classifies images by their mean color; its dropout and its noise are drawn by the step's seed."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head, self.dropout = nn.Linear(3, 8), nn.Linear(8, 2), nn.Dropout(0.5)

    def forward(self, images, targets, generator=None):
        x = self.dropout(self.backbone(images.mean(dim=(2, 3)) / 255))
        noise = torch.rand(x.shape, generator=generator)
        return {"loss_class": F.cross_entropy(self.head(x), targets), "loss_noise": (x * noise).square().mean()}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Colors()


def batch(seed):
    draw = torch.Generator().manual_seed(seed)
    images = 255 * torch.rand(4, 3, 8, 8, generator=draw)
    return SimpleNamespace(images=images, targets=torch.randint(2, (4,), generator=draw))


def test_a_step_is_forward_backward_clip_and_update():
    one, other = network(), network()
    learner = Learner(one, OPTIONS, lambda iteration: 1 / (1 + iteration))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for iteration in range(3):
        result = learner.step(batch(iteration), iteration, seed=10 + iteration)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + iteration)
        optimizer.zero_grad()
        torch.manual_seed(10 + iteration)
        given = batch(iteration)
        losses = other(given.images, given.targets, torch.Generator().manual_seed(10 + iteration))
        sum(losses.values()).backward()
        norm = nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        optimizer.step()
        assert result.names == ["class", "noise"]
        assert result.losses.tolist() == pytest.approx([value.item() for value in losses.values()])
        assert result.grad_norm.item() == pytest.approx(norm.item())
        assert result.factor == 1 / (1 + iteration)
    assert norm > 0.5, "nothing was clipped"
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_step_follows_from_its_seed_and_leaves_the_global_random_state():
    learners = [Learner(network(), OPTIONS, lambda _: 1.0) for _ in range(3)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses = [learner.step(batch(0), 0, seed).losses for learner, seed in zip(learners, (1, 1, 2), strict=True)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_restored_learner_continues_to_the_bit(precision):
    whole, first, second = network(), network(), network()
    learner = Learner(whole, OPTIONS, lambda _: 1.0, precision=precision)
    for iteration in range(4):
        learner.step(batch(iteration), iteration, iteration)
    half = Learner(first, OPTIONS, lambda _: 1.0, precision=precision)
    for iteration in range(2):
        half.step(batch(iteration), iteration, iteration)
    rest = Learner(second, OPTIONS, lambda _: 1.0, precision=precision)
    second.load_state_dict(first.state_dict())
    rest.load_state_dict(half.state_dict())
    for iteration in range(2, 4):
        rest.step(batch(iteration), iteration, iteration)
    assert not torch.equal(whole.head.weight, first.head.weight)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert half.skips_overflows == (precision == "float16")


def test_only_the_parameters_given_are_moved():
    # Two learners of one network, as bilevel search has them: weights by one, architecture parameters by the other.
    one, options = network(), dataclasses.replace(OPTIONS, clip=None)
    before = {name: value.clone() for name, value in one.state_dict().items()}
    backbone = Learner(one, options, lambda _: 1.0, parameters=one.backbone.parameters())
    head = Learner(one, options, lambda _: 1.0, parameters=one.head.parameters())
    backbone.step(batch(0), 0, 0)
    moved = {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"backbone.weight", "backbone.bias"}
    norm = head.step(batch(1), 0, 0).grad_norm
    gradients = [parameter.grad.flatten() for parameter in one.head.parameters()]
    assert norm.item() == pytest.approx(torch.cat(gradients).norm().item())
    moved = {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(before)


def test_a_network_without_anything_to_train_is_refused():
    with pytest.raises(NasrayError, match="everything is frozen"):
        Learner(network().requires_grad_(False), OPTIONS, lambda _: 1.0)
