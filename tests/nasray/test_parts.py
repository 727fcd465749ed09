"""The parts of an experiment are made of what it says; what does not go together is refused."""

import subprocess
import sys

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.counting import costs_of
from nasray.evaluators import EVALUATORS
from nasray.experiment import parse_experiment
from nasray.loading import load_plan, parse_plan
from nasray.parts import make_parts, why_unfit
from nasray.spaces import BottleneckSpace, FADSpace, NasrayError, ShuffleNetSpace
from nasray.stages import make_plan


def experiment(**content):
    return parse_experiment({"name": "x", **content}, "test")


def parts(**content):
    return make_parts(experiment(**content))


def test_defaults_that_docs_promise():
    """An experiment of a budget alone is a coarse-to-fine search of bottlenecks by their entropy."""
    found = parts(budget={"gmacs": 20}).experiment
    assert (found.space.name, found.searcher.name, found.evaluator.name) == ("bottleneck", "coarse-to-fine", "entropy")


def test_searchers_get_space_budget_objectives_and_seed():
    searcher = parts(
        seed=3, evaluations=70, minimize=["gmacs"], searcher={"name": "random"}, budget={"gmacs": 50, "min_gmacs": 9}
    ).searcher
    assert [(one.name, one.direction) for one in searcher.objectives] == [("score", "max"), ("gmacs", "min")]
    assert (searcher.budget.upper, searcher.budget.lower) == ({"gmacs": 50}, {"gmacs": 9})
    assert searcher.evaluations == 70
    assert searcher.rng.bit_generator.state == np.random.default_rng(3).bit_generator.state


def test_evaluators_get_the_seed_where_they_draw():
    assert parts(seed=5, evaluator={"name": "zen"}).evaluator.seed == 5
    assert not hasattr(parts(seed=5).evaluator, "seed")


def test_references_are_of_the_runs_budget():
    evaluator = parts(seed=5, budget={"gmacs": 50}, evaluator={"name": "aznas"}).evaluator
    assert (evaluator.budget.upper, evaluator.seed) == ({"gmacs": 50}, 5)
    assert evaluator.cost(evaluator.space.start()).keys() == {"gmacs", "params_m", "layers"}


def test_what_a_part_says_about_a_space():
    assert [name for name in EVALUATORS if why_unfit(EVALUATORS[name], ShuffleNetSpace()) is None] == [
        "zen", "naswot", "synflow", "swap", "aznas", "path", "filter",
    ]  # fmt: skip
    reason = why_unfit(EVALUATORS["path"], BottleneckSpace())
    assert reason.startswith("needs a supernet; there are those of shufflenet, ofa-resnet")
    assert why_unfit(EVALUATORS["path"], FADSpace()) is None
    message = "evaluator 'log-width' is defined for staged spaces; space 'shufflenet' does not fit. Take one of zen"
    with pytest.raises(NasrayError, match=message):
        parts(space={"name": "shufflenet"}, evaluator={"name": "log-width"})
    with pytest.raises(
        NasrayError, match=r"'zen' scores backbones; space 'fad' does not fit\. Take one of path, filter"
    ):
        parts(space={"name": "fad"}, evaluator={"name": "zen"})


def test_defaults_are_written_out():
    found = parse_plan({"name": "x", "evaluations": 300, "searcher": {"name": "evolution"}}, "test").experiment
    assert (found.batch_size, found.in_flight) == (4, 2)
    assert (found.searcher.population_size, found.searcher.parents, found.searcher.mutation) == (50, 10, 0.5)
    assert make_plan(found).experiment == found


def test_the_space_is_that_of_the_options():
    space = parts(space={"name": "basic", "kernels": [5], "image_hw": 96}).space
    assert (space.family, space.kernels, space.image_hw) == ("basic", (5,), (96, 96))


def test_a_closed_form_search_imports_no_torch():
    """Nor anything that reads data, before a search begins."""
    code = """
import sys
from nasray.cli import make_parser
from nasray.cli.parsing import parse_arguments
from nasray.loading import load_plan
known = parse_arguments(make_parser(), ["search", "maedet-m", "--searcher.name", "evolution"])
plan = load_plan(known.experiment, known.overrides)
plan.parts.searcher.check_feasible()
print(sorted({"torch", "torchvision", "optuna", "ray", "nasray.data"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_named_network_is_scaled_to_the_budget():
    for name in ("detnas-300m-tiny", "detofa-tiny"):  # which count the backbone, and the detector
        parts = load_plan(name, ["--budget.gmacs", "0.04"]).parts
        scaled = parts.named("resnet18@budget")
        assert 0.037 < costs_of(scaled, parts.cost, parts.space)["gmacs"] <= 0.04
        assert (scaled.family, [stage["depth"] for stage in scaled.spec["stages"]]) == ("basic", [2, 2, 2, 2])
    assert parts.named("resnet18") == ARCHITECTURES["resnet18"]
    within = load_plan("detofa-tiny", ["--budget.gmacs", "0.04", "--budget.params_m", "0.2"]).parts
    narrower = costs_of(within.named("resnet18@budget"), within.cost, within.space)
    assert narrower["gmacs"] < 0.037
    assert 0.19 < narrower["params_m"] <= 0.2


@pytest.mark.parametrize(
    ("name", "budget", "message"),
    [
        ("resnet18@budget", [], r"which has no upper bound of gmacs or params_m .* resnet18@0.5"),
        ("resnet18@budget", ["--budget.gmacs", "0.0001"], "resnet18@budget: the narrowest scaling costs .* Loosen"),
        ("resnet19@budget", ["--budget.gmacs", "0.04"], "unknown architecture 'resnet19'; did you mean 'resnet18'"),
        ("spos-imagenet@budget", ["--budget.gmacs", "0.04"], "family shufflenet has no stem and residual stages"),
    ],
)
def test_what_cannot_be_scaled_to_the_budget_is_refused(name, budget, message):
    with pytest.raises(NasrayError, match=message):
        load_plan("detofa-tiny", budget).parts.named(name)


def test_random_architectures_are_within_the_budget_and_the_first_ones_stay():
    tiny = load_plan("detnas-300m-tiny")
    found = tiny.parts.random_architectures(12, 0)
    assert tiny.parts.random_architectures(5, 0) == found[:5]
    assert tiny.parts.random_architectures(12, 1) != found
    assert len({architecture.id for architecture in found}) == 12
    space = tiny.parts.space
    costs = [float(space.cost(space.from_architecture(each)[None])["gmacs"][0]) for each in found]
    assert max(costs) <= tiny.experiment.budget.gmacs
    small = load_plan("detnas-300m-tiny", ["--budget.gmacs", "0.0026"])
    with pytest.raises(NasrayError, match=r"1000 random architectures: within the budget there are \d+\. Ask for"):
        small.parts.random_architectures(1000, 0)
