"""The networks that the MSNAS paper prints, counted as its baselines are, and by hand."""

import numpy as np
import pytest

from nasray.spaces import MSNASSpace, NasrayError
from nasray.spaces.msnas_layers import Size, block_convs, check_size, map_hw, msnas_layers, part_costs
from tests.spaces.msnas_rows import LABELLED, row_of

# Multiply-adds at 832x1280 with biases, stem, and two outputs for objectness, computed from the definition of each part
# by hooks on modules and by a formula; the paper's Table 1 states 145.45, 182.20 and 197.33 G for their windows.
MACS = {
    "r18-1": 145_897_758_240,
    "r18-2": 147_587_238_240,
    "r18-3": 146_046_825_600,
    "r18-4": 147_316_921_440,
    "r18-5": 147_249_342_240,
    "r34-1": 180_501_813_440,
    "r34-2": 178_589_197_800,
    "r34-3": 179_077_804_360,
    "r34-4": 181_863_797_440,
    "r34-5": 180_715_471_040,
    "r50-1": 198_634_038_720,
    "r50-2": 200_079_091_680,
    "r50-3": 199_382_918_280,
    "r50-4": 198_680_450_280,
    "r50-5": 199_336_506_720,
}
OURS = {
    "r18-1": 145.84663392,
    "r18-2": 147.53143392,
    "r18-3": 145.98984192,
    "r18-4": 147.26186592,
    "r18-5": 147.19447392,
}


def counted_as_published(label, counted="all"):
    space, row = MSNASSpace(label[:3]), row_of(label)
    alive = space.alive(row) if counted == "live" else np.ones((1, space.size.blocks), dtype=bool)
    table = msnas_layers(space.size, *space.parts(row), alive, space.image_hw, objectness=2)
    return table.gmacs_bias()[0]


@pytest.mark.parametrize("label", LABELLED)
def test_macs_of_the_printed_networks(label):
    assert counted_as_published(label) == MACS[label] / 1e9
    target = {"r18": 145.45, "r34": 182.20, "r50": 197.33}[label[:3]]
    assert counted_as_published(label) == pytest.approx(target, rel=0.02)


def test_the_first_printed_network_without_its_dead_block():
    assert counted_as_published("r18-1") == pytest.approx(145.9, abs=0.05)
    assert counted_as_published("r18-1", "live") == pytest.approx(102.8, abs=0.05)
    costs = {counted: MSNASSpace().cost(row_of("r18-1"), counted=counted) for counted in ("all", "live")}
    assert costs["all"]["gmacs"] == [145.84663392]
    assert costs["live"]["gmacs"] == [102.71575392]
    assert costs["all"]["layers"] - costs["live"]["layers"] == [2]


@pytest.mark.parametrize("label", OURS)
def test_our_convention_has_neither_biases_nor_a_second_objectness(label):
    assert MSNASSpace("r18").cost(row_of(label))["gmacs"] == [OURS[label]]


def test_a_basic_network_by_hand():
    # Blocks of stride 1 and 2 on a 64x128 image; maps of 16x32 and 8x16 pixels, heads read 4, 8, 8, 8, 8.
    space = MSNASSpace("tiny", blocks=2, stem_width=4, width=6, image_hw=(64, 128))
    row = np.array([[1, 2, 4, 8, 8, 8, 8]])
    stem, first = 49 * 3 * 4 * 32 * 64, (9 * 4 * 6 + 9 * 6 * 6 + 4 * 6) * 512
    second = (2 * 9 * 6 * 6 + 6 * 6) * 128
    outputs, rpn = 9 * 6 * 6 * (512 + 128), (9 * 6 * 6 + 6 * 15) * (512 + 4 * 128)
    params = (49 * 3 + 2) * 4 + (9 * 4 + 2) * 6 + 3 * (9 * 6 + 2) * 6 + (4 + 2) * 6 + (6 + 2) * 6
    params += 2 * (9 * 6 + 1) * 6 + (9 * 6 + 1) * 6 + (6 + 1) * 15
    cost = space.cost(row)
    assert cost["gmacs"] == [(stem + first + second + outputs + rpn) / 1e9]
    assert cost["params_m"] == [params / 1e6]
    assert cost["layers"] == [5]


@pytest.mark.parametrize(("variant", "counted"), [("r18", "all"), ("r50", "live"), ("tiny", "live")])
def test_layers_add_up_to_costs(variant, counted):
    space = MSNASSpace(variant, counted=counted)
    rows = space.sample(64, np.random.default_rng(0))
    for image_hw in ((832, 1280), (100, 70)):
        own, costs = space.layers(rows, image_hw).cost(), space.cost(rows, image_hw)
        assert list(own) == list(costs)
        for name, values in costs.items():
            np.testing.assert_array_equal(own[name], values)
    assert (space.layers(rows).repeats.sum(axis=1) > 0).all()
    assert space.layers(rows[:0]).cost()["gmacs"].shape == (0,)


def test_images_are_padded_to_multiples_of_64():
    assert map_hw((832, 1280), 64) == (13, 20)
    assert map_hw((65, 64), 4) == (32, 16)
    rows = MSNASSpace().sample(4, np.random.default_rng(0))
    padded, given = (MSNASSpace(image_hw=image_hw).cost(rows) for image_hw in ((832, 1344), (800, 1333)))
    np.testing.assert_array_equal(padded["gmacs"], given["gmacs"])


def test_shortcuts_project_where_scale_or_channels_change():
    size = Size("basic", 3, 8, 8)
    roles = {move: [conv.role for conv in block_convs(size, move, is_first=True)] for move in range(3)}
    assert roles == {0: ["shortcut", "main", "main"], 1: ["main", "main"], 2: ["shortcut", "main", "main"]}
    assert [conv.skip for conv in block_convs(size, 1, is_first=True)] == [False, True]
    bottleneck = Size("bottleneck", 3, 8, 32, 8)
    assert block_convs(bottleneck, 1, is_first=True)[0].role == "shortcut"
    assert [conv.finer for conv in block_convs(bottleneck, 2, is_first=False)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (Size("dense", 3, 8, 8), "block is one of basic, bottleneck; got 'dense'"),
        (Size("basic", 33, 8, 8), "blocks is a whole number from 1 to 32; got 33"),
        (Size("basic", 3, 8, 0), "width is a whole number from 1"),
        (Size("basic", 3, 8, 8, 4), "mid is of bottlenecks, and block is basic; got 4"),
        (Size("bottleneck", 3, 8, 8), "mid, the channels within a bottleneck, is a whole number from 1"),
    ],
)
def test_sizes_that_are_refused(size, message):
    with pytest.raises(NasrayError, match=message):
        check_size(size)


def test_costs_of_parts_are_shared_between_calls():
    assert part_costs(Size("basic", 3, 8, 8), (64, 64)) is part_costs(Size("basic", 3, 8, 8), (64, 64))
