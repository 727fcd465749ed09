from __future__ import annotations

import numpy as np

from nasray.reports.figures import Plot, apart, draw, label


def test_labels_keep_their_order_and_distance() -> None:
    heights = np.array([0.0, 0.1, 6.4, 5.4, 3.4])
    moved = apart(heights, 2.0)
    assert (np.argsort(moved) == np.argsort(heights)).all()
    assert (np.diff(np.sort(moved)) >= 2.0 - 1e-9).all()
    assert moved.min() >= 0
    assert apart(np.array([1.0, 9.0]), 2.0).tolist() == [1.0, 9.0]


def test_a_drawing_takes_its_colors_from_the_page_and_says_what_it_shows():
    def line(axes):
        axes.plot([0, 1], color="#0072b2", label="line")

    drawing = draw(Plot("one", "a line from <0> to 1", line))
    assert drawing.png.startswith(b"\x89PNG")
    assert 'aria-label="a line from &lt;0&gt; to 1"' in drawing.svg
    assert 'id="one"' in drawing.svg
    assert "var(--blue)" in drawing.svg
    assert "#0072b2" not in drawing.svg
    assert drawing == draw(Plot("one", "a line from <0> to 1", line)), "the same figure, the same bytes"


def test_labels_have_units():
    assert label("gmacs") == "multiply-adds (G)"
    assert label("of my own") == "of my own"
