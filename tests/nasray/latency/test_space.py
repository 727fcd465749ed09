import pickle
import re

import numpy as np
import pytest

from nasray.latency import LatencyCost, Setting
from nasray.latency.correction import Correction
from nasray.loading import parse_plan
from nasray.models.detector_cost import DetectorCost
from nasray.searchers import Evolution
from nasray.spaces import Budget, NasrayError, OFAResNetSpace
from tests.nasray.latency.common import HW, small_space


def test_cost_builds_nothing_before_it_is_asked_and_survives_pickling(cache):
    space = small_space()
    cost = pickle.loads(pickle.dumps(LatencyCost(space, device="cpu")))
    empty = cost(np.empty((0, space.num_genes), dtype=np.int64))
    assert empty["latency_ms"].shape == (0,)
    assert not list(cache.rglob("*.json"))
    population = space.sample(20, np.random.default_rng(0))
    costs = cost(population)
    assert set(costs) == {*space.cost(population), "latency_ms"}
    assert len(list(cache.rglob("*.json"))) == 1
    copy = pickle.loads(pickle.dumps(cost))
    np.testing.assert_array_equal(copy(population)["latency_ms"], costs["latency_ms"])


def test_whole_detectors_are_counted_beside_the_backbones_latency(cache):
    space = small_space()
    rows = space.sample(5, np.random.default_rng(0))
    whole = DetectorCost(space, "yolof", num_classes=3)
    both = LatencyCost(space, cost=whole)
    costs = both(rows)
    assert both.scope == "detector yolof (3 classes)"
    assert (costs["gmacs"] == whole(rows)["gmacs"]).all()
    np.testing.assert_array_equal(costs["latency_ms"], LatencyCost(space)(rows)["latency_ms"])
    assert LatencyCost(space).scope == "backbone"


def test_rows_have_the_latency_of_their_own_resolution(monkeypatch, capsys):
    """A table for each size of images, asked about the rows of that size alone."""

    class Table:
        def __init__(self, image_hw):
            self.setting, self.correction = Setting.here(image_hw, device="cpu"), Correction(1.0, 20.0, 1.0, 12)

        def predict(self, layers):
            return layers.cost()["gmacs"] * 1e3

    made = []

    def measured(self, layers, image_hw):
        made.append(image_hw)
        return Table(image_hw)

    monkeypatch.setattr(LatencyCost, "_measured", measured)
    space = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
    rows = space.sample(30, np.random.default_rng(0))
    cost = LatencyCost(space, device="cpu")
    costs = cost(rows)
    np.testing.assert_array_equal(costs["latency_ms"], costs["gmacs"] * 1e3)
    assert (made, sorted(cost.tables)) == ([(64, 64), (96, 96)], [(64, 64), (96, 96)])
    cost(rows)
    assert len(made) == 2
    assert "is off by more than 10 %" in capsys.readouterr().err


def test_evolution_keeps_a_latency_budget(cache):
    space = small_space()
    cost = LatencyCost(space, device="cpu")
    bound = float(np.median(cost(space.sample(200, np.random.default_rng(0)))["latency_ms"]))

    def run():
        searcher = Evolution(space, budget=Budget({"latency_ms": bound}), cost=LatencyCost(space, device="cpu"))
        asked = []
        for _ in range(4):
            genes = searcher.ask(50).genes
            searcher.tell(genes, {"score": space.cost(genes)["gmacs"]})
            asked.append(genes)
        return np.concatenate(asked)

    genes = run()
    assert (cost(genes)["latency_ms"] <= bound).all()
    np.testing.assert_array_equal(run(), genes)


def test_experiment_with_a_latency_budget(cache):
    searcher = parse_plan(LATENCY, "test").parts.searcher
    assert not list(cache.rglob("*.json"))
    genes = searcher.ask(50).genes
    assert (searcher.cost(genes)["latency_ms"] <= 1.0).all()


LATENCY = {
    "name": "fast", "evaluations": 50, "searcher": {"name": "evolution"}, "budget": {"latency_ms": 1.0},
    "space": {"name": "inverted", "image_hw": list(HW), "kernels": [3], "max_width": 64},
}  # fmt: skip


def test_options_of_latency():
    options = {"device": "cuda", "dtype": "float16", "batch_size": 4, "runtime": "compile", "threads": 2}
    cost = parse_plan(LATENCY | {"latency": options}, "test").parts.searcher.cost
    assert (cost.setting, cost.bound_ms) == (options, 1.0)
    with pytest.raises(NasrayError, match=r"unknown runtime 'onnxruntme'; did you mean 'onnxruntime'\?"):
        parse_plan(LATENCY | {"latency": {"runtime": "onnxruntme"}}, "test")
    with pytest.raises(NasrayError, match=r"latency\.device is for searches with a bound on latency_ms"):
        parse_plan(LATENCY | {"budget": {}, "latency": {"device": "cuda"}}, "test")
    with pytest.raises(NasrayError, match="device"):
        parse_plan(LATENCY | {"latency": {"device": "auto"}}, "test")


def test_says_where_it_was_measured(cache, capsys):
    LatencyCost(small_space())(small_space().sample(3, np.random.default_rng(0)))
    said = capsys.readouterr().err
    assert re.search(
        r"latency_ms: backbone, eager, float32, batch 1, on .+ with \d+ threads?: sums of blocks times 1, ", said
    )
    assert "is off by more than" not in said


def test_says_that_a_space_has_no_layers():
    with pytest.raises(NasrayError, match="has none"):
        LatencyCost(object())
