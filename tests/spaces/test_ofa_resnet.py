"""Golden figures are of once-for-all's released ResNet-50 (Cai et al., ICLR 2020), its networks built and counted as
classifiers at 224x224: depths of stem and stages, places of the six widths, places of the eighteen expansions."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from nasray.spaces import Budget, OFAResNetSpace, RestrictedSpace
from nasray.spaces.buckets import Buckets
from nasray.spaces.ofa_layers import EXPANSIONS, WIDTHS
from nasray.spaces.profile import list_rows
from nasray.spaces.restricted import forbid_values
from nasray.spaces.tokens import ABSENT
from nasray.spaces.windows import Surcharge, count_within

SPACE = OFAResNetSpace()
NETWORKS = [
    ("22222", "222222", "222222222222222222", 7_491_643_904, 48_105_992),
    ("00000", "000000", "000000000000000000", 962_192_128, 6_539_280),
    ("01111", "111111", "111111111111111111", 2_485_163_840, 15_860_768),
    ("00000", "222222", "222222222222222222", 4_444_104_192, 27_886_280),
    ("22222", "000000", "000000000000000000", 1_543_938_944, 10_109_184),
    ("20120", "200222", "020120200011000210", 3_353_017_664, 21_702_440),
    ("02210", "010220", "002011020212200222", 3_492_947_264, 16_588_528),
    ("02012", "211200", "211121110020021211", 2_643_489_536, 14_455_848),
    ("20101", "220022", "102022112121210011", 2_982_483_584, 21_366_392),
    ("22221", "111001", "121210110201001020", 2_600_838_336, 15_761_824),
    ("22101", "011001", "212112100000020012", 2_202_456_576, 11_732_032),
    ("22210", "000010", "222222012211110121", 2_566_397_248, 11_170_160),
    ("01200", "100111", "020201200021021121", 2_084_210_560, 12_424_432),
    ("21000", "202121", "212112020021022021", 3_205_023_232, 15_744_504),
    ("01022", "110221", "212020012002112001", 3_542_977_408, 23_644_464),
    ("22110", "120101", "000101012201212020", 2_098_212_800, 13_124_720),
]
SMALL = {"size": "tiny", "depths": (1, 1, 1, 1)}


def row_of(depths, widths, expansions):
    """The row of a released encoding, whose expansions of absent blocks say nothing."""
    row, place = [int(depths[0]), WIDTHS[int(widths[0])], WIDTHS[int(widths[1])]], 0
    for stage, least in enumerate(SPACE.size.depths):
        depth, most = int(depths[stage + 1]), least + 2
        expand = [EXPANSIONS[int(digit)] for digit in expansions[place : place + least + depth]]
        row += [depth, WIDTHS[int(widths[stage + 2])], *expand, *[0] * (most - len(expand))]
        place += most
    return np.array([row])


def few_rows(**options):
    """A space of some thousand rows, small enough to be listed, with absent blocks."""
    space = OFAResNetSpace(**SMALL, **options)
    within = {"stem.depth": [0], "stem.mid.width": [65], "stem.width": [65, 100], "c2.depth": [0, 1], "c3.depth": [1]}
    within |= {
        "c4.depth": [0],
        "c5.depth": [0],
        "c2.width": [100],
        "c5.width": [65, 100],
        "c3.width": [80],
        "c2.0.expand": [20],
    }
    return RestrictedSpace(space, forbid_values(space, within))


@pytest.mark.parametrize(("depths", "widths", "expansions", "macs", "params"), NETWORKS)
def test_costs_of_the_released_networks(depths, widths, expansions, macs, params):
    row = row_of(depths, widths, expansions)
    assert SPACE.is_valid(row).all()
    costs = SPACE.classifier_cost(row)
    assert (round(costs["gmacs"][0] * 1e9), round(costs["params_m"][0] * 1e6)) == (macs, params)


def test_how_many_there_are():
    assert SPACE.num_architectures == 2_458_914_796_962
    assert OFAResNetSpace(coupled=True).num_architectures == 18 * 1_686_498_489  # CompOFA's, and any stem
    # Two of the three widths in the middle of the stem are the same.
    fewer = RestrictedSpace(SPACE, forbid_values(SPACE, {"stem.mid.width": [80, 100]}))
    assert fewer.num_architectures == 1_639_276_531_308


def test_settings_are_drawn_uniformly():
    rng = np.random.default_rng(0)
    rows = SPACE.sample(40_000, rng)
    settings = {1: 9, 2: 27, 3: 81}  # blocks of C2 that it has: its expansions, and three widths each
    counts = [(np.count_nonzero(rows[:, 5:9], axis=1) == num).sum() for num in (2, 3, 4)]
    expected = np.array([settings[1], settings[2], settings[3]]) / 117
    assert chisquare(counts, expected * len(rows)).pvalue > 0.01
    assert set(np.unique(rows[:, 5:9])) == {0, *EXPANSIONS}


def test_draws_within_a_window_are_uniform():
    space = few_rows()
    rows = list_rows(space, 5_000)
    assert 1_000 < len(rows) <= 5_000
    gmacs = space.cost(rows)["gmacs"]
    number = {row.tobytes(): place for place, row in enumerate(rows)}
    edges = np.linspace(gmacs.min(), gmacs.max(), 6)
    for low, high in itertools.pairwise(edges):
        budget = Budget({"gmacs": high}, {"gmacs": low})
        inside = np.flatnonzero((gmacs >= low) & (gmacs <= high))
        drawn = space.sample_within(50_000, budget, np.random.default_rng(0))
        counts = np.bincount([number[row.tobytes()] for row in drawn], minlength=len(rows))
        assert counts.sum() == counts[inside].sum() == 50_000
        assert chisquare(counts[inside]).pvalue > 0.01


@pytest.mark.parametrize("name", ["gmacs", "params_m"])
def test_windows_are_counted_exactly(name):
    space = few_rows()
    costs = space.cost(list_rows(space, 5_000))[name]
    values = np.unique(costs)
    assert len(values) > 100
    for low, high in itertools.pairwise(values[:: len(values) // 20]):
        below = float(np.nextafter(high, -np.inf))
        for budget in (Budget({name: high}, {name: low}), Budget({name: below}, {name: low})):
            assert space.count(budget) == budget.admits({name: costs}, len(costs)).sum()
    assert space.count(Budget({name: values[5]})) == (costs <= values[5]).sum()
    assert space.count(Budget(lower={name: values[5]})) == (costs >= values[5]).sum()
    assert space.count(Budget({name: 0.0})) == 0
    assert space.count(Budget({name: 9.0, "layers": 9.0})) is None


def test_buckets_of_the_released_space_are_counted_exactly():
    buckets = Buckets.spanning(SPACE, "gmacs", 5)
    counts = [SPACE.count(buckets.budget(bucket)) for bucket in range(5)]
    assert sum(counts) == SPACE.num_architectures == 2_458_914_796_962
    rows = SPACE.sample(100_000, np.random.default_rng(0))
    seen = np.bincount(buckets.of(SPACE.cost(rows)["gmacs"]), minlength=5)
    assert chisquare(seen[:4], np.array(counts[:4]) / sum(counts[:4]) * seen[:4].sum()).pvalue > 0.01
    pruned = RestrictedSpace(SPACE, forbid_values(SPACE, {"expand": [20, 35]}))
    left = [pruned.count(buckets.budget(bucket)) for bucket in range(5)]
    assert sum(left) == pruned.num_architectures
    assert all(few <= many for few, many in zip(left, counts, strict=True))


def test_rare_windows_are_drawn_directly():
    """The last fifth of the costs holds 13 of a million settings: rejection would find none."""
    costs = SPACE.cost(np.concatenate([row_of("00000", "000000", "0" * 18), row_of("22222", "222222", "2" * 18)]))
    edges = np.linspace(*costs["gmacs"], 6)
    for low, high in itertools.pairwise(edges):
        budget = Budget({"gmacs": high}, {"gmacs": low})
        rows = SPACE.sample_within(300, budget, np.random.default_rng(1))
        assert len(np.unique(rows, axis=0)) == 300
        assert SPACE.is_valid(rows).all()
        assert budget.admits(SPACE.cost(rows), 300).all()
    assert not len(SPACE.sample_within(5, Budget({"gmacs": 0.9}), np.random.default_rng(0)))


def test_windows_of_restricted_spaces_and_of_other_costs():
    within = {"width": [80, 100], "expand": [35], "depth": [0, 2]}
    space = RestrictedSpace(SPACE, forbid_values(SPACE, within))
    assert space.num_architectures == 2 * 2 * 2 * 2**4 * 2**4
    budget = Budget({"gmacs": 5.0, "params_m": 35.0}, {"gmacs": 4.5})
    rows = space.sample_within(8_000, budget, np.random.default_rng(0))
    every = list_rows(space, 5_000)
    inside = every[budget.admits(space.cost(every), len(every))]
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(inside, axis=0))
    other = SPACE.sample_within(50, Budget({"layers": 41}), np.random.default_rng(0))
    assert (SPACE.cost(other)["layers"] <= 41).all()


def test_draws_within_a_window_of_a_cost_with_a_surcharge_are_uniform():
    """What a detector adds for the channels of every map; some windows are met by none of the narrow networks."""
    space, surcharge = few_rows(), Surcharge(10**7, {4: 40_000, 16: 90_000, 32: 250_000})
    rows = list_rows(space, 5_000)

    def cost(population):
        channels = space.map_channels(population)
        added = sum(each * channels[reduction] for reduction, each in surcharge.per_channel.items())
        return {"gmacs": space.cost(population)["gmacs"] + (surcharge.constant + added) / 1e9}

    cost.space, cost.surcharges = space, {("gmacs", space.image_hw): surcharge}
    gmacs = cost(rows)["gmacs"]
    number = {row.tobytes(): place for place, row in enumerate(rows)}
    for low, high in itertools.pairwise(np.linspace(gmacs.min(), gmacs.max(), 4)):
        budget = Budget({"gmacs": high + 1e-9}, {"gmacs": low - 1e-9})
        inside = np.flatnonzero(budget.admits({"gmacs": gmacs}, len(rows)))
        drawn = space.sample_within(20_000, budget, np.random.default_rng(0), cost=cost, max_tries=40_000)
        counts = np.bincount([number[row.tobytes()] for row in drawn], minlength=len(rows))
        assert counts.sum() == counts[inside].sum() == 20_000
        assert chisquare(counts[inside]).pvalue > 0.01
        assert count_within(space, budget, cost) == len(inside)


RESOLUTIONS = {"image_hw": (128, 128), "resolutions": [(96, 128), (64, 96), (128, 128)]}


def test_a_resolution_is_a_further_gene_and_no_matter_of_the_network():
    plain, space = OFAResNetSpace(**SMALL, image_hw=(128, 128)), OFAResNetSpace(**SMALL, **RESOLUTIONS)
    assert space.resolutions == ((64, 96), (96, 128), (128, 128))
    assert (space.genes[:-1], space.genes[-1].values) == (plain.genes, (64, 96, 128))
    assert space.num_architectures == 3 * plain.num_architectures
    assert space.network_options() == plain.network_options()
    assert space.operations() == plain.operations()
    rows = space.sample(200, np.random.default_rng(0))
    assert (plain.sample(200, np.random.default_rng(0)) == rows[:, :-1]).all()
    specs = [space.to_architecture(row).spec for row in rows]
    sizes = {tuple(spec.pop("resolution")) for spec in specs}
    assert sizes == set(space.resolutions)
    assert specs == [plain.to_architecture(row[:-1]).spec for row in rows]
    tokens, before = space.tokens(rows), plain.tokens(rows[:, :-1])
    assert (tokens.ids[:, :-1] == before.ids).all()
    assert (tokens.ids[:, -1] == before.vocabulary + np.searchsorted((64, 96, 128), rows[:, -1])).all()
    assert (tokens.vocabulary, tokens.block.tolist()) == (before.vocabulary + 3, [*before.block.tolist(), 4])


def test_costs_are_those_at_the_resolution_of_each_row():
    plain, space = OFAResNetSpace(**SMALL), OFAResNetSpace(**SMALL, **RESOLUTIONS)
    rows = space.sample(300, np.random.default_rng(0))
    costs, layers, classifier = space.cost(rows), space.layers(rows).cost(), space.classifier_cost(rows)
    for name, values in costs.items():
        assert (values == layers[name]).all()
        assert (space.cost(rows, (64, 64))[name] == plain.cost(rows[:, :-1], (64, 64))[name]).all()
        for size in space.resolutions:
            own = rows[:, -1] == size[0]
            assert (values[own] == plain.cost(rows[own, :-1], size)[name]).all()
            assert (classifier[name][own] == plain.classifier_cost(rows[own, :-1], size)[name]).all()
    tables = [space.layers(rows[place : place + 1]).macs.sum() for place in range(20)]
    assert tables == np.rint(costs["gmacs"][:20] * 1e9).tolist()


@pytest.mark.parametrize("within", [{}, {"resolution": [64, 128]}, {"resolution": [96]}])
def test_windows_with_resolutions_are_counted_and_drawn_exactly(within):
    """Against brute force, with what a detector adds at each size of images."""
    space = few_rows(**RESOLUTIONS)
    space = RestrictedSpace(space, forbid_values(space, within)) if within else space
    rows = list_rows(space, 20_000)
    assert len(rows) == space.num_architectures > 1_000
    added = {
        ("gmacs", size): Surcharge(size[0] * 10**4, {4: 4 * size[1], 32: 20 * size[0]}) for size in space.resolutions
    }

    def cost(population):
        gmacs = np.rint(space.cost(population)["gmacs"] * 1e9)
        channels = space.map_channels(population)
        for size in space.resolutions:
            surcharge, own = added["gmacs", size], population[:, -1] == size[0]
            rest = surcharge.constant + sum(each * channels[step] for step, each in surcharge.per_channel.items())
            gmacs += np.where(own, rest, 0)
        return {"gmacs": gmacs / 1e9}

    cost.space, cost.surcharges = space, added
    number = {row.tobytes(): place for place, row in enumerate(rows)}
    for count in (cost, space.cost):
        gmacs = count(rows)["gmacs"]
        for low, high in itertools.pairwise(np.quantile(gmacs, [0, 0.02, 0.5, 0.51, 1.0])):
            budget = Budget({"gmacs": high}, {"gmacs": low})
            inside = np.flatnonzero(budget.admits({"gmacs": gmacs}, len(rows)))
            assert count_within(space, budget, count) == len(inside)
            drawn = space.sample_within(20_000, budget, np.random.default_rng(0), cost=count, max_tries=60_000)
            counts = np.bincount([number[row.tobytes()] for row in drawn], minlength=len(rows))
            assert counts.sum() == counts[inside].sum() == 20_000
            assert chisquare(counts[inside]).pvalue > 0.01


def test_eight_resolutions_of_the_released_space_are_counted():
    """As in once-for-all's tutorial; each keeps the released number of networks."""
    sizes = [(side, side) for side in range(128, 353, 32)]
    space = OFAResNetSpace(image_hw=(352, 352), resolutions=sizes)
    assert len(sizes) == 8
    assert space.num_architectures == 8 * 2_458_914_796_962 == space.count(Budget({"gmacs": 1e6}))


def test_architectures_with_a_resolution_are_not_those_without():
    plain, space = OFAResNetSpace(**SMALL), OFAResNetSpace(**SMALL, **RESOLUTIONS)
    row = space.sample(1, np.random.default_rng(0))[0]
    architecture = space.to_architecture(row)
    assert (space.from_architecture(architecture) == row).all()
    with pytest.raises(ValueError, match="it has the resolution"):
        plain.from_architecture(architecture)
    with pytest.raises(ValueError, match="it has no resolution"):
        space.from_architecture(plain.to_architecture(row[:-1]))
    other = OFAResNetSpace(**SMALL, image_hw=(128, 160), resolutions=[(64, 64), (128, 160)])
    with pytest.raises(ValueError, match="would read as"):
        other.from_architecture(space.to_architecture(np.array([*row[:-1], 64])))


def test_tokens_are_widths_and_expansions_of_blocks():
    tokens = SPACE.tokens(np.concatenate([row_of("00000", "000000", "0" * 18), row_of("22222", "222222", "2" * 18)]))
    assert (tokens.ids.shape, tokens.vocabulary) == ((2, 18), 10)
    assert tokens.block.tolist() == [0] * 4 + [1] * 4 + [2] * 6 + [3] * 4
    assert tokens.ids[0].tolist() == [1, 1, ABSENT, ABSENT] * 2 + [1] * 4 + [ABSENT] * 2 + [1, 1, ABSENT, ABSENT]
    assert (tokens.ids[1] == 9).all()


def test_architectures_of_another_space_are_refused():
    architecture = SPACE.to_architecture(SPACE.sample(1, np.random.default_rng(0))[0])
    with pytest.raises(ValueError, match="whose networks have"):
        OFAResNetSpace("laptop").from_architecture(architecture)
    free = row_of("02000", "000000", "0" * 18)[0]
    with pytest.raises(ValueError, match="do not fit each other"):
        OFAResNetSpace(coupled=True).from_architecture(SPACE.to_architecture(free))


@pytest.mark.parametrize(("options", "message"), [
    ({"size": "huge"}, "size is one of resnet50, laptop, tiny"),
    ({"widths": (64, 128, 256, 512)}, "the middle of blocks of C2, 40 wide have the same channels"),
    ({"divisor": 64}, "different choices of stage C2 have the same channels, 192, 192, 256"),
    ({"depths": (0, 1, 1, 1)}, "blocks of a stage"),
    ({"widths": (64, 128, 256)}, "are of the four stages"),
    ({"stem_width": 8, "divisor": 8}, "choices of the stem have the same channels"),
    ({"resolutions": [(224, 224)]}, "two at least"),
])  # fmt: skip
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OFAResNetSpace(**options)
