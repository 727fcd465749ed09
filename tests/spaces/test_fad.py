"""Golden figures come from the released code of FAD, whose heads were built and counted at 1280x800 pixels and others:
multiply-adds of convolutions, and parameters, with the predictions of FCOS for 80 classes."""

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.spaces import Architecture, FADSpace, NasrayError
from nasray.spaces.fad import num_pixels
from nasray.spaces.transformations import DARTS, NAMES

PREDICTIONS = 9 * 256 * (80 + 4 + 1)
SIZES = {(800, 1280): 21_330, (800, 1333): 22_300, (640, 640): 8_525, (256, 256): 1_364}
# channels within edges for boxes and classes, cells: parameters, multiply-adds by size
PAPER = {
    (96, 96, 1): (2_182_197, 46_277_568_000, 48_382_080_000, 18_495_840_000, 2_959_334_400),
    (96, 96, 2): (4_169_493, 88_377_868_800, 92_396_928_000, 35_322_144_000, 5_651_543_040),
    (128, 128, 2): (6_097_493, 129_375_152_640, 135_258_598_400, 51_707_603_200, 8_273_216_512),
    (128, 256, 2): (11_340_373, 240_949_140_480, 251_906_508_800, 96_300_582_400, 15_408_093_184),
}


def named(name, channels, class_channels, cells):
    """A published head with other channels and cells."""
    groups = ARCHITECTURES[name].spec["groups"]
    widths = {"box": channels, "class": class_channels}
    changed = {key: {**group, "channels": widths[key]} for key, group in groups.items()}
    return Architecture.create("fad", {"cells": cells, "groups": changed})


@pytest.mark.parametrize("options", PAPER, ids=str)
def test_the_published_head_costs_what_was_counted(options):
    channels, class_channels, cells = options
    space = FADSpace(channels=channels, class_channels=class_channels, cells=cells)
    rows = space.from_architecture(named("fad-paper", *options))[None]
    params, *macs = PAPER[options]
    for size, counted in zip(SIZES, macs, strict=True):
        costs = space.cost(rows, size)
        assert round(costs["params_m"][0] * 1e6) + PREDICTIONS + 85 == params
        assert round(costs["gmacs"][0] * 1e9) + PREDICTIONS * SIZES[size] == counted


def test_the_other_published_head():
    costs = FADSpace().cost(FADSpace().from_architecture(ARCHITECTURES["fad-other"])[None])
    assert round(costs["params_m"][0] * 1e6) + PREDICTIONS + 85 == 5_169_237
    assert round(costs["gmacs"][0] * 1e9) + PREDICTIONS * 21_330 == 109_706_503_680


def test_pixels_of_all_levels():
    assert {size: num_pixels(size) for size in SIZES} == SIZES


def test_how_many_heads_there_are():
    """13^12, "2.3 x 10^13 unique paths", counts what is on twelve given edges, `none` included."""
    assert FADSpace().num_architectures == (18 * 12**6) ** 2 == 2_888_816_545_234_944
    assert FADSpace(groups=1).num_architectures == 18 * 12**6
    assert 13**12 == 23_298_085_122_481


def test_subsets_are_those_of_table_2_and_rows_stay_rows_of_the_whole_space():
    wanted = {"rf-5": 4, "rf-7": 8, "standard": 6, "separable": 6, "fad": 12}
    for operations, num in wanted.items():
        space = FADSpace(operations=operations)
        assert space.num_architectures == (18 * num**6) ** 2
        rows = space.sample(100, np.random.default_rng(0))
        assert FADSpace().is_valid(rows).all()
        used = {NAMES[place] for row in rows for place in row[[0, 1, 3, 4, 6, 7]]}
        assert len(used) == num


def test_operations_of_darts_are_a_list_of_their_own():
    space = FADSpace(operations="darts", channels=8, in_channels=16, cells=1)
    assert space.num_architectures == (18 * 7**6) ** 2
    row = space.sample(1, np.random.default_rng(0))[0]
    used = {
        name
        for group in space.to_architecture(row).spec["groups"].values()
        for node in group["nodes"]
        for _, name in node
    }
    assert used <= {each.name for each in DARTS}
    assert space.from_architecture(space.to_architecture(row)).tolist() == row.tolist()
    with pytest.raises(ValueError, match="not an architecture of space 'fad'"):
        FADSpace().from_architecture(space.to_architecture(row))
    scores = np.zeros((2, 9, 7))
    scores[:, :, 3] = 1  # twice a separable convolution on every edge
    edges = [
        edge for node in space.to_architecture(space.derive(scores)).spec["groups"]["box"]["nodes"] for edge in node
    ]
    assert {name for _, name in edges} == {"sep-conv-3x3"}
    assert space.network_options()["operations"] == "darts"
    assert "operations" not in FADSpace().network_options()


def test_samples_are_uniform_over_inputs():
    rows = FADSpace().sample(60_000, np.random.default_rng(1))
    counts = np.unique(rows[:, 5], return_counts=True)[1]  # of the third node, six pairs
    assert len(counts) == 6
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 15.1  # chi-square, 5 degrees of freedom, p > .01


def test_what_there_is_not_is_refused():
    with pytest.raises(NasrayError, match="class_channels is of the second group"):
        FADSpace(groups=1, class_channels=64)
    with pytest.raises(NasrayError, match="operations is one of fad, rf-5"):
        FADSpace(operations="all")
    with pytest.raises(ValueError, match="malformed spec"):
        FADSpace().from_architecture(Architecture.create("fad", {"cells": 2}))
    with pytest.raises(ValueError, match="not an architecture of space 'fad'"):
        FADSpace(operations="separable").from_architecture(ARCHITECTURES["fad-paper"])


def brute_force(scores):
    """The nodes of a head, edge by edge as the paper says it."""
    nodes, edges = [], list(scores)
    for node in range(3):
        own = [edges.pop(0) for _ in range(node + 2)]
        best = sorted(range(node + 2), key=lambda state: (-max(own[state]), state))[:2]
        nodes.append([[state, NAMES[list(own[state]).index(max(own[state]))]] for state in sorted(best)])
    return nodes


@pytest.mark.parametrize("seed", range(20))
def test_a_head_is_derived_by_the_two_best_edges_of_each_node(seed):
    scores = np.random.default_rng(seed).integers(0, 50, size=(2, 9, 12)).astype(float)  # with ties
    groups = FADSpace().to_architecture(FADSpace().derive(scores)).spec["groups"]
    assert [groups[name]["nodes"] for name in ("box", "class")] == [brute_force(group) for group in scores]


def test_a_head_is_derived_as_by_the_released_code():
    """One cell of ten transformations, which lack those of dilation 3; what is best stands on each edge's line."""
    names = [name for name in NAMES if not name.endswith("d3")]
    best = [
        ("standard-1", 0.845), ("standard-2", 0.943),
        ("separable-3", 0.996), ("separable-2+d2", 0.929), ("standard-2", 0.998),
        ("separable-1+d2", 0.999), ("separable-2+d2", 0.972), ("separable-3", 0.919), ("standard-3", 0.977),
    ]  # fmt: skip
    scores = np.zeros((1, 9, 12))
    for edge, (name, score) in enumerate(best):
        assert name in names
        scores[0, edge, NAMES.index(name)] = score
    space = FADSpace(groups=1)
    assert space.to_architecture(space.derive(scores)).spec["groups"]["mask"]["nodes"] == [
        [[0, "standard-1"], [1, "standard-2"]],
        [[0, "separable-3"], [2, "standard-2"]],
        [[0, "separable-1+d2"], [3, "standard-3"]],
    ]


def test_a_subset_is_derived_from_its_own_transformations():
    scores = np.random.default_rng(0).random((2, 9, 12))
    scores[:, :, :6] += 1
    row = FADSpace(operations="separable").derive(scores)
    assert FADSpace(operations="separable").is_valid(row[None]).all()
    with pytest.raises(NasrayError, match="scores are 2 x 9 x 12 finite numbers"):
        FADSpace().derive(scores[:1])
    with pytest.raises(NasrayError, match="finite"):
        FADSpace().derive(scores * np.nan)
