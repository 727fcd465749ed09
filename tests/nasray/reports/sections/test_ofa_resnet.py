import numpy as np

from nasray.reports.sections import BY_FAMILY
from nasray.reports.sections.ofa_resnet import describe, stages
from nasray.spaces import OFAResNetSpace

ROW = [2, 65, 100, 0, 80, 20, 25, 0, 0, 1, 100, 35, 20, 25, 0, 2, 65, 20, 20, 25, 25, 35, 35, 0, 100, 35, 35, 0, 0]


def test_an_architecture_in_a_line():
    text = describe(OFAResNetSpace().to_architecture(np.array(ROW)))
    assert text == (
        "once-for-all ResNet, stages as blocks × width (expansions), in percent: C2 2 × 80 (20, 25); "
        "C3 3 × 100 (35, 20, 25); C4 6 × 65 (20, 20, 25, 25, 35, 35); C5 2 × 100 (35, 35); "
        "stem 65, 100 with a residual convolution"
    )


def test_the_stages_of_the_front_from_the_cheapest_on(detofa):
    section = stages(detofa)
    entries = sorted(detofa.folder.read_entries(), key=lambda entry: entry.costs["gmacs"])
    places = [section.html.index(entry.id) for entry in entries]
    assert places == sorted(places)
    blocks = [len(stage["expand"]) for stage in detofa.folder.read_entries()[0].architecture.spec["stages"]]
    assert [int(text.split()[0]) for text in section.figures["stages_of_best"]] == blocks
    titles = [section.title for section in BY_FAMILY["ofa-resnet"].sections(detofa)]
    assert titles == ["Stages of the best", "Where the depth and the computation go"]
