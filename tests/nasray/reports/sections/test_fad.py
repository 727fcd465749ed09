import pytest
from matplotlib.figure import Figure

from nasray.architectures import ARCHITECTURES
from nasray.reports.figures import draw
from nasray.reports.section import Subject
from nasray.reports.sections import BY_FAMILY
from nasray.reports.sections.fad import cells, describe, draw_cell, edges_of
from nasray.searchers import RandomSearch
from nasray.spaces import FADSpace
from tests.nasray.reports.common import write_run
from tests.nasray.reports.sections.conftest import subject_of

PAPER = ARCHITECTURES["fad-paper"]


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> Subject:
    space = FADSpace(groups=1, operations="darts")
    return subject_of(write_run(tmp_path_factory.mktemp("heads") / "run", RandomSearch(space, seed=0), 32), space)


def test_a_head_in_a_line():
    text = describe(PAPER)
    assert text.startswith(
        "head of 2 cells a group: box (96 channels) 0→2 separable-3, 1→2 standard-3, 1→3 separable-1+d2"
    )
    assert text.endswith("2→4 separable-2, 3→4 standard-1")


def test_the_published_cells_have_the_receptive_fields_of_the_paper():
    """Paper, Figure 3: large ones near the inputs, small ones near the output."""
    edges = edges_of(PAPER)["class"]
    assert [(edge.state, edge.node, edge.receptive_field) for edge in edges] == [
        (0, 2, 7), (1, 2, 9), (0, 3, 9), (2, 3, 3), (2, 4, 5), (3, 4, 3)
    ]  # fmt: skip


def test_both_cells_are_drawn_with_every_edge_by_name_and_receptive_field():
    section = cells([("paper", PAPER), ("other", ARCHITECTURES["fad-other"])])
    assert [plot.name for plot in section.drawings] == ["cell-1-box", "cell-1-class", "cell-2-box", "cell-2-class"]
    for plot, edges in zip(section.drawings, edges_of(PAPER).values(), strict=False):
        axes = Figure().add_subplot()
        plot.plot(axes)
        texts = [text.get_text() for text in axes.texts]
        for edge in edges:
            assert f"{edge.transformation}\nsees {edge.receptive_field}" in texts
        ends = [(line.get_xdata()[0], line.get_xdata()[-1]) for line in axes.lines]
        assert ends == [(edge.state, edge.node) for edge in edges]
        assert {str(state) for state in range(5)} <= set(texts)
        assert len(draw(plot).svg) > 1000
    first = section.figures["cells_of_best"]["box"][0]
    assert first == {"node": 2, "state": 0, "transformation": "separable-3", "receptive_field": 7}
    assert str(section.html).count("<tr>") == 1 + 4


def test_labels_of_a_cell_do_not_lie_on_each_other():
    """Whatever the edges: those on one side of the row of states have other heights, or stand a state apart."""
    space = FADSpace()
    for row in space.sample(20, RandomSearch(space, seed=3).rng):
        for edges in edges_of(space.to_architecture(row)).values():
            axes = Figure().add_subplot()
            draw_cell(axes, edges=edges)
            places = [text.get_position() for text in axes.texts if "sees" in text.get_text()]
            gaps = [(abs(x - u), abs(y - v)) for i, (x, y) in enumerate(places) for u, v in places[:i]]
            assert all(wide >= 1 or high > 1 for wide, high in gaps)


def test_a_run_s_heads_are_told(heads):
    (section,) = BY_FAMILY["fad"].sections(heads)
    assert len(section.drawings) == 3  # the best three, of one group each
    assert str(section.html).count("<tr>") == 1 + 10
    assert heads.folder.read_entries()[0].id in section.html
