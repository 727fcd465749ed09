import copy

import pytest

from nasray.architectures import ARCHITECTURES, checked_spec, compose, slot_of
from nasray.spaces import Architecture, NasrayError

PAPER = ARCHITECTURES["fad-paper"]


def test_it_fills_the_slot_of_heads():
    assert slot_of(PAPER) == "head"
    whole = compose({"backbone": ARCHITECTURES["resnet50"], "head": PAPER})
    assert whole.family == "composite"
    assert compose({"backbone": ARCHITECTURES["resnet50"]}) == ARCHITECTURES["resnet50"]


def broken(change):
    spec = copy.deepcopy(PAPER.spec)
    change(spec)
    return Architecture.create("fad", spec)


def set_edge(spec, state, name):
    spec["groups"]["box"]["nodes"][1][0] = [state, name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("cells"), "spec lacks cells"),
        (lambda spec: spec.update(cells=0), "spec.cells"),
        (lambda spec: spec["groups"].pop("box"), "box and class, or mask"),
        (lambda spec: spec["groups"]["box"].update(channels=True), "spec.groups.box.channels"),
        (lambda spec: spec["groups"]["box"].update(wide=3), "unknown key 'wide'"),
        (lambda spec: spec["groups"]["class"]["nodes"].pop(), "a list of 3 nodes"),
        (lambda spec: spec["groups"]["class"]["nodes"][0].pop(), "a list of two edges"),
        (lambda spec: set_edge(spec, 0, "standrd-1"), "did you mean 'standard-1'"),
        (lambda spec: set_edge(spec, 3, "standard-1"), r"box.nodes\[1\]: a state"),
        (lambda spec: set_edge(spec, 2, "standard-1"), "the earlier first; got 2 and 2"),
        (lambda spec: set_edge(spec, 0, ["standard-1"]), "unknown transformation"),
    ],
)
def test_a_spec_that_is_not_understood_is_refused_by_its_place(change, message):
    with pytest.raises(NasrayError, match=message):
        checked_spec(broken(change))
