from matplotlib.figure import Figure

from nasray.reports.sections.front import front_plots
from nasray.searchers import Objective


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
