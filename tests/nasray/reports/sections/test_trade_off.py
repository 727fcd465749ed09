from matplotlib.figure import Figure

from nasray.reports.sections.trade_off import trade_off_sections


def test_every_cost_that_has_a_scale_is_set_against_the_score(staged, front):
    (section,) = trade_off_sections(staged)
    assert [plot.name for plot in section.drawings] == ["score-gmacs", "score-params-m"]
    (section,) = trade_off_sections(front)
    assert section.drawings[0].name == "score-gmacs"


def test_budget_front_and_winner_are_marked(staged):
    axes = Figure().add_subplot()
    trade_off_sections(staged)[0].drawings[0].plot(axes)
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["budget 91", "Pareto front", "best"]
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    best = staged.folder.read_entries()[0]
    assert star.get_xydata().tolist() == [[best.costs["gmacs"], best.metrics["score"]]]
