import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from nasray.loading import plan_of_run
from nasray.reports import report_figures, write_report
from nasray.reports.sections.gradient import draw_edges, draw_seeds, draw_shares, gradient_section
from nasray.training.folder import read_log
from tests.nasray.reports import fad as made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made.write_fad_run(tmp_path_factory.mktemp("fad") / "run")


@pytest.fixture(scope="module")
def space(run):
    return plan_of_run(run).parts.space


def test_the_winner_is_not_the_one_with_the_highest_map_where_that_has_collapsed(run, space):
    figures = report_figures(run, space)
    json.dumps(figures, allow_nan=False)
    assert figures["best"]["metrics"]["mAP"] == 0.31
    assert figures["best"]["id"] == run.read_best()["best"][0]["id"]
    assert (figures["evaluations"], figures["asked"]) == (3, 3)
    found = figures["search.gradient"]
    assert [seed["seed"] for seed in found["seeds"]] == [0, 2, 1]
    assert found["seeds"][2]["collapse"].startswith("none has 0.")
    assert [seed["stopped_after"] for seed in found["seeds"]] == [None, 5.0, None]
    assert found["halving"][0]["left"] == ["seeds/0", "seeds/1"]
    assert [point[0] for point in found["over_time"]["2"]["entropy"]] == list(range(10, 61, 10))
    assert found["over_time"]["0"]["map"] == [[60, 0.155], [120, 0.31]]
    entropies = [value for _, value in found["over_time"]["0"]["entropy"]]
    assert entropies == sorted(entropies, reverse=True), "shares sharpen"
    assert all(np.allclose(np.sum(found["shares"][group], axis=1), 1) for group in ("box", "class"))


def test_the_page_has_seeds_and_shares_and_nothing_of_searches_one_by_one(run, space):
    text = write_report(run, space).read_text()
    assert "Gradient search of stage search" in text
    assert "Seed 0 of 3 wins" in text
    assert "of the mixture of all choices, on the images that were held out" in text
    assert "1 collapsed" in text
    assert "stopped after 5 epochs" in text
    assert "--to head.py" in text
    assert "--to backbone.py" not in text
    assert "Convergence" not in text
    names = {path.stem for path in (run.path / "report").glob("*.png")}
    groups = {f"search-{group}-{what}" for group in ("box", "class") for what in ("shares", "edges")}
    assert names >= {"search-map", "search-entropy", "search-none", *groups}


def test_a_search_that_is_not_finished_has_no_section(run, space, tmp_path):
    subject = type("Subject", (), {"folder": type("Folder", (), {"path": tmp_path})()})()
    assert gradient_section(subject, "search") == []


def test_curves_are_of_every_seed_and_of_every_choice(run, space):
    logs = {seed: read_log(run.path / "seeds" / str(seed)) for seed in range(3)}
    axes = Figure().add_subplot()
    draw_seeds(axes, logs=logs, key="none")
    assert [line.get_label() for line in axes.get_lines()] == ["seed 0", "seed 1", "seed 2"]
    assert axes.get_lines()[1].get_ydata()[-1] > 0.5
    assert axes.get_lines()[2].get_xdata()[-1] == 60
    axes, names = Figure().add_subplot(), run.read_best()["choices"]
    draw_shares(axes, log=logs[0], group="box", names=names)
    assert len(axes.get_lines()) == 13
    labels = axes.get_legend_handles_labels()[1]
    last = np.mean(logs[0].steps[-1]["shares"]["box"], axis=0)
    top = [names[place] for place in np.argsort(-last[:-1])[:5]]
    assert sorted(labels) == sorted([*top, "none"]), "the five that end highest, and none"
    axes = Figure().add_subplot()
    draw_edges(axes, edges=np.array(logs[0].steps[-1]["shares"]["class"]), names=names)
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == ["0 → 2", "1 → 2", "0 → 3", "1 → 3", "2 → 3", "0 → 4", "1 → 4", "2 → 4", "3 → 4"]
