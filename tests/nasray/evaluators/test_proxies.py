"""Proxies as evaluators: their scores are those of the functions, for a stated number of threads."""

import numpy as np
import pytest
import torch

from nasray.evaluators import NASWOT, SynFlow, ZenScore
from nasray.evaluators.seeding import generator_of
from nasray.models import build
from nasray.scores.naswot import naswot_score
from nasray.scores.synflow import synflow_score
from nasray.scores.zen import zen_score
from nasray.spaces import BasicSpace, NasrayError

SPACE = BasicSpace(max_width=32, max_depth=1)
HW = (32, 32)


@pytest.mark.parametrize(
    ("kind", "function", "options"),
    [
        (ZenScore, zen_score, {"batch_size": 4}),
        (NASWOT, naswot_score, {"batch_size": 4}),
        (SynFlow, synflow_score, {}),
    ],
)
def test_scores(kind, function, options):
    row = SPACE.sample(1, np.random.default_rng(3))
    (score,) = kind(SPACE, seed=7, image_hw=HW, **options)(row)["score"]
    generator = generator_of(7, SPACE.to_architecture(row[0]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        network = build(SPACE.to_architecture(row[0]))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    assert score == function(network, generator=generator, image_hw=HW, **options)
    torch.set_num_threads(before)


def test_the_number_of_threads_is_the_evaluators(monkeypatch):
    from nasray.scores import synflow

    seen = []
    monkeypatch.setattr(synflow, "synflow_score", lambda *_, **__: seen.append(torch.get_num_threads()) or 0.0)
    before = torch.get_num_threads()
    for threads in (1, 2):
        SynFlow(SPACE, threads=threads, image_hw=HW)(SPACE.start())
    assert seen == [1, 2]
    assert torch.get_num_threads() == before


def test_what_is_out_of_range():
    with pytest.raises(NasrayError, match="batch_size is a whole number from 1"):
        ZenScore(SPACE, batch_size=0)
    with pytest.raises(NasrayError, match="image size is height and width"):
        SynFlow(SPACE, image_hw=(-1, 32))
