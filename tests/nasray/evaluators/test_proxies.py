"""Proxies as evaluators: their scores are those of the functions, for a stated number of threads."""

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from nasray.evaluators import AZNAS, EVALUATORS, NASWOT, SWAP, SynFlow, ZenScore
from nasray.evaluators.seeding import generator_of
from nasray.loading import parse_plan
from nasray.models import build
from nasray.scores.aznas import reference_score
from nasray.scores.naswot import naswot_score
from nasray.scores.swap import swap_score
from nasray.scores.synflow import synflow_score
from nasray.scores.zen import zen_score
from nasray.searchers import RandomSearch
from nasray.spaces import BasicSpace, Budget, NasrayError

SPACE = BasicSpace(max_width=32, max_depth=1)
HW = (32, 32)


@pytest.mark.parametrize(
    ("kind", "function", "options"),
    [
        (ZenScore, zen_score, {"batch_size": 4}),
        (NASWOT, naswot_score, {"batch_size": 4}),
        (SynFlow, synflow_score, {}),
        (SWAP, swap_score, {"batch_size": 4}),
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


@pytest.mark.parametrize("name", ["zen", "naswot", "synflow", "swap", "aznas"])
def test_experiments_name_them(name):
    content = {"name": "x", "space": {"name": "basic", "max_width": 32}, "budget": {"gmacs": 3}, "seed": 5}
    plan = parse_plan({**content, "evaluator": {"name": name, "image_hw": [32, 32]}}, "x")
    evaluator = pickle.loads(pickle.dumps(plan.parts.evaluator))
    assert (type(evaluator), evaluator.seed, evaluator.image_hw) == (EVALUATORS[name], 5, (32, 32))


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
    with pytest.raises(NasrayError, match="width_params_m is around target_params_m, which is not set"):
        SWAP(SPACE, width_params_m=1.0)
    with pytest.raises(NasrayError, match="target_params_m"):
        SWAP(SPACE, target_params_m=math.nan)
    with pytest.raises(NasrayError, match="num_references is a whole number from 2"):
        AZNAS(SPACE, num_references=1)


def test_a_regularized_score_is_greatest_at_its_size():
    genes = SPACE.sample(1, np.random.default_rng(3))
    params_m = float(SPACE.cost(genes)["params_m"][0])
    options = {"image_hw": HW, "batch_size": 4}
    (plain,) = SWAP(SPACE, **options)(genes)["score"]

    def share(**size):
        return SWAP(SPACE, **options, **size)(genes)["score"][0] / plain

    assert share(target_params_m=params_m, width_params_m=0.1) == pytest.approx(1)
    assert share(target_params_m=params_m + 0.1, width_params_m=0.1) == pytest.approx(math.exp(-1))
    assert share(target_params_m=2 * params_m) == pytest.approx(math.exp(-0.25))


def test_candidates_of_aznas_do_not_depend_on_each_other():
    budget = Budget(upper={"gmacs": float(np.median(SPACE.cost(SPACE.sample(64, np.random.default_rng(0)))["gmacs"]))})
    genes = RandomSearch(SPACE, budget=budget, seed=9).ask(4).genes
    options = {"image_hw": HW, "batch_size": 2, "num_references": 4, "budget": budget}
    evaluator = AZNAS(SPACE, **options)
    found = evaluator(genes)
    assert list(found) == ["score", "expressivity", "progressivity", "trainability", "complexity"]
    assert found["complexity"].tolist() == SPACE.cost(genes)["gmacs"].tolist()
    again = AZNAS(SPACE, **options)(genes[2:0:-1])
    for name, values in found.items():
        assert again[name].tolist() == values[2:0:-1].tolist(), name
    # The references are the architectures that a random search of the same seed begins with.
    references = evaluator.measure(RandomSearch(SPACE, budget=budget, seed=0).ask(4).genes)
    expected = reference_score(*(np.stack(list(one.values())[-4:], axis=1) for one in (found, references)))
    assert found["score"].tolist() == expected.tolist()


def test_aznas_needs_multiply_adds():
    class Free(BasicSpace):
        def cost(self, population):
            return {"params_m": super().cost(population)["params_m"]}

    assert AZNAS.fits(SPACE) is None
    assert AZNAS.fits(Free()) == "needs a space that counts multiply-adds"
    assert {"zen", "naswot", "synflow", "swap", "aznas", "entropy"} <= {
        name for name in EVALUATORS if getattr(EVALUATORS.part(name), "zero_shot", False)
    }


PROGRAM = """
import json
import numpy as np
from nasray.evaluators import AZNAS, SWAP
from nasray.spaces import BasicSpace
space = BasicSpace(max_width=32, max_depth=1)
genes = space.sample(2, np.random.default_rng(3))
options = {"image_hw": (32, 32), "batch_size": 3, "device": "cpu"}
found = [AZNAS(space, num_references=4, **options)(genes), SWAP(space, **options)(genes)]
print(json.dumps([{name: [float(value).hex() for value in values] for name, values in one.items()} for one in found]))
"""


@pytest.mark.slow  # imports PyTorch once more
def test_scores_are_the_same_in_another_process(capsys):
    exec(PROGRAM, {})
    here = json.loads(capsys.readouterr().out)
    there = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(there.stdout) == here
