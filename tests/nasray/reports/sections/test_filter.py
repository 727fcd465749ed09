import numpy as np
from matplotlib.figure import Figure

from nasray.reports.sections.filter import draw_kendall, draw_worst, filter_section, interval_text


def test_the_page_says_what_the_filter_measured(detofa):
    (section,) = filter_section(detofa, "filter")
    figures = section.figures["filter.filter"]
    rows = figures["buckets"]
    assert [row["bucket"] for row in rows] == list(range(5))
    assert figures["num"] == 100
    assert figures["held"] == sum(row["num"] for row in rows)
    for row in rows:
        assert interval_text(row["kendall"]) in section.html
        assert interval_text(row["recall"]) in section.html
    assert all(row["kendall"]["value"] is None for row in rows), "four of each bucket are too few to say"
    assert [plot.name for plot in section.drawings] == ["filter-worst", "filter-fit"]
    for plot in section.drawings:
        plot.plot(Figure().add_subplot())
    assert filter_section(detofa, "chance") == []


def test_intervals_and_what_is_not_known():
    assert interval_text({"value": 0.5, "low": -0.25, "high": 0.75}) == "0.50 (−0.25 to 0.75)"
    assert interval_text({"value": 0.5, "low": None, "high": None}) == "0.50"
    assert interval_text({"value": None, "low": None, "high": None}) == interval_text(None) == "–"


ROWS = [
    {"kendall": {"value": 0.5, "low": 0.25, "high": 0.75},
     "costs": {"layers": {"value": 1.0, "low": None, "high": None},
               "gmacs": {"value": -0.25, "low": None, "high": None}},
     "precision": {"value": 1.0, "low": 0.5, "high": 1.0}, "recall": {"value": 0.5, "low": 0.25, "high": 0.75},
     "base_rate": 0.25},
    {"kendall": None, "costs": {"gmacs": {"value": None, "low": None, "high": None}},
     "precision": {"value": None, "low": None, "high": None}, "recall": {"value": None, "low": None, "high": None},
     "base_rate": None},
]  # fmt: skip


def test_the_filter_is_drawn_beside_each_cost():
    axes = Figure().add_subplot()
    draw_kendall(axes, rows=ROWS, edges=["1", "2", "3"], x="x")
    _, ours, cost = axes.lines
    assert np.nan_to_num(ours.get_ydata(), nan=9).tolist() == [0.5, 9]
    assert np.nan_to_num(cost.get_ydata(), nan=9).tolist() == [-0.25, 9]
    assert ours.get_xdata()[0] < cost.get_xdata()[0]
    assert axes.collections[0].get_segments()[0][:, 1].tolist() == [0.25, 0.75]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3"]


def test_precision_and_recall_stand_above_the_base_rate():
    axes = Figure().add_subplot()
    draw_worst(axes, rows=ROWS, edges=["1", "2", "3"], x="x")
    assert [np.nan_to_num(line.get_ydata(), nan=9).tolist() for line in axes.lines] == [[1.0, 9], [0.5, 9]]
    assert axes.get_legend_handles_labels()[1].count("base rate") == 1
