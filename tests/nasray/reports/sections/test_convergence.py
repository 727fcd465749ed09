from nasray.reports.sections.convergence import convergence_section


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
