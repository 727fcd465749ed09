import dataclasses
import shutil

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.cluster import RunFolder
from nasray.evaluators import ClosedFormEntropy
from nasray.reports.sections.outcome import (
    NUM_RANDOM,
    outcome_section,
    random_scores,
    reference_figures,
    trained_figures,
)
from nasray.searchers import RandomSearch
from tests.nasray.reports.common import write_training


def test_the_reference_is_compared_at_its_own_cost(staged):
    found = reference_figures(staged)
    assert found["score"] is None, "without an evaluator it is not known"
    history = staged.folder.read_history()
    within = history.costs["gmacs"] <= found["costs"]["gmacs"]
    assert found["rival"]["metrics"]["score"] == np.nanmax(history.metrics["score"][within])
    assert found["rival"]["costs"]["gmacs"] <= found["costs"]["gmacs"]
    # resnet50 has shortcuts that this space has not: it has costs, and no score.
    evaluator = ClosedFormEntropy(staged.space)
    foreign = reference_figures(dataclasses.replace(staged, evaluator=evaluator, reference=ARCHITECTURES["resnet50"]))
    assert foreign["score"] is None
    assert foreign["costs"]["params_m"] == pytest.approx(23.5, abs=0.1)
    assert reference_figures(dataclasses.replace(staged, reference=None)) is None


def test_chance_is_drawn_within_the_budget_where_a_score_takes_a_moment(staged):
    evaluator = ClosedFormEntropy(staged.space)
    found = random_scores(dataclasses.replace(staged, evaluator=evaluator))
    genes = RandomSearch(staged.space, budget=staged.run.budget, seed=0).ask(NUM_RANDOM).genes
    scores = evaluator(genes)["score"]
    assert (staged.space.cost(genes)["gmacs"] <= 91.0).all()
    assert (found["num"], found["best"]) == (NUM_RANDOM, scores.max())
    assert found["mean"] == pytest.approx(scores.mean())
    assert found["beaten"] == (scores < staged.folder.read_entries()[0].metrics["score"]).sum()
    assert found["as_good"]["low"] <= 1 - found["beaten"] / NUM_RANDOM <= found["as_good"]["high"]


def test_chance_is_the_first_sample_where_it_does_not(shufflenet, staged, front):
    assert random_scores(shufflenet) is None, "nothing says that its first ones are a random sample"
    described = {"experiment": {"searcher": {"name": "evolution", "initial": 16}}}
    sampled = dataclasses.replace(shufflenet, run=dataclasses.replace(shufflenet.run, description=described))
    history = shufflenet.folder.read_history()
    scores = history.metrics["score"][(history.parents < 0).all(axis=1)]
    assert random_scores(sampled)["num"] == np.isfinite(scores).sum() >= 8
    assert random_scores(sampled)["best"] == np.nanmax(scores)
    assert random_scores(staged) is None
    assert random_scores(front) is None


def test_what_the_score_means_and_what_comes_next_is_said(staged, front):
    subject = dataclasses.replace(staged, evaluator=ClosedFormEntropy(staged.space))
    section = outcome_section(subject, lambda architecture: "a <network>", None)
    said = ("a &lt;network&gt;", "MAE-DET&#39;s entropy", "As a detector: not known yet", "of the bound 91 on gmacs")
    for part in (*said, "--random 5", "nasray train"):
        assert part in section.html, part
    assert section.figures["best"] == staged.folder.read_best()["best"][0]
    html = outcome_section(front, lambda architecture: "", None).html
    assert f"A Pareto front of {len(front.run.leaders)} architectures" in html
    assert "nasray front" in html


def test_a_training_of_something_else_is_not_the_winners(staged, tmp_path):
    shutil.copytree(staged.folder.path, tmp_path / "run")
    subject = dataclasses.replace(staged, folder=RunFolder(tmp_path / "run"))
    assert trained_figures(subject) is None
    folder = write_training(tmp_path / "run" / "train", ARCHITECTURES["resnet18"], 0.5)
    assert trained_figures(subject) is None, "the search has another winner by now"
    shutil.rmtree(folder)
    write_training(folder, staged.folder.read_entries()[0].architecture, 0.5)
    assert trained_figures(subject) == {"iteration": 20.0, "mAP": 0.5}


def test_paths_of_a_supernet_are_deployed_next(detofa):
    page = outcome_section(dataclasses.replace(detofa, evaluator=detofa.plan.parts.evaluator), str, None).html
    assert "--latency" in page
    assert "--to model.onnx" in page
    assert "as it is in the supernet" in page
    assert "--latency" not in outcome_section(detofa, str, None).html, "what the evaluator is, is not known"
