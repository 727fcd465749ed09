from nasray.reports.sections.leaders import leaders_section


def test_they_are_those_of_best_json(staged, front):
    section = leaders_section(staged)
    assert section.title == "The 10 best"
    assert section.figures["leaders"] == staged.folder.read_best()["best"]
    assert all(entry["id"] in section.html for entry in staged.folder.read_best()["best"])
    section = leaders_section(front)
    assert section.title == "Pareto front"
    assert section.figures["front"] == front.folder.read_best()["best"]


def test_a_long_front_is_thinned_in_the_table_alone(front, monkeypatch):
    monkeypatch.setattr("nasray.reports.sections.leaders.MAX_ROWS", 2)
    section = leaders_section(front)
    entries = front.folder.read_best()["best"]
    assert len(entries) > 2
    assert [entry["id"] in section.html for entry in entries] == [True, *[False] * (len(entries) - 2), True]
    assert section.figures["front"] == entries
    assert f"2 of the front's {len(entries)} architectures" in section.note
