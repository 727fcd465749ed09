import numpy as np
from matplotlib.figure import Figure

from nasray.reports.data import Convergence
from nasray.reports.sections.convergence import convergence_section, draw_gap
from tests.nasray.reports.common import SCORE


def test_one_objective_has_its_best_so_far_and_its_gap(staged):
    section = convergence_section(staged)
    assert [plot.name for plot in section.drawings] == ["convergence-score", "gap-score"]
    assert "From 80 evaluations on" in section.drawings[0].caption
    points = section.figures["convergence"]["score"]
    assert [point["evaluations"] for point in points] == [32, 64, 96, 128, 160]
    assert points[-1]["best"] == staged.folder.read_entries()[0].metrics["score"]


def test_a_front_has_its_hypervolume_and_no_story_of_the_cost(front):
    section = convergence_section(front)
    assert [plot.name for plot in section.drawings] == ["convergence-score", "hypervolume"]
    assert section.figures["convergence"].keys() == {"score", "gmacs"}
    assert section.figures["hypervolume"] == sorted(section.figures["hypervolume"])


def test_gaps_are_logarithmic_where_there_are_several():
    told = np.array([10, 20, 30])
    for best, scale in (([1.0, 2.0, 5.0], "log"), ([4.0, 5.0, 5.0], "linear"), ([5.0, 5.0, 5.0], "linear")):
        axes = Figure().add_subplot()
        draw_gap(axes, SCORE, Convergence(told, np.array(best), told * 0.0, told * 0.0), None)
        assert axes.get_yscale() == scale
        gaps = axes.lines[0].get_ydata()
        assert np.nan_to_num(gaps).tolist() == [5.0 - value for value in best]
