"""Gradient search: alphas and weights move in turn, each by its own optimizer and on images of its own."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nasray.cluster.training import Worker
from nasray.finding import recipe_architecture
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.fad import RelaxedHead
from nasray.options import options_of
from nasray.recipe import load_recipe
from nasray.recipe_options import AlphaOptions, OptimizerOptions
from nasray.spaces import FADSpace, NasrayError
from nasray.training.bilevel import AlphaLearner, alphas_of, collapse, derived, entropy_and_none
from nasray.training.folder import create_folder, last_checkpoint
from nasray.training.learner import Learner
from nasray.training.loop import StoppedError
from nasray.training.preparing import try_out
from nasray.training.setup import make_loop

SPACE = FADSpace(channels=4, in_channels=8, cells=1)
OPTIONS = AlphaOptions(learning_rate=0.01)
WEIGHTS = OptimizerOptions(learning_rate=0.05, weight_decay=0.1, momentum=0.9)


class Toy(nn.Module):
    """A convolution and a relaxed head: images to a loss against their targets."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), RelaxedHead(SPACE)

    def forward(self, images, targets, generator):
        del generator
        classes, boxes = self.head.towers(self.stem(images), 0)
        return {
            "loss_toy": (classes.mean(dim=(1, 2, 3)) + boxes.square().mean(dim=(1, 2, 3)) - targets).square().mean()
        }


class Held:
    """Three batches of two images an epoch, which follow from epoch and place."""

    def __len__(self):
        return 3

    def epoch(self, epoch, first_batch=0):
        for place in range(first_batch, 3):
            generator = torch.Generator().manual_seed(100 * epoch + place)
            yield SimpleNamespace(
                images=torch.randn(2, 3, 6, 6, generator=generator), targets=torch.ones(2) * (epoch + place)
            )


def learners(**options):
    network = Toy().train()
    alphas = AlphaLearner(network, dataclasses.replace(OPTIONS, **options), Held(), per_epoch=4, seed=0)
    return network, alphas, Learner(network, WEIGHTS, lambda _: 1.0)


def state(network, *, of_alphas):
    return {name: value.clone() for name, value in network.state_dict().items() if (".alphas." in name) == of_alphas}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def batch_of(place):
    return next(Held().epoch(7, place))


def test_each_optimizer_holds_what_is_its_own():
    network, alphas, weights = learners()
    own = {id(alpha) for alpha in network.head.alphas.values()}
    held = [
        {id(parameter) for group in each.optimizer.param_groups for parameter in group["params"]}
        for each in (alphas.learner, weights)
    ]
    assert held[0] == own
    assert held[1] == {id(parameter) for parameter in network.parameters()} - own


def test_a_step_of_one_leaves_the_other_alone():
    """Not even weight decay or momentum of the weights reach the alphas."""
    network, alphas, weights = learners()
    for iteration in range(3):
        before = state(network, of_alphas=False)
        moved = state(network, of_alphas=True)
        alphas.step(iteration)
        assert same(before, state(network, of_alphas=False))
        assert not same(moved, state(network, of_alphas=True))
        moved = state(network, of_alphas=True)
        weights.step(batch_of(iteration), iteration, 0)
        assert same(moved, state(network, of_alphas=True))
        assert not same(before, state(network, of_alphas=False))


def gradient(network, batch):
    """Gradient of a batch's loss by the alphas, computed apart."""
    for alpha in network.head.alphas.values():
        alpha.requires_grad_(True)
    loss = network(batch.images, batch.targets, generator=None)["loss_toy"]
    found = torch.autograd.grad(loss, list(network.head.alphas.values()))
    for alpha in network.head.alphas.values():
        alpha.requires_grad_(False)
    return [each.clone() for each in found]


def test_alphas_follow_their_gradient_through_the_weights_as_they_are():
    """On a fixed batch it changes after a step of the weights; the released code's, through a copy, does not."""
    network, alphas, weights = learners(weight_decay=0.0)
    batch = next(Held().epoch(0))
    before = {name: alpha.clone() for name, alpha in network.head.alphas.items()}
    fresh = gradient(network, batch)
    alphas.step(0)
    for (name, alpha), slope in zip(network.head.alphas.items(), fresh, strict=True):
        # Adam's first step is the learning rate along the sign of the gradient.
        torch.testing.assert_close(before[name] - alpha, 0.01 * slope / (slope.abs() + 1e-8), rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        for name, alpha in network.head.alphas.items():
            alpha.copy_(before[name])
    weights.step(batch_of(0), 0, 0)
    changed = gradient(network, batch)
    assert all(not torch.allclose(one, other, rtol=1e-3) for one, other in zip(fresh, changed, strict=True))


def test_weights_alone_move_in_the_warm_up():
    network, alphas, _ = learners(warm_up=0.5)
    before = state(network, of_alphas=True)
    assert alphas.step(0) is None
    assert alphas.step(1) is None
    assert same(before, state(network, of_alphas=True))
    assert alphas.step(2) is not None
    assert alphas.steps == 1


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_search_that_is_continued_goes_on_bit_for_bit(cut):
    """At a place within an epoch of the held-out images, at its end, and in the next one."""
    network, alphas, _ = learners()
    for iteration in range(7):
        alphas.step(iteration)
    again, first, _ = learners()
    for iteration in range(cut):
        first.step(iteration)
    saved, kept = again.state_dict(), first.state_dict()
    third, rest, _ = learners()
    third.load_state_dict(saved)
    rest.load_state_dict(kept)
    for iteration in range(cut, 7):
        rest.step(iteration)
    assert same(state(network, of_alphas=True), state(third, of_alphas=True))


def test_entropy_and_the_share_of_none():
    even = {"box": [[0.25] * 4, [0.25] * 4]}
    assert entropy_and_none(even) == (pytest.approx(1.3863, abs=1e-4), 0.25)
    assert entropy_and_none({"box": [[0.0, 1.0]], "class": [[1.0, 0.0]]}) == (0.0, 0.5)


def shares(*nones, groups=1):
    """Of each group nine edges of three choices, `none` with these shares in turn."""
    edges = [[(1 - nones[place % len(nones)]) / 2] * 2 + [nones[place % len(nones)]] for place in range(9)]
    return {f"{group}": edges for group in range(groups)}


@pytest.mark.parametrize(
    ("found", "chosen", "reason"),
    [
        (shares(0.5, groups=2), "ab" * 6, None),
        (shares(0.51, groups=2), "ab" * 6, "none has 0.51 of an average edge"),
        (shares(0.9, 0.1, 0.2, groups=2), "ab" * 6, None),  # large on some edges alone
        ({**shares(0.2), **dict.fromkeys(["more"], shares(0.9)["0"])}, "ab" * 6, "none has 0.55 of an average edge"),
        (shares(0.1, groups=2), "a" * 9 + "bcd", None),
        (shares(0.1, groups=2), "a" * 10 + "bc", "a is on 10 of 12 edges"),
        (shares(0.1, groups=2), "a" * 12, "a is on 12 of 12 edges"),
        (shares(0.1), "aaaabc", None),
        (shares(0.1), "aaaaab", "a is on 5 of 6 edges"),
        (shares(0.51), "aaaaaa", "none has 0.51 of an average edge"),
    ],
)
def test_a_search_has_collapsed_where_none_or_one_transformation_is_nearly_everywhere(found, chosen, reason):
    assert collapse(found, list(chosen)) == reason


def test_what_is_derived_is_what_the_alphas_stand_for():
    network = Toy()
    row, found = derived(network)
    assert list(row) == list(network.head.derive())
    for name, alphas in network.head.alphas.items():
        assert torch.tensor(found[name]).allclose(alphas.detach().softmax(dim=1))
    with pytest.raises(NasrayError, match="alpha is of relaxed supernets"):
        derived(nn.Linear(2, 2))


def test_alphas_are_of_relaxed_supernets():
    with pytest.raises(NasrayError, match="alpha is of relaxed supernets"):
        alphas_of(nn.Linear(2, 2))


# ---- as a training -----------------------------------------------------------------------------------------------


def search_recipe(**changes):
    recipe = load_recipe("shapes-detect")
    return dataclasses.replace(
        recipe,
        detector=options_of(DETECTORS, "fcos", channels=8),
        holdout=changes.pop("holdout", 12),
        batch_size=4,
        alpha=AlphaOptions(learning_rate=0.01),
        schedule=dataclasses.replace(recipe.schedule, epochs=0.2, milestones=(), warmup_iterations=1),
        augmentation=dataclasses.replace(recipe.augmentation, short_side=(64,), long_side=96),
        log_every=1,
        evaluate_every=10,
        **changes,
    )


def begun(folder, recipe):
    architecture = recipe_architecture(recipe, supernet_architecture(FADSpace(channels=4)))
    create_folder(folder, try_out(recipe, architecture))
    return folder


def alphas_in(folder):
    model = torch.load(last_checkpoint(folder), weights_only=False)["model"]
    return {name: value for name, value in model.items() if ".alphas." in name}


def stopping(after):
    """A worker that is asked to stop after some steps."""
    asked = itertools.count(1)
    return Worker(should_stop=lambda: next(asked) >= after)


@pytest.mark.slow
def test_a_training_that_is_stopped_twice_has_the_same_alphas(tmp_path):
    recipe = search_recipe()
    whole, stopped = begun(tmp_path / "whole", recipe), begun(tmp_path / "stopped", recipe)
    make_loop(recipe, whole, Worker()).run()
    for after in (3, 2):
        with pytest.raises(StoppedError):
            make_loop(recipe, stopped, stopping(after)).run()
    make_loop(recipe, stopped, Worker()).run()
    assert same(alphas_in(whole), alphas_in(stopped))
    assert not same(alphas_in(whole), {name: value * 0 for name, value in alphas_in(whole).items()})
    first = json.loads((whole / "log.jsonl").read_text().splitlines()[0])
    assert [len(edge) for edge in first["shares"]["box"]] == [13] * 9


def test_images_must_be_held_out_and_all_paths_are_trained():
    architecture = recipe_architecture(search_recipe(), supernet_architecture(FADSpace(channels=4)))
    with pytest.raises(
        NasrayError, match="alpha moves on images that the weights do not see: set holdout, such as to half, 80"
    ):
        try_out(search_recipe(holdout=0), architecture)
    with pytest.raises(NasrayError, match="alpha trains all paths at once"):
        try_out(search_recipe(within={"first": (0,)}), architecture)
