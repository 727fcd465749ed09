"""What budgets count: the space's own costs, or the whole detector of the experiment's recipe."""

import json

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES, compose
from nasray.cli import main
from nasray.cluster import RunFolder
from nasray.counting import CountedOptions, costs_of
from nasray.experiment import describe_experiment
from nasray.loading import load_plan, parse_plan, plan_of_run
from nasray.models.detector_cost import DetectorCost
from nasray.reports import report_figures
from nasray.spaces import Architecture, BasicSpace, FADSpace, NasrayError, ShuffleNetSpace
from nasray.stages import planned_stages
from tests.nasray.reports.common import write_run

SMALL = {"name": "basic", "max_width": 64, "max_depth": 2, "parts": [1, 1, 1, 1], "image_hw": [128, 128]}
ROWS = parse_plan({"name": "x", "space": SMALL}, "x").parts.space.sample(20, np.random.default_rng(0))


@pytest.fixture
def content(tmp_path):
    """An experiment that counts the detector of a recipe whose data are not there."""
    (tmp_path / "recipe.yaml").write_text("detector: {name: yolof, channels: 32}\ndata: absent.yaml\n")
    return {
        "name": "whole", "evaluations": 64, "batch_size": 32, "recipe": str(tmp_path / "recipe.yaml"),
        "costs": "detector", "space": SMALL, "searcher": {"name": "random"}, "evaluator": {"name": "log-width"},
    }  # fmt: skip


def planned(content, **changes):
    return parse_plan({**content, **changes}, "test")


@pytest.fixture
def data(tmp_path):
    """A data set of three classes."""
    categories = [{"id": index, "name": name} for index, name in enumerate("abc", 1)]
    content = {"images": [], "annotations": [], "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(content))
    path = tmp_path / "data.yaml"
    path.write_text("format: coco\ntrain: {images: images, annotations: train.json}\n")
    return str(path)


def first_gene(genes):
    return genes[:, 0] / 8.0


def is_cost_of(plan, num_classes, detector="yolof", **options):
    """Whether an experiment counts this detector."""
    wanted = DetectorCost(plan.parts.space, detector, num_classes=num_classes, **options)(ROWS)
    costs = plan.parts.searcher.cost(ROWS)
    return all((costs[name] == wanted[name]).all() for name in wanted)


def test_budgets_and_costs_are_of_the_recipes_detector(content):
    plan = planned(content)
    assert is_cost_of(plan, 80, channels=32)
    bound = float(np.median(plan.parts.searcher.cost(ROWS)["gmacs"]))
    searcher = planned(content, budget={"gmacs": bound}).parts.searcher
    assert (searcher.cost(searcher.ask(32).genes)["gmacs"] <= bound).all()


def test_without_costs_a_recipe_changes_nothing(content):
    for costs in (None, "backbone"):
        plan = planned(content, costs=costs)
        assert plan.parts.searcher.cost == plan.parts.cost == plan.parts.space.cost
        assert plan.experiment.counted == CountedOptions()


def test_classes_are_those_that_are_given_or_of_the_data_or_of_coco(content, data, tmp_path):
    assert is_cost_of(planned(content, data=data), 3, channels=32)
    assert is_cost_of(planned(content, data=data, counted={"classes": 5}), 5, channels=32)
    (tmp_path / "recipe.yaml").write_text(f"detector: {{name: centernet}}\ndata: {data}\n")
    assert is_cost_of(planned(content), 3, "centernet")
    assert is_cost_of(planned(content, data=str(tmp_path / "nothing.yaml")), 80, "centernet")
    (tmp_path / "broken.yaml").write_text("format: coco\n")
    with pytest.raises(NasrayError, match="names no split"):
        planned(content, data=str(tmp_path / "broken.yaml"))


def test_a_run_counts_the_same_whatever_becomes_of_recipe_and_data(content, data, tmp_path):
    begun = planned(content, data=data)
    assert begun.experiment.counted.classes == 3
    assert begun.experiment.counted.detector.channels == 32
    run = RunFolder.create(tmp_path / "run", describe_experiment(begun.experiment))
    (tmp_path / "recipe.yaml").write_text("detector: {name: gfl}\n")
    (tmp_path / "data.yaml").unlink()
    resumed = plan_of_run(run)
    assert resumed.experiment == begun.experiment
    assert is_cost_of(resumed, 3, channels=32)
    (tmp_path / "recipe.yaml").unlink()
    assert is_cost_of(plan_of_run(run), 3, channels=32)


def test_a_run_says_what_it_counted(content, data, tmp_path, capsys):
    begun = planned(content, data=data, reference="resnet18")
    parts = begun.parts
    run = write_run(tmp_path / "run", parts.searcher, 64, describe_experiment(begun.experiment), evaluator=first_gene)
    scope = f"detector yolof (recipe {content['recipe']}, 3 classes)"
    assert run.read_best()["cost_scope"]["scope"] == scope
    entry = run.read_entries()[0]
    assert entry.costs == parts.cost.of(entry.architecture)
    assert main(["front", str(run.path)]) == 0
    assert f"costs are of the {scope} at 128x128 pixels" in capsys.readouterr().out
    figures = report_figures(run, parts.space, reference=ARCHITECTURES["resnet18"])
    assert figures["reference"]["costs"] == parts.cost.of(ARCHITECTURES["resnet18"])
    assert figures["cost_scope"]["scope"] == scope


def test_random_scores_of_a_report_are_within_the_budget_of_the_run(content, tmp_path):
    """The budget of a whole detector: as a budget of backbones it would refuse fewer."""
    loose = planned(content).parts
    costs = loose.cost(loose.space.sample(500, np.random.default_rng(1)))
    bound = float(np.quantile(costs["gmacs"], 0.1))
    begun, seen = planned(content, budget={"gmacs": bound}), []

    class Evaluator:
        closed_form = True

        def __call__(self, genes):
            seen.append(genes)
            return {"score": first_gene(genes)}

    searcher = begun.parts.searcher
    run = write_run(tmp_path / "run", searcher, 64, describe_experiment(begun.experiment), evaluator=first_gene)
    report_figures(run, searcher.space, evaluator=Evaluator())
    assert searcher.cost(np.concatenate(seen))["gmacs"].max() <= bound


def test_a_plan_names_the_detector(content):
    [search] = planned_stages(planned(content))
    assert search.work.text.endswith(f"; costs of the detector yolof (recipe {content['recipe']}, 80 classes)")


def test_the_profile_of_a_space_is_of_the_detector(content, capsys):
    given = ["--costs", "detector", "--recipe", content["recipe"], "--counted.classes", "5", "--budget.gmacs", "0.3"]
    profiles = []
    for words in (given, []):
        assert main(["list", "spaces", "shufflenet", "--space.image-hw", "128x128", *words, "--json"]) == 0
        profiles.append(json.loads(capsys.readouterr().out)["profile"])
    profile, own = profiles
    assert profile["cost_scope"] == f"detector yolof (recipe {content['recipe']}, 5 classes)"
    space = ShuffleNetSpace(image_hw=(128, 128))
    rows = space.sample(1, np.random.default_rng(0))
    whole, backbone = DetectorCost(space, "yolof", num_classes=5, channels=32)(rows), space.cost(rows)
    for name in ("gmacs", "params_m"):
        more = profile["costs"][name]["median"] - own["costs"][name]["median"]
        assert more == pytest.approx(whole[name][0] - backbone[name][0])
    assert profile["costs"]["layers"] == own["costs"]["layers"]


def test_costs_of_what_cannot_be_counted_are_left_out(content):
    parts = planned(content).parts
    for cost in (parts.space.cost, parts.cost):
        assert costs_of(ARCHITECTURES["basic-tiny"], cost, parts.space).keys() == {"gmacs", "params_m", "layers"}
    supernet = Architecture.create("supernet", {"space": "shufflenet"})
    assert costs_of(supernet, parts.space.cost, parts.space) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"recipe": None},
            "the detector of the experiment's `recipe`, which is not set. Set it",
        ),
        ({"recipe": "detnas-imagenet"}, "detnas-imagenet' is of classification. Name one of detection"),
        ({"recipe": "maedet-fcs-3x"}, "unknown recipe 'maedet-fcs-3x'; did you mean 'maedet-fcos-3x'?"),
        ({"costs": "detectr"}, "costs: 'detectr' is not one of backbone, detector; did you mean 'detector'?"),
        ({"space": {**SMALL, "image_hw": [128, 130]}}, "multiples of 32, got 128x130. Set space.image_hw to 128x160"),
        ({"costs": None, "counted": {"classes": 3}}, "Set costs to detector, or leave counted out"),
        ({"counted": {"classes": 0}}, "counted.classes: Input should be greater than or equal to 1, got 0"),
        ({"counted": {"detector": {"name": "fcs"}}}, "unknown detector 'fcs'; did you mean 'fcos'?"),
        ({"counted": {"detector": {"name": "fcos", "width": 3}}}, "detector 'fcos' has no option 'width'"),
    ],
)
def test_mistakes_are_one_line(content, changes, message):
    with pytest.raises(NasrayError, match=message.replace("?", r"\?")) as caught:
        planned(content, **changes)
    assert "\n" not in str(caught.value)


def test_the_scope_of_another_space_is_not_the_backbone(content, monkeypatch):
    monkeypatch.setattr(BasicSpace, "cost_scope", "head")
    with pytest.raises(NasrayError, match=r"costs: backbone, but space 'basic' counts the head. Leave costs out"):
        planned(content, costs="backbone")


def test_the_command_line_names_a_recipe_of_ours():
    plan = load_plan("maedet-tiny", ["--costs", "detector", "--recipe", "maedet-fcos-3x"])
    assert plan.parts.cost.scope == "detector fcos (recipe maedet-fcos-3x, 80 classes)"


def test_a_head_is_counted_by_its_space():
    space = FADSpace()
    paper = ARCHITECTURES["fad-paper"]
    found = costs_of(paper, space.cost, space)
    assert found == {name: value[0] for name, value in space.cost(space.from_architecture(paper)[None]).items()}
    assert costs_of(paper, space.cost, FADSpace(channels=64)) == {}
    assert costs_of(compose({"backbone": ARCHITECTURES["resnet18"], "head": paper}), space.cost, space) == {}
