import numpy as np
import pytest
from matplotlib.figure import Figure

from nasray.latency import Setting
from nasray.latency.front import FrontLatency
from nasray.latency.steadiness import Steadiness
from nasray.reports.sections.front import bucket_rows, front_plots, front_section
from nasray.searchers import Objective, pareto_front
from nasray.spaces.buckets import Buckets
from tests.nasray.reports import detofa as made


def test_a_front_is_drawn_over_each_cost_and_the_chosen_one_is_marked(front):
    entries = front.folder.read_entries()
    objectives = (Objective("score"), Objective("gmacs", "min"), Objective("layers", "min"))
    assert [plot.name for plot in front_plots(entries, objectives)] == ["front-gmacs", "front-layers"]
    (plot,) = front_plots(entries, objectives[:2], entries[1])
    axes = Figure().add_subplot()
    plot.plot(axes)
    line, mark = axes.lines
    wanted = sorted([entry.costs["gmacs"], entry.metrics["score"]] for entry in entries)
    assert line.get_xydata().tolist() == wanted
    assert mark.get_xydata().tolist() == [[entries[1].costs["gmacs"], entries[1].metrics["score"]]]


def test_the_best_by_one_objective_are_drawn_over_the_first_cost(staged):
    (plot,) = front_plots(staged.folder.read_entries(), (Objective("score"),))
    assert plot.name == "front"
    assert plot.alternative == "score over gmacs of the 10 best architectures"


def test_latency_is_drawn_with_the_front_of_the_fastest(front, tmp_path):
    entries = front.folder.read_entries()
    rows = {entry.id: {"median_ms": 10.0 + place % 3, "spread_ms": 1.0} for place, entry in enumerate(entries)}
    setting, steady = Setting.here((64, 64), device="cpu"), Steadiness((), 0.0, 0.0, 0.0)
    latency = FrontLatency("backbone", setting, rows, tmp_path / "x.json", 0, steady)
    fast = np.array([place < 2 for place in range(len(entries))])
    objectives = (Objective("score"), Objective("gmacs", "min"))
    first, second = front_plots(entries, objectives, None, latency, fast)
    assert (first.name, second.name) == ("front", "front-latency")
    axes = Figure().add_subplot()
    second.plot(axes)
    points, line = axes.lines
    assert points.get_xdata().tolist() == [10.0 + place % 3 for place in range(len(entries))]
    assert line.get_xydata().tolist() == [[10.0 + place, entries[place].metrics["score"]] for place in range(2)]
    assert axes.get_xlabel() == "latency of the backbone (ms)"
    assert len(front_plots(entries, objectives, entries[0], latency, fast[:1])) == 1


def test_a_front_is_set_beside_random_ones_that_were_evaluated_alike(detofa):
    (section,) = front_section(detofa, "search")
    figures = section.figures["front_against_chance"]
    chance = detofa.folder.__class__(detofa.folder.path / "chance").read_history()
    assert (figures["evaluated"], figures["random"]) == (48, len(chance.ids))
    both = np.concatenate([np.stack([found.metrics["score"], -found.costs["gmacs"]], axis=1)
                           for found in (detofa.folder.read_history(), chance)])  # fmt: skip
    low, high = both.min(axis=0), both.max(axis=0)
    for part, name in ((both[:48], "search"), (both[48:], "random")):
        scaled, previous, area = (part - low) / (high - low), 0.0, 0.0
        for score, cheap in sorted(scaled[pareto_front(scaled)].tolist(), reverse=True):
            area += score * (cheap - previous)
            previous = cheap
        assert figures["hypervolume"][name] == pytest.approx(area)
    assert figures["edges"] == list(made.buckets().edges)
    rows = figures["buckets"]
    assert [row["random"] for row in rows] == [20] * 5
    assert sum(row["evaluated"] for row in rows) == 48
    assert sum(row["on_front"] for row in rows) == len(detofa.run.leaders)
    assert len(rows) == 5
    axes = Figure().add_subplot()
    section.drawings[0].plot(axes)
    random, evaluated, line = axes.lines
    assert [len(one.get_xdata()) for one in (random, evaluated, line)] == [100, 48, len(detofa.run.leaders)]
    assert np.all(np.diff(line.get_xdata()) > 0)


def test_other_stages_and_runs_without_buckets_or_chance_have_none(detofa, front, staged):
    assert front_section(detofa, "chance") == front_section(front, "search") == front_section(staged, "search") == []


def test_what_is_in_each_bucket():
    points = np.array([[1.0, 0.5], [1.5, 0.7], [2.5, 0.6]])
    rows = bucket_rows(
        Buckets("gmacs", (1.0, 2.0, 3.0, 4.0)),
        points,
        points[1:],
        np.array([[1.2, 0.4], [1.4, 0.6]]),
        Objective("score"),
    )
    nothing = {"random": 0, "random_mean": None, "random_sd": None, "random_best": None}
    assert rows[0]["random_sd"] == pytest.approx(np.sqrt(0.02))
    assert {**rows[0], "random_sd": 0} == {
        "bucket": 0, "evaluated": 2, "on_front": 1, "best": 0.7, "random": 2, "random_mean": 0.5, "random_sd": 0,
        "random_best": 0.6,
    }  # fmt: skip
    assert rows[1] == {"bucket": 1, "evaluated": 1, "on_front": 1, "best": 0.6, **nothing}
    assert rows[2] == {"bucket": 2, "evaluated": 0, "on_front": 0, "best": None, **nothing}
