from __future__ import annotations

import pytest

from nasray.reports.figures import Plot
from nasray.reports.page import joined_figures, write_page, write_pictures
from nasray.reports.pieces import paragraph
from nasray.reports.section import Section
from nasray.spaces import NasrayError


def plot(name):
    return Plot(name, "a line", lambda axes: axes.plot([0, 1]), f"below {name} & so on")


def test_a_page_is_its_sections_in_order(tmp_path):
    first = Section("", paragraph("opening"), figures={"a": 1})
    second = Section("Second <2>", paragraph("text"), (plot("one"), plot("two")), {"b": 2}, "small print")
    page = write_page(tmp_path / "report", "my <run>", [("seed", "3")], [first, second])
    text = page.read_text()
    parts = ["<h1>my &lt;run&gt;</h1>", "seed <b>3</b>", "opening", "<h2>Second &lt;2&gt;</h2>", "text", 'id="one"']
    parts += ["below one &amp; so on", 'id="two"', "small print"]
    places, start = [], text.index("<main>")
    for part in parts:
        start = text.index(part, start)
        places.append(start)
    assert {path.name for path in page.parent.iterdir()} == {"report.html", "one.png", "two.png"}
    assert joined_figures([first, second]) == {"a": 1, "b": 2}
    assert "{{" not in text
    assert "--blue:" in text, "the style is part of the page"


def test_a_report_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NasrayError, match="cannot make"):
        write_page(tmp_path / "file" / "report", "x", [], [])


def test_pictures_alone(tmp_path):
    assert write_pictures(tmp_path, [plot("one")]) == [tmp_path / "one.png"]
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
