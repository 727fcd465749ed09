from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.recorder import Recorder
from nasray.configuration import install_command
from nasray.report import report_summary, write_report
from nasray.report_data import RunData, read_run, run_timing, winner_stages
from nasray.report_figures import _apart
from nasray.searchers import CoarseToFineEvolution, Objective, ParetoEvolution, RandomSearch, Searcher, pareto_front
from nasray.spaces import BottleneckSpace, Budget, Costs, Gene, InvertedSpace, Population, Space

SCORE = Objective("score")


class Grid(Space):
    """Not staged, without costs."""

    family = "grid"
    genes = (Gene("x", tuple(range(32))), Gene("y", tuple(range(32))))


class PricedGrid(Grid):
    """Not staged, with a cost of its own."""

    def cost(self, population: Population) -> Costs:
        return {"price": population[:, 0] + 1.0}


def score(genes: Population) -> np.ndarray:
    """Some figure that grows with the genes, with a few values that are not finite."""
    value = np.log1p(genes).sum(axis=1)
    return np.where(genes.sum(axis=1) % 11 == 0, np.nan, value)


def write_run(
    path: Path, searcher: Searcher, evaluations: int, description: dict | None = None, evaluator: Callable = score
) -> RunFolder:
    """A finished run without Ray: two workers take turns, each busy for half of the time."""
    folder = RunFolder.create(path, description or {})
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=32, in_flight=2)
    recorder = Recorder(folder, search)
    search.fill()
    while not search.is_finished:
        index = search.num_batches_told
        genes = search.pending[index].genes
        for batch in search.receive(index, {"score": evaluator(genes)}):
            trial = {"batch": index, "started": 100.0 + index, "seconds": 1.0, "host": "a", "process": index % 2}
            recorder.write(batch, trial)
            search.tell(batch)
    recorder.finish()
    return folder


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
    summary = report_summary(single, BottleneckSpace())
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
    summary = report_summary(folder, space)
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
    assert "levels" not in report_summary(folder, Grid())
    assert write_report(folder, Grid(), objectives=[SCORE]).read_text() == text, "the same run, the same report"


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 0.0])
def test_values_without_any_spread(tmp_path: Path, fill: float) -> None:
    objectives = (SCORE, Objective("price", "min"))
    searcher = RandomSearch(PricedGrid(), objectives=objectives)
    folder = write_run(tmp_path / "run", searcher, 40, evaluator=lambda genes: np.full(len(genes), fill))
    page = write_report(folder, PricedGrid(), objectives=objectives)
    assert ">nan<" not in page.read_text().lower()
    summary = report_summary(folder, PricedGrid())
    json.dumps(summary, allow_nan=False)
    assert summary["not_finite"] == (0 if fill == 0.0 else 40)


def test_many_small_batches_are_thinned() -> None:
    num = 450
    value = np.arange(num, dtype=float)
    run = RunData(
        "run", {}, (SCORE,), [str(index) for index in range(num)], np.zeros((num, 1), dtype=np.int64), {},
        {"score": value}, np.arange(1, num + 1), run_timing([], np.arange(1, num + 1)),
    )  # fmt: skip
    points = run.convergence(SCORE)
    assert len(points.evaluations) == 150
    assert points.evaluations[-1] == num
    assert points.mean[:2].tolist() == [1.0, 4.0], "each point is the mean of three batches"
    assert run.timing.seconds is None


def test_pauses_between_sessions_do_not_count() -> None:
    trial = {"host": "a", "seconds": 2.0}
    trials = [
        {**trial, "batch": 0, "process": 1, "started": 0.0},
        {**trial, "batch": 1, "process": 1, "started": 3.0},
        {**trial, "batch": 2, "process": 2, "started": 5000.0},
        {**trial, "batch": 3, "process": 3, "started": 5001.0},
    ]
    timing = run_timing(trials, np.array([10, 20, 30, 40]))
    assert timing.seconds == pytest.approx(5.0 + 3.0)
    assert timing.evaluations_per_second == pytest.approx(40 / 8)
    assert (timing.sessions, timing.workers) == (2, 2)
    assert timing.busy_share == pytest.approx(8.0 / (5.0 + 2 * 3.0))
    # A slow batch, or a wait, in which a worker lives on, is no pause.
    trials[2]["process"] = 1
    assert run_timing(trials, np.array([10, 20, 30, 40])).seconds == pytest.approx(5003.0)


def test_the_stage_table_follows_the_papers_table_12() -> None:
    architecture = ARCHITECTURES["maedet-m"]
    space = BottleneckSpace()
    table = winner_stages(space, space.from_architecture(architecture))
    assert [stage[:8] for stage in table.stages] == [
        ("C1", "conv", 3, 3, 64, 2, None, 1),
        ("C2", "bottleneck", 3, 64, 120, 2, 64, 2),
        ("C3", "bottleneck", 5, 120, 512, 2, 72, 10),
        ("C4", "bottleneck", 5, 512, 1632, 2, 112, 10),
        ("C5", "bottleneck", 5, 1632, 2048, 2, 184, 8),
    ]
    assert sum(stage.gmacs for stage in table.stages) == pytest.approx(table.costs["gmacs"])


def test_labels_keep_their_order_and_distance() -> None:
    heights = np.array([0.0, 0.1, 6.4, 5.4, 3.4])
    moved = _apart(heights, 2.0)
    assert (np.argsort(moved) == np.argsort(heights)).all()
    assert (np.diff(np.sort(moved)) >= 2.0 - 1e-9).all()
    assert moved.min() >= 0
    assert _apart(np.array([1.0, 9.0]), 2.0).tolist() == [1.0, 9.0]


def test_an_objective_that_the_history_lacks(single: RunFolder) -> None:
    with pytest.raises(Exception, match=r"'latency_ms' is not in the run's history. It has: gmacs, params_m"):
        read_run(single, [Objective("latency_ms", "min")])


def test_without_matplotlib(single: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Exception, match=re.escape(install_command("plot"))):
        write_report(single, BottleneckSpace(), objectives=[SCORE])
