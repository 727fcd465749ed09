"""Golden figures come from the released code of DetNAS and of Single Path One-Shot, whose networks were built and
counted (multiply-adds of convolutions and linear layers, 224x224); sums of its look-up table of blocks agree."""

import collections
import json

import numpy as np
import pytest

from nasray.spaces import Architecture, Budget, ShuffleNetSpace
from nasray.spaces.shufflenet import CHOICES, SIZES, block_tables

SMALL, LARGE, WIDE = (ShuffleNetSpace(size) for size in SIZES)
DETNASNET = "0031210203123320211320222131033313333333"
# name: space, encoding, parameters and multiply-adds of the whole classifier, then those of the backbone
NETWORKS = {
    "COCO_FPN_300M": (SMALL, "21202112331300313132", 3_533_112, 321_219_008, 1_849_680, 288_082_368),
    "COCO_RetinaNet_300M": (SMALL, "23113213311133203333", 3_725_320, 324_342_464, 2_041_888, 291_205_824),
    "VOC_FPN_300M": (SMALL, "21031303201133333331", 3_651_128, 349_524_544, 1_967_696, 316_387_904),
    "VOC_RetinaNet_300M": (SMALL, "13002333233332202311", 3_479_480, 360_625_984, 1_796_048, 327_489_344),
    "COCO_FPN_300M, alternative": (SMALL, "00012033122233313232", 3_540_792, 333_073_088, 1_857_360, 299_936_448),
    "SPOS": (SMALL, "21012020202300003233", 3_560_504, 322_918_720, 1_877_072, 289_782_080),
    "all 3x3": (SMALL, "0" * 20, 3_156_920, 295_842_496, 1_473_488, 262_705_856),
    "all 5x5": (SMALL, "1" * 20, 3_214_008, 313_654_976, 1_530_576, 280_518_336),
    "all 7x7": (SMALL, "2" * 20, 3_299_640, 340_373_696, 1_616_208, 307_237_056),
    "all xception": (SMALL, "3" * 20, 3_872_856, 358_825_920, 2_189_424, 325_689_280),
    "COCO_FPN_1.3G": (LARGE, DETNASNET, 10_426_328, 1_318_374_496, 8_415_216, 1_269_181_536),
    "large, all 3x3": (LARGE, "0" * 40, 8_255_576, 1_085_874_592, 6_244_464, 1_036_681_632),
    "large-wide, all 3x3": (WIDE, "0" * 40, 24_734_688, 3_413_493_728, 20_014_520, 3_265_452_512),
    "COCO_FPN_3.8G": (WIDE, DETNASNET, 31_444_596, 4_085_874_080, 26_724_428, 3_937_832_864),
}
# multiply-adds of the stem, and of a stage's first block and of each other one, by choice
BLOCKS = {
    "small": (
        5_419_008,
        [
            (13_396_992, 15_805_440, 19_418_112, 13_146_112), (7_325_696, 8_931_328, 11_339_776, 12_343_296),
            (26_304_768, 28_111_104, 30_820_608, 20_296_192), (10_599_680, 11_603_200, 13_108_480, 16_746_240),
            (30_670_080, 31_673_600, 33_178_880, 21_199_360), (10_317_440, 10_819_200, 11_571_840, 15_899_520),
            (30_387_840, 30_889_600, 31_642_240, 20_634_880), (10_176_320, 10_427_200, 10_803_520, 15_476_160),
        ],
    ),
    "large": (
        16_257_024,
        [
            (46_061_568, 50_878_464, 58_103_808, 34_320_384), (15_805_440, 18_213_888, 21_826_560, 25_740_288),
            (58_423_680, 61_133_184, 65_197_440, 44_142_336), (23_425_920, 24_931_200, 27_189_120, 36_408_960),
            (68_584_320, 70_089_600, 72_347_520, 46_851_840), (23_002_560, 23_755_200, 24_884_160, 35_138_880),
            (68_160_960, 68_913_600, 70_042_560, 46_005_120), (22_790_880, 23_167_200, 23_731_680, 34_503_840),
        ],
    ),
}  # fmt: skip


def row_of(encoding):
    return np.array([[int(digit) for digit in encoding]])


def whole(costs):
    """Multiply-adds and parameters of the first network, as whole numbers."""
    return round(costs["gmacs"][0] * 1e9), round(costs["params_m"][0] * 1e6)


@pytest.mark.parametrize(
    ("space", "encoding", "params", "macs", "own_params", "own_macs"), NETWORKS.values(), ids=NETWORKS
)
def test_costs_of_the_released_networks(space, encoding, params, macs, own_params, own_macs):
    row = row_of(encoding)
    assert whole(space.cost(row)) == (own_macs, own_params)
    assert whole(space.classifier_cost(row)) == (macs, params)
    num_xception = encoding.count("3")
    assert space.cost(row)["layers"] == 1 + 3 * len(encoding) + 3 * num_xception


def test_the_widened_network_of_the_paper():
    """29.5 M: its last convolution had 1024 channels, as in the released code's first commit."""
    assert whole(WIDE.classifier_cost(row_of(DETNASNET), width=1024)) == (4_025_560_992, 29_521_972)


def test_the_widened_network_is_the_same_by_its_channels():
    space = ShuffleNetSpace(**WIDE.network_options())
    assert whole(space.classifier_cost(row_of("0" * 40))) == (3_413_493_728, 24_734_688)


@pytest.mark.parametrize("size", BLOCKS)
def test_costs_of_blocks(size):
    stem, shapes = BLOCKS[size]
    tables = block_tables(SIZES[size], (224, 224))
    expected = []
    for stage, depth in enumerate(SIZES[size].depths):
        expected += [shapes[2 * stage], *[shapes[2 * stage + 1]] * (depth - 1)]
    assert tables.macs[1:].tolist() == [list(map(float, row)) for row in expected]
    assert (tables.macs[0] == stem).all()


def test_distribution_of_costs():
    """All 4^20 costs, block by block: released look-up table, dynamic programming."""
    table = block_tables(SMALL.size, (224, 224)).macs.astype(int)
    head = whole(SMALL.classifier_cost(row_of("0" * 20)))[0] - whole(SMALL.cost(row_of("0" * 20)))[0]
    counts = collections.Counter({int(table[0, 0]): 1})
    for block in table[1:].tolist():
        following = collections.Counter()
        for macs, count in counts.items():
            for extra in block:
                following[macs + extra] += count
        counts = following
    assert counts.total() == SMALL.num_architectures == 4**20
    assert (min(counts) + head, max(counts) + head, len(counts)) == (270_359_360, 398_609_216, 17_851)
    assert sum(count for macs, count in counts.items() if macs <= 300e6) == 757_185_372_520
    assert sum(macs * count for macs, count in counts.items()) / 4**20 == pytest.approx(294.04e6, abs=5e3)


@pytest.mark.parametrize(
    ("space", "low", "mean", "high"), [(SMALL, 237.22, 294.04, 365.47), (LARGE, 966.8, 1170.0, 1485.6)]
)
def test_range_of_costs(space, low, mean, high):
    table = block_tables(space.size, (224, 224)).macs / 1e6
    found = [table[0, 0] + reduce(table[1:], axis=1).sum() for reduce in (np.min, np.mean, np.max)]
    assert found == pytest.approx([low, mean, high], rel=1e-4)


def test_sizes():
    assert LARGE.num_architectures == 4**40
    assert (SMALL.num_genes, LARGE.num_genes, WIDE.num_genes) == (20, 40, 40)
    assert [gene.name for gene in SMALL.genes[:5]] == ["c2.0", "c2.1", "c2.2", "c2.3", "c3.0"]
    assert not any(gene.ordered for gene in SMALL.genes)


@pytest.mark.parametrize("image_hw", [(224, 224), (97, 131)])
def test_look_up_and_layers_agree(image_hw):
    space = ShuffleNetSpace("large", image_hw=image_hw)
    rows = space.sample(32, np.random.default_rng(0))
    layers = space.layers(rows).cost()
    assert all(np.array_equal(values, layers[name]) for name, values in space.cost(rows).items())
    other = space.cost(rows, (64, 64))
    assert (other["gmacs"] < layers["gmacs"]).all()
    assert np.array_equal(other["params_m"], layers["params_m"])


def test_mutation_redraws_every_position_with_probability_a_tenth():
    rows = SMALL.sample(20_000, np.random.default_rng(0))
    changed = SMALL.mutate(rows, np.random.default_rng(1)) != rows
    # 0.1, of which a quarter is drawn as it was; a position's deviation is 0.0019
    assert changed.mean(axis=0) == pytest.approx(np.full(20, 0.075), abs=0.008)
    assert changed.sum(axis=1).max() > 4


def test_crossover_is_uniform():
    first, second = np.zeros((4000, 20), dtype=np.int64), np.ones((4000, 20), dtype=np.int64)
    children = SMALL.crossover(first, second, np.random.default_rng(0))
    assert children.mean(axis=0) == pytest.approx(np.full(20, 0.5), abs=0.04)
    assert 0.1 < (children[:, 0] != children[:, 1]).mean() < 0.9


def test_share_of_samples_within_a_budget():
    rows = SMALL.sample(20_000, np.random.default_rng(0))
    budget = Budget(upper={"gmacs": 0.3})
    share = budget.admits(SMALL.cost(rows), len(rows)).mean()
    assert share == pytest.approx(0.688656, abs=0.012)  # of all 4^20, counted exactly


def test_spec_is_readable_and_names_the_shuffle():
    space = ShuffleNetSpace(stem_width=4, widths=(8, 12, 16, 24), depths=(1, 2, 1, 1), shuffle="even-odd")
    architecture = space.to_architecture(np.array([0, 1, 2, 3, 0]))
    assert architecture.spec == {
        "stem": {"width": 4},
        "stages": [
            {"width": 8, "blocks": ["3x3"]},
            {"width": 12, "blocks": ["5x5", "7x7"]},
            {"width": 16, "blocks": ["xception"]},
            {"width": 24, "blocks": ["3x3"]},
        ],
        "shuffle": "even-odd",
    }
    other = ShuffleNetSpace(stem_width=4, widths=(8, 12, 16, 24), depths=(1, 2, 1, 1))
    assert other.to_architecture(np.array([0, 1, 2, 3, 0])).id != architecture.id
    with pytest.raises(ValueError, match="would read as"):
        other.from_architecture(architecture)


def test_foreign_networks_are_refused():
    architecture = SMALL.to_architecture(np.zeros(20, dtype=np.int64))
    with pytest.raises(ValueError, match="20 blocks instead of 40"):
        LARGE.from_architecture(architecture)
    spec = json.loads(json.dumps(architecture.spec).replace("3x3", "9x9"))
    with pytest.raises(ValueError, match="malformed spec"):
        SMALL.from_architecture(Architecture.create("shufflenet", spec))
    with pytest.raises(ValueError, match=r"c2.0=4 not allowed"):
        SMALL.checked_row(np.array([len(CHOICES)] + [0] * 19))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "300M"}, "one of small, large, large-wide; got '300M'"),
        ({"shuffle": "random"}, "one of interleave, even-odd; got 'random'"),
        ({"widths": (64, 64, 96, 128)}, "each more than the one before"),
        ({"widths": (18, 32, 64, 96)}, "multiples of 4"),
        ({"stem_width": 64}, "more than the stem's 64"),
        ({"depths": (1, 1, 0, 1)}, "blocks of a stage is a whole number from 1"),
        ({"depths": (1, 1, 1)}, "four stages"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetSpace(**options)
