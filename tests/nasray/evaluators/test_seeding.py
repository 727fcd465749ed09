"""Evaluators that compute on a device: which random numbers they compute with, and that every device agrees."""

import numpy as np
import pytest
import torch

from nasray.evaluators import EVALUATORS, entropy, proxies
from nasray.evaluators.seeding import generator_of
from nasray.scores import naswot, sampled, synflow, zen
from nasray.spaces import BasicSpace

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = BasicSpace(max_width=32, max_depth=1)
SMALL = {"image_hw": (32, 32)}
DEVICES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]


def make_evaluators(device):
    sizes = {"zen": {"batch_size": 4}, "naswot": {"batch_size": 4}}
    names = ("sampled-entropy", "zen", "naswot", "synflow")
    return {name: EVALUATORS[name](SPACE, device=device, **SMALL, **sizes.get(name, {})) for name in names}


@pytest.mark.parametrize("name", ["sampled-entropy", "zen", "naswot", "synflow"])
def test_numbers_are_drawn_on_the_cpu_whatever_the_device(name, monkeypatch):
    drawn = []

    def score(*_, generator, **__):
        drawn.append(torch.randn(3, generator=generator, device=generator.device))
        return 0.0

    for module, function in ((sampled, "sampled_entropy"), (zen, "zen_score"), (naswot, "naswot_score"),
                             (synflow, "synflow_score")):  # fmt: skip
        monkeypatch.setattr(module, function, score)
    # A device without memory stands for a GPU: what is drawn there would be drawn by its own rules.
    for device in ("cpu", "meta"):
        for module in (entropy, proxies):
            monkeypatch.setattr(module, "choose_device", lambda _, device=device: torch.device(device))
        make_evaluators("auto")[name](SPACE.start())
    assert drawn[1].device.type == "cpu"
    assert torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_gives_the_score_of_the_cpu(device, exact_on_gpus):
    genes = SPACE.sample(2, np.random.default_rng(0))
    for name, evaluator in make_evaluators(device).items():
        expected = make_evaluators("cpu")[name](genes)["score"]
        np.testing.assert_allclose(evaluator(genes)["score"], expected, rtol=1e-3, err_msg=name)
        assert len(set(expected.tolist())) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_the_random_state_of_the_user_is_left_alone(device):
    def state():
        gpu = torch.cuda.get_rng_state() if device == "cuda" else torch.empty(0)
        return [torch.get_rng_state(), gpu]

    before = state()
    for evaluator in make_evaluators(device).values():
        evaluator(SPACE.start())
    assert all(torch.equal(x, y) for x, y in zip(before, state(), strict=True))


def test_seed_and_architecture_both_decide_what_is_drawn():
    rows = SPACE.sample(3, np.random.default_rng(0))
    drawn = {
        float(torch.rand((), generator=generator_of(seed, SPACE.to_architecture(row))))
        for row in rows
        for seed in (0, 1, 2, 2**62)
    }
    assert len(drawn) == 12
    scores = [EVALUATORS["zen"](SPACE, seed=seed, batch_size=2, **SMALL)(rows)["score"].tolist() for seed in (0, 1)]
    assert scores[0] != scores[1]
