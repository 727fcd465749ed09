"""What a report says of a score without training: what is known of it, or that nothing is."""

import dataclasses
import json
import re

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.measured import describe_measured
from nasray.recipe import Recipe
from nasray.reports.data import read_run
from nasray.reports.section import Subject
from nasray.reports.sections.score import score_sections
from nasray.scores.ranking import rank_agreement
from nasray.spaces import NasrayError
from tests.nasray.reports.common import write_run, write_training

CONTENT = {
    "name": "tiny",
    "evaluations": 32,
    "space": {"name": "basic", "max_width": 32},
    "evaluator": {"name": "log-width"},
    "searcher": {"name": "random"},
    "budget": {"gmacs": 2.0},
}
RISING, FALLING = list(range(12)), list(range(12, 0, -1))
MIXED = [0, 11, 2, 9, 4, 7, 6, 5, 8, 3, 10, 1]


@pytest.fixture
def subject(tmp_path):
    return subject_of(tmp_path / "run")


def subject_of(path, **changes):
    plan = parse_plan({**CONTENT, **changes}, "tiny")
    folder = write_run(path, plan.parts.searcher, 32, describe_experiment(plan.experiment))
    return Subject(folder, read_run(folder), plan.parts.space, plan.parts.evaluator)


def measure(subject, scores, gmacs=RISING):
    """Write down what `nasray rank` would have measured of a run: scores of architectures whose mAP rises."""
    plan, num = subject.plan, len(scores)
    columns = {"log-width": scores, "gmacs": gmacs[:num]}
    result = {
        "architectures": [
            {"id": str(n), "mAP": n / 20, **{name: values[n] for name, values in columns.items()}} for n in range(num)
        ],
        "agreement": {name: rank_agreement(values, range(num)) for name, values in columns.items()},
        "random": {"mean": 0.2, "sd": 0.1, "num": num},
        "measured": describe_measured(plan, subject.folder, Recipe(name="short", data="cells.yaml")),
    }
    (subject.folder.path / "rank").mkdir()
    (subject.folder.path / "rank" / "rank.json").write_text(json.dumps(result))


def text_and_figures(subject):
    (section,) = score_sections(subject)
    text = re.sub(r"<[^>]*>", " ", section.html).replace("&#39;", "'")
    return " ".join(text.split()), section.figures["score_agreement"]


def test_where_nothing_is_known_it_says_so_and_how_to_know(subject):
    text, figures = text_and_figures(subject)
    assert "Nothing is known of whether log-width ranks" in text
    run = subject.folder.path
    assert f"nasray train {run} --recipe cpu-scratch --data DATA" in text
    assert f"nasray rank {run} --architectures 12" in text
    assert figures == {"score": "log-width", "known": False}
    write_training(run / "train", ARCHITECTURES["resnet18"], 0.5)
    assert "--recipe cpu-scratch" not in text_and_figures(subject)[0], "there is a recipe to train others by"


def test_a_score_that_agrees(subject):
    measure(subject, RISING)
    text, figures = text_and_figures(subject)
    low = rank_agreement(RISING, RISING)["kendall"]["low"]
    assert "on 12 random architectures of this space within the budget (gmacs up to 2" in text
    assert "each trained once by recipe short on cells.yaml" in text
    assert f"tau of log-width with mAP is 1.00 (95 % interval {low:.2f} to 1.00)" in text
    assert f"with a chance of 100 % ({(1 + low) / 2:.0%}".replace("%", " %").replace("100  ", "100 ") in text
    assert "Choosing by log-width is better than choosing at random" in text
    assert f"Multiply-adds, which need no score, have a tau of 1.00 (95 % interval {low:.2f} to 1.00), no less" in text
    assert (figures["known"], figures["num"], figures["data"]) == (True, 12, "cells.yaml")
    assert figures["chance_of_better"] == {"value": 1.0, "low": (1 + low) / 2, "high": 1.0}
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [(FALLING, "is worse than choosing at random here: take another score"), (MIXED, "cannot be told from a coin")],
)
def test_a_score_that_does_not(subject, scores, verdict):
    measure(subject, scores)
    text, figures = text_and_figures(subject)
    assert verdict in text
    assert ("--architectures 24" in text) == (scores is MIXED), "more of them narrow an interval around 0"
    assert figures["chance_of_better"]["value"] == (1 + rank_agreement(scores, RISING)["kendall"]["value"]) / 2


@pytest.mark.parametrize("scores", [RISING[:5], [1.0] * 12])
def test_a_few_or_equal_ones_say_nothing(subject, scores):
    measure(subject, scores)
    text, figures = text_and_figures(subject)
    assert "too few, or too much alike" in text
    assert "tau" not in text
    assert (figures["known"], figures["kendall"], figures["chance_of_better"]) == (False, None, None)


def test_what_another_run_measured_is_named_with_what_differs(subject, tmp_path):
    measure(subject, RISING)
    other = subject_of(tmp_path / "other", budget={"gmacs": 1.0}, seed=7)
    assert "Nothing is known" in text_and_figures(other)[0], "only what is named counts"
    named = dataclasses.replace(other, measured=subject.folder)
    write_training(other.folder.path / "train", ARCHITECTURES["resnet18"], 0.5, data="cars.yaml")
    text, figures = text_and_figures(named)
    assert f"by `nasray rank` in {subject.folder.path}" in text
    assert "The winner was trained on cars.yaml, which may be data of another kind" in text
    assert "This run searches within the budget (gmacs up to 1" in text
    assert figures["measured_in"] == str(subject.folder.path)
    foreign = subject_of(tmp_path / "foreign", space={"name": "basic", "max_width": 64})
    with pytest.raises(NasrayError, match="measured another space: max_width 32 there, 64 here"):
        score_sections(dataclasses.replace(foreign, measured=subject.folder))


def test_other_runs_have_no_such_section(subject, tmp_path):
    assert score_sections(dataclasses.replace(subject, evaluator=None)) == []
    assert score_sections(dataclasses.replace(subject, evaluator=lambda genes: {"score": genes[:, 0]})) == []
    begun_from_python = write_run(tmp_path / "made", subject.plan.parts.random_searcher(0), 32)
    assert score_sections(dataclasses.replace(subject, folder=begun_from_python)) == []
