"""What a rank.json says of a run, its own or another's, and of which runs it says nothing."""

import json

import pytest

from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.measured import (
    chance_of_better,
    describe_measured,
    known_agreement,
    own_name,
    proxy_options,
    read_rank,
    score_options,
)
from nasray.recipe import Recipe
from nasray.scores.ranking import rank_agreement
from nasray.spaces import BasicSpace, NasrayError, ShuffleNetSpace

RECIPE = Recipe(name="short", data="cells.yaml")
CONTENT = {
    "name": "tiny",
    "evaluations": 64,
    "space": {"name": "basic", "max_width": 32},
    "evaluator": {"name": "log-width"},
    "budget": {"gmacs": 2.0},
}


def plan_of(**changes):
    return parse_plan({**CONTENT, **changes}, "tiny")


def measured(path, plan, num=12, **changes):
    """A run whose rank.json holds so many architectures."""
    folder = RunFolder.create(path, describe_experiment(plan.experiment))
    (path / "rank").mkdir()
    names = (own_name(plan), "zen", "gmacs")
    result = {
        "architectures": [{"id": str(n), "mAP": n / 20, **dict.fromkeys(names, n / 2)} for n in range(num)],
        "agreement": {name: rank_agreement(range(num), range(num)) for name in names},
        "random": {"mean": 0.2, "sd": 0.1, "num": num},
        "measured": describe_measured(plan, folder, RECIPE),
    }
    (path / "rank" / "rank.json").write_text(json.dumps({**result, **changes}))
    return folder


def test_a_chance_is_half_of_one_and_tau():
    assert [chance_of_better(tau) for tau in (-1.0, 0.0, 0.5, 1.0)] == [0.0, 0.5, 0.75, 1.0]
    # Of all pairs of a ranking without ties, by hand.
    scores, trained = [3, 1, 4, 2, 5, 9, 7, 8], [1, 2, 3, 4, 5, 6, 7, 8]
    pairs = [(a, b) for a in range(8) for b in range(a)]
    right = sum((scores[a] > scores[b]) == (trained[a] > trained[b]) for a, b in pairs) / len(pairs)
    assert chance_of_better(rank_agreement(scores, trained)["kendall"]["value"]) == pytest.approx(right)


def test_a_run_knows_its_own_measurement(tmp_path):
    plan = plan_of()
    known = known_agreement(plan, measured(tmp_path / "run", plan))
    assert known.is_stated
    assert known.found["kendall"]["value"] == pytest.approx(1)
    assert (known.free["num"], known.recipe, known.data, known.budget) == (12, "short", "cells.yaml", {"gmacs": 2.0})
    few = known_agreement(plan, measured(tmp_path / "few", plan, num=5))
    assert not few.is_stated
    assert few.found["num"] == 5
    unmeasured = RunFolder.create(tmp_path / "unmeasured", describe_experiment(plan.experiment))
    assert known_agreement(plan, unmeasured) is None


def test_another_run_may_have_measured_it(tmp_path):
    """Budget, seed, searcher, device and threads may differ; the score, its options and the space may not."""
    folder = measured(tmp_path / "run", plan_of(evaluator={"name": "zen", "image_hw": [224, 224]}))
    for same in (
        plan_of(evaluator={"name": "zen"}, seed=4, budget={"gmacs": 1.0}, searcher={"name": "random"}),
        plan_of(evaluator={"name": "zen", "threads": 2, "device": "cpu"}),
    ):
        assert known_agreement(same, folder, named=True).is_stated
    for message, other in {
        r"measured another space: max_width 32 there, 64 here": plan_of(space={"name": "basic", "max_width": 64}),
        r"did not measure 'log-width', but": plan_of(),
        r"measured 'zen' with other options: batch_size 16 there, 8 here": plan_of(
            evaluator={"name": "zen", "batch_size": 8}
        ),
    }.items():
        assert known_agreement(other, folder) is None
        with pytest.raises(NasrayError, match=message):
            known_agreement(other, folder, named=True)


def test_a_named_measurement_must_be_there(tmp_path):
    plan = plan_of()
    folder = RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment))
    with pytest.raises(NasrayError, match="run holds no measurement"):
        known_agreement(plan, folder, named=True)
    old = measured(tmp_path / "old", plan)
    content = read_rank(old)
    del content["measured"]
    (old.path / "rank" / "rank.json").write_text(json.dumps(content))
    assert known_agreement(plan, old) is None
    with pytest.raises(NasrayError, match="by an earlier version"):
        known_agreement(plan, old, named=True)


def test_which_scores_are_measured_beside_a_runs_own():
    assert list(proxy_options(BasicSpace())) == ["entropy", "zen", "naswot", "synflow", "swap", "aznas"]
    found = proxy_options(ShuffleNetSpace(image_hw=(128, 320)))
    assert found == {name: {"image_hw": (128, 224)} for name in ("zen", "naswot", "synflow", "swap", "aznas")}


def test_a_measurement_says_what_it_is_of(tmp_path):
    plan = plan_of(evaluator={"name": "aznas", "num_references": 8})
    found = describe_measured(plan, RunFolder(tmp_path / "run"), RECIPE)
    assert (found["run"], found["score"], found["data"]) == ("run", "aznas", "cells.yaml")
    assert list(found["scores"]) == ["entropy", "zen", "naswot", "synflow", "swap", "aznas"]
    assert found["scores"]["aznas"] == score_options(plan)
    assert score_options(plan) == {"name": "aznas", "num_references": 8, "image_hw": [224, 224], "batch_size": 16}
    assert found["space"]["max_width"] == 32
    own_scores = describe_measured(plan_of(), RunFolder(tmp_path / "run"), RECIPE)["scores"]
    assert "aznas" not in own_scores, "its sum of ranks is no search's score"


def test_only_scores_without_training_and_supernets_are_measured():
    assert own_name(plan_of()) == "log-width"
    with pytest.raises(NasrayError, match="searches by evaluator 'filter'"):
        own_name(plan_of(evaluator={"name": "filter", "filter": "filter.pt"}))
