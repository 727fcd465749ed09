from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from nasray.architectures import ARCHITECTURES
from nasray.reports.sections.msnas import describe, draw_encoder, encoder_of, encoders


def test_an_architecture_in_a_line():
    assert describe(ARCHITECTURES["msnas-r18-1"]) == (
        "13 basic blocks of 180 channels with strides 1, 2, 2, 1, 2, 1, 0.5, 1, 1, 0.5, 1, 1, 0.5; "
        "heads read strides 8, 8, 16, 16, 32"
    )


def test_the_drawing_of_a_printed_network():
    encoder = encoder_of(ARCHITECTURES["msnas-r18-1"])
    assert encoder.reads == [11, 11, 8, 8, 5]
    axes = Figure().add_subplot()
    draw_encoder(axes, encoder=encoder)
    dead, alive, *_ = axes.lines
    assert dead.get_xdata().tolist() == [12, 13], "the last block is dead"
    assert dead.get_label() == "dead"
    assert alive.get_ydata().tolist() == [0, 0, -1, -2, -2, -3, -3, -2, -2, -2, -1, -1, -1]
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == 3, "laterals lead to blocks 9, 12 and 13"
    assert [text.get_text() for text in axes.texts] == ["heads 1, 2", "heads 3, 4", "head 5"]
    assert [round(text.get_position()[1]) for text in axes.texts] == [-1, -2, -3]


def test_the_section_tells_and_draws_the_winner(msnas):
    section = encoders(msnas)
    best = msnas.folder.read_entries()[0]
    (figure,) = section.figures["encoders"]
    assert figure["id"] == best.id
    assert (figure["strides"], figure["heads"]) == (best.architecture.spec["strides"], best.architecture.spec["heads"])
    assert figure["gmacs_live_blocks"] <= figure["gmacs_all_blocks"] == best.costs["gmacs"]
    assert [plot.name for plot in section.drawings] == ["encoder-1"]
    assert best.id in section.html
