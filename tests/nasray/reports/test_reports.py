from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.cluster import RunFolder
from nasray.configuration import install_command
from nasray.evaluators import ClosedFormEntropy
from nasray.reports import report_figures, write_report
from nasray.searchers import (
    CoarseToFineEvolution,
    Evolution,
    Objective,
    ParetoEvolution,
    RandomSearch,
    pareto_front,
)
from nasray.spaces import BottleneckSpace, Budget, InvertedSpace, ShuffleNetSpace
from tests.nasray.reports.common import SCORE, Grid, PricedGrid, write_run, write_training


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    description = {
        "experiment": {
            "name": "tiny <run>",
            "seed": 3,
            "evaluations": 160,
            "searcher": {"name": "coarse-to-fine", "fine_after": None},
            "budget": {"gmacs": 91.0, "min_gmacs": 1.0, "layers": None},
        }
    }
    searcher = CoarseToFineEvolution(BottleneckSpace(), fine_after=80, budget=Budget({"gmacs": 91.0}), seed=3)
    return write_run(tmp_path_factory.mktemp("single") / "run", searcher, 160, description)


def check_page(page: Path, names: set[str]) -> str:
    text = page.read_text()
    assert {path.stem for path in page.parent.glob("*.png")} == names
    for name in names:
        png = (page.parent / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) > 4000
    assert text.count("<svg") == len(names)
    # Self-contained: nothing is loaded, and every reference within the page has its one target.
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert not list(page.parent.glob(".*")), "nothing half-written stays behind"
    return text


def test_a_single_objective_staged_run(single: RunFolder) -> None:
    space = BottleneckSpace()
    page = write_report(single, space, objectives=[SCORE], reference=ARCHITECTURES["maedet-m"])
    assert page == single.path / "report" / "report.html"
    names = {"convergence-score", "gap-score", "score-gmacs", "score-params-m"}
    text = check_page(page, names | {"level-layers", "level-gmacs", "level-params", "level-winner"})
    assert "<run>" not in text
    for part in (
        "tiny &lt;run&gt;", "budget 91", "From 80 evaluations on", "Reference: maedet-m", "The 10 best",
        "searcher.name", "25.84 M parameters, 91 layers", *(entry["id"] for entry in single.read_best()["best"]),
    ):  # fmt: skip
        assert part in text


def test_the_summary_of_a_single_objective_run(single: RunFolder) -> None:
    summary = report_figures(single, BottleneckSpace())
    json.dumps(summary, allow_nan=False)
    history = single.read_history()
    value = history.metrics["score"]
    best = int(np.nanargmax(value))
    assert summary["name"] == "tiny <run>"
    assert (summary["evaluations"], summary["batches"]) == (160, 5)
    assert summary["not_finite"] == np.isnan(value).sum() > 0
    assert summary["best"]["evaluation"] == best
    assert summary["best"] == single.read_best()["best"][0]
    assert summary["best"]["costs"]["gmacs"] == history.costs["gmacs"][best]
    points = summary["convergence"]["score"]
    assert [point["evaluations"] for point in points] == [32, 64, 96, 128, 160]
    for number, point in enumerate(points):
        batch = value[32 * number : 32 * (number + 1)]
        assert point["best"] == np.nanmax(value[: 32 * (number + 1)])
        assert point["mean"] == pytest.approx(np.nanmean(batch))
        assert point["std"] == pytest.approx(np.nanstd(batch))
    # Five batches of one second, one a second, on two workers.
    assert summary["seconds"] == pytest.approx(5.0)
    assert summary["evaluations_per_second"] == pytest.approx(32.0)
    assert (summary["workers"], summary["sessions"]) == (2, 1)
    assert summary["busy_share"] == pytest.approx(0.5)
    levels = summary["levels"]
    for cost, name in (("gmacs", "gmacs"), ("params_m", "params_m"), ("layers", "layers")):
        total = sum(level[name] for level in levels.values())
        assert total == pytest.approx(summary["best"]["costs"][cost])


def test_a_multi_objective_run(tmp_path: Path) -> None:
    space = InvertedSpace(image_hw=(128, 128))
    objectives = (SCORE, Objective("gmacs", "min"))
    folder = write_run(tmp_path / "run", ParetoEvolution(space, objectives=objectives, population_size=16), 128)
    text = check_page(
        write_report(folder, space, objectives=objectives, reference=ARCHITECTURES["mobilenet-v2"]),
        {
            "convergence-score", "hypervolume", "score-gmacs", "score-params-m",
            "level-layers", "level-gmacs", "level-params", "level-winner",
        },
    )  # fmt: skip
    for part in ("Reference: mobilenet-v2", "expansion", "on the Pareto front"):
        assert part in text
    summary = report_figures(folder, space)
    json.dumps(summary, allow_nan=False)
    history = folder.read_history()
    values = np.stack([np.nan_to_num(history.metrics["score"], nan=-np.inf), -history.costs["gmacs"]], axis=1)
    front = np.flatnonzero(pareto_front(values))
    assert sorted(entry["evaluation"] for entry in summary["front"]) == front.tolist()
    assert [entry["id"] for entry in summary["front"]] == [entry["id"] for entry in folder.read_best()["best"]]
    # The hypervolume by counting: random points of the box that some evaluation dominates.
    good = values[np.isfinite(values).all(axis=1)]
    low, high = good.min(axis=0), good.max(axis=0)
    darts = low + np.random.default_rng(0).random((20_000, 2)) * (high - low)
    covered = (good[None] >= darts[:, None]).all(axis=2).any(axis=1).mean()
    shares = summary["hypervolume"]
    assert shares[-1] == pytest.approx(covered, abs=0.02)
    assert shares == sorted(shares)


def test_a_space_that_is_not_staged_and_has_no_costs(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", RandomSearch(Grid(), seed=1), 96)
    page = write_report(folder, Grid(), objectives=[SCORE])
    text = check_page(page, {"convergence-score", "gap-score"})
    assert "level" not in text
    assert "levels" not in report_figures(folder, Grid())
    assert write_report(folder, Grid(), objectives=[SCORE]).read_text() == text, "the same run, the same report"


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 0.0])
def test_values_without_any_spread(tmp_path: Path, fill: float) -> None:
    objectives = (SCORE, Objective("price", "min"))
    searcher = RandomSearch(PricedGrid(), objectives=objectives)
    folder = write_run(tmp_path / "run", searcher, 40, evaluator=lambda genes: np.full(len(genes), fill))
    page = write_report(folder, PricedGrid(), objectives=objectives)
    assert ">nan<" not in page.read_text().lower()
    summary = report_figures(folder, PricedGrid())
    json.dumps(summary, allow_nan=False)
    assert summary["not_finite"] == (0 if fill == 0.0 else 40)


def test_without_matplotlib(single: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Exception, match=re.escape(install_command("plot"))):
        write_report(single, BottleneckSpace(), objectives=[SCORE])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, ShuffleNetSpace]:
    """A run in a supernet's space, its winner trained to 0.5, and six random architectures to about 0.4."""
    space = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))
    searcher = Evolution(space, population_size=8, parents=4, initial=16, seed=0)
    description = {"experiment": {"name": "s", "evaluations": 64, "searcher": {"name": "evolution", "initial": 16}}}
    path = tmp_path_factory.mktemp("trained") / "run"
    folder = write_run(path, searcher, 64, description, evaluator=lambda genes: genes.sum(axis=1) / 20)
    write_training(path / "train", folder.read_entries()[0].architecture, 0.5)
    others = space.sample(6, np.random.default_rng(5))
    for place, row in enumerate(others):
        architecture = space.to_architecture(row)
        write_training(
            path / "compare" / "random" / architecture.id / "seed-0" / "train", architecture, 0.40 + place / 500
        )
    return folder, space


def test_the_page_opens_with_what_was_got_and_whether_it_is_better(trained) -> None:
    folder, space = trained
    figures = report_figures(folder, space)
    json.dumps(figures, allow_nan=False)
    (found,) = figures["comparison"]["comparisons"]
    assert found["verdict"] == "better"
    assert found["difference"] == pytest.approx(0.5 - 0.405)
    assert figures["trained"]["mAP"] == 0.5
    values = folder.read_history()
    first = values.metrics["score"][(values.parents < 0).all(axis=1)]
    assert figures["random_scores"]["num"] == len(first) >= 16
    assert figures["random_scores"]["best"] == first.max()
    text = write_report(folder, space).read_text()
    opening = text[: text.index("<h2>")]
    best = folder.read_entries()[0]
    blocks = "; ".join(f"C{level} {', '.join(stage['blocks'])}"
                       for level, stage in enumerate(best.architecture.spec["stages"], start=2))  # fmt: skip
    for part in (
        best.id, blocks, "Trained by itself it reaches mAP 0.5000",
        "The winner (1 training) is better than random choice (6 architectures): mAP 0.5000 against 0.4050",
        "counted for the backbone at 128×128 pixels",
        "64 evaluations of the 64 that were asked for.", "nasray evaluate", "better than",
    ):  # fmt: skip
        assert part in opening, part
    assert opening.index("mAP of the winner, trained") < opening.index("best score")


def test_the_page_scores_reference_and_chance_where_that_takes_a_moment(single: RunFolder) -> None:
    space = BottleneckSpace()
    evaluator = ClosedFormEntropy(space)
    figures = report_figures(single, space, evaluator=evaluator, reference=ARCHITECTURES["maedet-m"])
    reference, chance = figures["reference"], figures["random_scores"]
    genes = space.from_architecture(ARCHITECTURES["maedet-m"])
    assert reference["score"] == float(evaluator(genes[None])["score"][0])
    assert reference["costs"]["gmacs"] == pytest.approx(89.32, abs=0.01)
    history = single.read_history()
    within = history.costs["gmacs"] <= reference["costs"]["gmacs"]
    assert within.any()
    assert reference["rival"]["metrics"]["score"] == np.nanmax(np.where(within, history.metrics["score"], np.nan))
    assert chance["num"] == 100
    assert 0 <= chance["beaten"] <= 100
    assert report_figures(single, space, evaluator=evaluator)["random_scores"] == chance, "the same on every report"
    assert report_figures(single, space)["random_scores"] is None, "its first evaluations are no random sample"


def test_page_and_json_hold_the_same_of_an_unfinished_run(tmp_path: Path) -> None:
    description = {"experiment": {"name": "x", "evaluations": 500}}
    folder = write_run(tmp_path / "run", RandomSearch(PricedGrid(), seed=1), 96, description)
    best = folder.read_best()
    folder.write_best({**best, "finished": False})
    figures = report_figures(folder, PricedGrid())
    assert (figures["evaluations"], figures["asked"], figures["finished"]) == (96, 500, False)
    text = write_report(folder, PricedGrid()).read_text()
    for part in ("96 evaluations of the 500 that were asked for. The search is not finished.", "nasray resume",
                 "96 of 500", "grid: x "):  # fmt: skip
        assert part in text


def test_json_needs_no_matplotlib(single: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report_figures(single, BottleneckSpace())["evaluations"] == 160
