import time

import numpy as np
import pytest
from scipy.stats import chisquare

from nasray.searchers.evolution import Evolution
from nasray.spaces import Architecture, Budget, MSNASSpace, NasrayError, RestrictedSpace, forbid_values
from nasray.spaces.base import row_keys
from nasray.spaces.testing import all_rows
from nasray.spaces.windows import count_within, is_surely_empty
from tests.spaces.msnas_rows import LABELLED, row_of

WINDOW = Budget({"gmacs": 146.9}, {"gmacs": 143.9})
KINDS = {
    "constrained": {},
    "of live blocks": {"dead_blocks": False},
    "like FPN": {"utilization": "fpn"},
}


@pytest.mark.parametrize("label", LABELLED)
def test_printed_networks_are_in_the_space(label):
    space, row = MSNASSpace(label[:3]), row_of(label)
    assert space.is_valid(row).all()
    architecture = space.to_architecture(row[0])
    assert architecture.spec["strides"] == LABELLED[label][0]
    assert architecture.spec["heads"] == LABELLED[label][1]
    np.testing.assert_array_equal(space.from_architecture(architecture), row[0])


def test_specs_have_what_networks_are_made_of():
    spec = MSNASSpace("r50").to_architecture(row_of("r50-1")[0]).spec
    assert {key: spec[key] for key in ("block", "stem_width", "width", "mid")} == {
        "block": "bottleneck",
        "stem_width": 64,
        "width": 576,
        "mid": 144,
    }
    assert "mid" not in MSNASSpace("r18").to_architecture(row_of("r18-1")[0]).spec


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_samples_are_uniform_over_all_pairs(options):
    space = MSNASSpace("tiny", blocks=5, **options)
    rows = space.sample(60 * space.num_architectures, np.random.default_rng(0))
    _, counts = np.unique(row_keys(rows), return_counts=True)
    assert len(counts) == space.num_architectures
    assert chisquare(counts).pvalue > 0.01


def test_samples_within_a_window_are_uniform():
    space = MSNASSpace("tiny", blocks=5, stem_width=8, width=16)
    rows = np.unique(space.sample(100_000, np.random.default_rng(0)), axis=0)
    assert len(rows) == space.num_architectures
    low, high = np.quantile(space.cost(rows)["gmacs"], [0.4, 0.5]).tolist()
    budget = Budget({"gmacs": high}, {"gmacs": low})
    inside = budget.admits(space.cost(rows), len(rows)).sum()
    drawn = space.sample_within(60 * inside, budget, np.random.default_rng(1))
    _, counts = np.unique(row_keys(drawn), return_counts=True)
    assert len(counts) == inside == count_within(space, budget)
    assert chisquare(counts).pvalue > 0.01


def test_samples_and_windows_are_quick():
    space, rng = MSNASSpace("r34"), np.random.default_rng(0)
    begin = time.process_time()
    assert space.is_valid(space.sample(20_000, rng)).all()
    assert time.process_time() - begin < 1
    space, begin = MSNASSpace("r18"), time.process_time()
    rows = space.sample_within(50, WINDOW, rng)
    assert time.process_time() - begin < 5
    assert len(rows) == 50
    assert WINDOW.admits(space.cost(rows), 50).all()


def test_windows_of_live_blocks():
    space = MSNASSpace("r18", counted="live")
    rows = space.sample_within(50, WINDOW, np.random.default_rng(0))
    assert len(rows) == 50
    assert WINDOW.admits(space.cost(rows, counted="live"), 50).all()
    assert not WINDOW.admits(space.cost(rows, counted="all"), 50).all()
    assert count_within(space, WINDOW) is None
    alive = MSNASSpace("r18", counted="live", dead_blocks=False)
    rows = alive.sample_within(50, WINDOW, np.random.default_rng(0))
    assert alive.alive(rows).all()
    assert count_within(alive, WINDOW) == count_within(MSNASSpace("r18", dead_blocks=False), WINDOW)


def test_a_window_that_nothing_meets():
    space = MSNASSpace("r18")
    assert is_surely_empty(space, Budget({"gmacs": 1.0}))
    assert is_surely_empty(space, Budget(lower={"gmacs": 1e6}))
    assert not is_surely_empty(space, WINDOW)


def test_the_share_of_pairs_with_dead_blocks():
    for variant in ("r18", "r34"):
        space, alive = MSNASSpace(variant), MSNASSpace(variant, dead_blocks=False)
        rows = space.sample(20_000, np.random.default_rng(0))
        expected = alive.num_architectures / space.num_architectures
        assert space.alive(rows).all(axis=1).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("utilization", ["constrained", "monotone", "free", "fpn"])
@pytest.mark.parametrize("dead_blocks", [True, False])
def test_children_are_valid_and_differ_in_strides_or_in_heads(utilization, dead_blocks):
    space, rng = MSNASSpace("r18", utilization=utilization, dead_blocks=dead_blocks), np.random.default_rng(0)
    first, second = space.sample(500, rng), space.sample(500, rng)
    blocks = space.size.blocks
    for children in (space.mutate(first, rng), space.crossover(first, second, rng)):
        assert space.is_valid(children).all()
        strides = (children != first)[:, :blocks].any(axis=1)
        heads = (children != first)[:, blocks:].any(axis=1)
        assert (strides & ~heads).mean() > 0.05
        if utilization == "fpn":
            assert not (heads & ~strides).any()
        else:
            assert (heads & ~strides).mean() > 0.1


def test_repaired_rows_stay_near():
    space = MSNASSpace("tiny", blocks=3)
    rows = np.array(
        [
            [0, 2, 1, 4, 8, 8, 8, 8],  # up from stride 4: the block gets the stride 1
            [1, 1, 1, 4, 4, 4, 4, 4],  # a single scale: the last block goes down
            [2, 2, 1, 4, 8, 16, 16, 16],  # no map of stride 4: the finest head reads 8
        ]
    )
    assert space.repair(rows).tolist() == [
        [1, 2, 1, 4, 8, 8, 8, 8],
        [1, 1, 2, 4, 4, 4, 4, 8],
        [2, 2, 1, 8, 8, 16, 16, 16],
    ]


def test_a_first_stride_of_1():
    space = MSNASSpace("r18", utilization="fpn")
    restricted = RestrictedSpace(space, forbid_values(space, {"b0.stride": [1]}))
    rows = restricted.sample(2_000, np.random.default_rng(0))
    assert (rows[:, 0] == 1).all()
    share = (space.sample(20_000, np.random.default_rng(0))[:, 0] == 1).mean()
    assert share == pytest.approx(107_563 / 293_867, abs=0.01)  # computed from the definition


def test_a_small_space_has_as_many_rows_as_are_counted():
    space = MSNASSpace("tiny", blocks=1, utilization="monotone")
    assert len(all_rows(space)) == space.num_architectures == 2
    assert {tuple(row) for row in all_rows(space).tolist()} == {(1, 4, 4, 4, 4, 4), (2, 8, 8, 8, 8, 8)}


def test_tokens_say_stride_and_scale():
    space = MSNASSpace("tiny", blocks=2)
    tokens = space.tokens(np.array([[1, 2, 4, 8, 8, 8, 8]]))
    assert tokens.vocabulary == 21
    assert tokens.ids.tolist() == [[1 + 5 * 1 + 0, 1 + 5 * 2 + 1, 16, 17, 17, 17, 17]]
    assert tokens.block.tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_network_options_make_the_same_networks():
    space = MSNASSpace("r50", utilization="free", counted="live", image_hw=(64, 64))
    again = MSNASSpace(**space.network_options())
    assert again.size == space.size
    assert MSNASSpace("r50", block="basic", width=8).size == MSNASSpace("r34", width=8).size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "r101"}, "variant is one of r18, r34, r50, laptop, tiny; got 'r101'"),
        (
            {"utilization": "fpm"},
            "utilization is one of constrained, monotone, free, fpn; got 'fpm'; did you mean 'fpn'",
        ),
        ({"counted": 3}, "counted is one of all, live; got 3"),
        ({"blocks": 1}, "utilization 'constrained' needs maps of two strides, and a path of 1 block has one"),
        ({"blocks": 33}, "blocks is a whole number from 1 to 32; got 33"),
        ({"mid": 8}, "mid is of bottlenecks"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(NasrayError, match=message):
        MSNASSpace(**options)


@pytest.mark.parametrize(
    "change",
    [{"strides": [1, 2]}, {"strides": [1, 3] * 3}, {"heads": [4] * 5}, {"width": 17}, {"strides": None}],
    ids=str,
)
def test_architectures_of_other_spaces(change):
    space = MSNASSpace("tiny")
    own = space.to_architecture(space.sample(1, np.random.default_rng(0))[0])
    with pytest.raises(ValueError, match="not an architecture of"):
        space.from_architecture(Architecture.create("msnas", {**own.spec, **change}))


def test_a_search_within_a_window_has_the_shares_of_children_that_were_asked_for():
    space = MSNASSpace("r18")
    shares = {"mutation": 0.4, "crossover": 0.4}
    searcher = Evolution(
        space, budget=WINDOW, seed=0, evaluations=1250, population_size=50, parents=50, initial=50, **shares
    )
    weights, parents = np.random.default_rng(1).normal(size=space.num_genes), []
    for _ in range(125):
        proposal = searcher.ask(10)
        parents.append(proposal.parents)
        searcher.tell(proposal.genes, {"score": np.log(proposal.genes + 1.0) @ weights})
    num_parents = (np.concatenate(parents[5:]) >= 0).sum(axis=1)
    asked = {0: 1 - sum(shares.values()), 1: shares["mutation"], 2: shares["crossover"]}
    for number, share in asked.items():
        assert (num_parents == number).mean() == pytest.approx(share, abs=0.05)
