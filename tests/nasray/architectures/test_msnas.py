import copy
from pathlib import Path

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES, checked_spec, layer_table, slot_of
from nasray.spaces import Architecture, MSNASSpace, NasrayError
from nasray.spaces.msnas_layers import msnas_layers
from tests.spaces.msnas_rows import LABELLED, row_of


@pytest.mark.parametrize("label", LABELLED)
def test_published_networks(label):
    architecture, space = ARCHITECTURES[f"msnas-{label}"], MSNASSpace(label[:3])
    assert (architecture.spec["strides"], architecture.spec["heads"]) == LABELLED[label]
    assert slot_of(architecture) == "pyramid"
    assert checked_spec(architecture) == architecture.spec
    np.testing.assert_array_equal(space.from_architecture(architecture), row_of(label)[0])
    own, costs = layer_table(architecture, (832, 1280)).cost(), space.cost(row_of(label))
    assert {name: values[0] for name, values in own.items()} == {name: values[0] for name, values in costs.items()}


def test_there_are_fifteen():
    assert sorted(name for name in ARCHITECTURES if name.startswith("msnas")) == sorted(f"msnas-{i}" for i in LABELLED)


def broken(change):
    spec = copy.deepcopy(ARCHITECTURES["msnas-r50-1"].spec)
    change(spec)
    return Architecture.create("msnas", spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("heads"), "spec lacks heads"),
        (lambda spec: spec.update(pyramid_channels=3), "unknown key 'pyramid_channels'"),
        (lambda spec: spec.update(block="dense"), "block is one of basic, bottleneck"),
        (lambda spec: spec.pop("mid"), "mid, the channels within a bottleneck"),
        (lambda spec: spec.update(block="basic"), "mid is of bottlenecks"),
        (lambda spec: spec.update(width="wide"), "width is a whole number"),
        (lambda spec: spec.update(strides=3), "spec.strides is a list"),
        (lambda spec: spec.update(strides=[]), "of 1 to 32 blocks"),
        (lambda spec: spec["strides"].__setitem__(2, 3), r"spec.strides\[2\] is one of 0.5, 1, 2; got 3"),
        (lambda spec: spec["strides"].__setitem__(0, True), r"spec.strides\[0\] is one of 0.5, 1, 2; got True"),
        (lambda spec: spec["strides"].__setitem__(0, 0.5), r"spec.strides\[0\] leads to a map of stride 2"),
        (lambda spec: spec["strides"].__setitem__(12, 2), r"spec.strides\[12\] leads to a map of stride 128"),
        (lambda spec: spec["heads"].pop(), "spec.heads of 5 groups; got 21 and 4"),
        (lambda spec: spec["heads"].__setitem__(4, 128), r"spec.heads\[4\] is one of 4, 8, 16, 32, 64; got 128"),
        (
            lambda spec: spec.update(strides=[1, 2]),
            r"spec.heads\[2\] reads stride 16; the strides of this path are 4, 8",
        ),
    ],
)
def test_a_spec_that_is_not_understood_is_refused_by_its_place(change, message):
    with pytest.raises(NasrayError, match=message):
        checked_spec(broken(change))


def test_whole_strides_are_whole_numbers():
    spec = {**ARCHITECTURES["msnas-r18-1"].spec, "strides": [1.0, 2.0, 0.5], "heads": [4, 4, 4, 8, 8]}
    assert str(checked_spec(Architecture.create("msnas", spec))["strides"]) == "[1, 2, 0.5]"


def test_the_table_of_the_docs():
    page = (Path(__file__).parents[3] / "docs" / "msnas.md").read_text()
    for label in LABELLED:
        space, row = MSNASSpace(label[:3]), row_of(label)
        alive = np.ones((1, space.size.blocks), dtype=bool)
        table = msnas_layers(space.size, *space.parts(row), alive, space.image_hw, objectness=2)
        every, live = (space.cost(row, counted=counted) for counted in ("all", "live"))
        figures = table.gmacs_bias()[0], every["gmacs"][0], live["gmacs"][0], every["params_m"][0]
        assert f"| `msnas-{label}` | {' | '.join(f'{figure:.2f}' for figure in figures)} |" in page
