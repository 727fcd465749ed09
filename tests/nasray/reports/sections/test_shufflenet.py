from matplotlib.figure import Figure

from nasray.architectures import ARCHITECTURES
from nasray.reports.sections.shufflenet import blocks, describe
from nasray.spaces.shufflenet import CHOICES


def test_an_architecture_in_a_line():
    text = describe(ARCHITECTURES["detnas-coco-fpn"])
    assert text.startswith("ShuffleNetV2 blocks: C2 7x7, 5x5, 7x7, 3x3; C3 7x7, 5x5, 5x5, 7x7; C4 xception")


def test_the_blocks_of_the_winner_and_the_shares_of_the_best(shufflenet):
    section = blocks(shufflenet)
    best = shufflenet.folder.read_entries()[0].architecture.spec["stages"]
    assert section.figures["blocks"] == [stage["blocks"] for stage in best]
    axes = Figure().add_subplot()
    section.drawings[0].plot(axes)
    heights = sum(bar.get_height() for bar in axes.patches)
    assert round(heights, 9) == shufflenet.space.num_genes, "shares add up to one for every block"
    dots = [line.get_xdata().tolist() for line in axes.lines]
    chosen = {place: choice for choice, places in enumerate(dots) for place in places}
    named = [name for stage in best for name in stage["blocks"]]
    assert [CHOICES[chosen[place]] for place in range(len(named))] == named
