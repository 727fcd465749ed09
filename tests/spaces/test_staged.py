import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasray.spaces import SPACES, Architecture, BasicSpace, BottleneckSpace, InvertedSpace, NasrayError
from nasray.spaces.staged import StagedSpace
from nasray.spaces.staged_mutation import DEPTH_STEPS, WIDTH_SCALES
from nasray.spaces.testing import all_rows

SEEDS = st.integers(0, 2**32 - 1)
STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]


def make_row(space, stem, stages):
    """One row from the parts of C2 to C5; the free parts of a stage are absent."""
    row = np.zeros((1, space.num_genes), dtype=np.int64)
    row[0, 0] = stem
    _, parts = space.split(row)
    for level, stage in zip((2, 3, 4, 5), stages, strict=True):
        first = np.flatnonzero(space.level_of_part == level)[0]
        parts[0, first : first + len(stage)] = stage
    assert space.is_valid(row).all()
    return row


def mutants_of(space, row, num=4000, *, fine=False):
    mutate = space.mutate_finely if fine else space.mutate
    return mutate(np.repeat(row, num, axis=0), np.random.default_rng(0))


def stage_depths(space, rows, level):
    _, parts = space.split(rows)
    return {tuple(depths) for depths in parts[:, space.level_of_part == level, -1].tolist()}


def rounded_widths(width, largest):
    return {int(min(max(np.floor(width * scale / 8 + 0.5) * 8, 8), largest)) for scale in WIDTH_SCALES}


def test_architectures_are_counted_without_listing_them():
    small = BasicSpace(max_width=16, max_stem_width=16, kernels=(3,), parts=(1, 2, 1, 1), max_depth=1)
    assert small.num_architectures == len(all_rows(small)) == 2 * 2 * (2 + 4) * 2 * 2
    settings = 2 * 256 * 64 * 10
    two = settings + settings**2
    assert BottleneckSpace().num_architectures == 16 * settings * two * two * (two + settings**3)


# ---- initial structures ---------------------------------------------------------------------------------------------


def test_bottleneck_start_is_table_15():
    space = BottleneckSpace()
    architecture = space.to_architecture(space.start()[0])
    widths = [(256, 64), (512, 128), (1024, 256), (2048, 512)]
    assert architecture.spec == {
        "stem": {"kernel": 3, "width": 64},
        "stages": [{"kernel": 3, "width": w, "bottleneck": m, "stride": 2, "depth": 2} for w, m in widths],
    }


def test_start_fits_smaller_spaces():
    space = BottleneckSpace(max_width=512, max_mid=32, max_stem_width=16, max_depth=1, kernels=(5, 7))
    stem, parts = space.split(space.start())
    assert space.is_valid(space.start()).all()
    assert stem.tolist() == [16]
    assert parts[0, space.is_first].tolist() == [[5, 256, 32, 1], [5, 512, 32, 1], [5, 512, 32, 1], [5, 512, 32, 1]]
    assert not parts[0, ~space.is_first].any()


# ---- mutation -------------------------------------------------------------------------------------------------------


def test_mutation_changes_one_block_position_at_a_time():
    space = BottleneckSpace()
    row = make_row(space, 64, [[(3, 120, 64, 4)], [(5, 512, 72, 5)], [(3, 800, 112, 5)], [(5, 1632, 184, 5)]])
    mutants = mutants_of(space, row)
    stem, parts = space.split(mutants)
    changed = np.concatenate([(stem != 64)[:, None], (parts != space.split(row)[1]).any(axis=2)], axis=1)
    assert (changed.sum(axis=1) <= 1).all()
    # The stem is one of five positions; its width changes for five of six scales. The depth of a part always changes.
    shares = changed.mean(axis=0)[[True, *space.is_first]]
    np.testing.assert_allclose(shares, [5 / 6 / 5, 0.2, 0.2, 0.2, 0.2], atol=0.03)
    assert not changed[:, [False, *~space.is_first]].any()


def test_mutation_takes_the_ranges_of_appendix_a():
    space = BottleneckSpace()
    row = make_row(space, 64, [[(3, 120, 64, 4)], [(5, 512, 72, 5)], [(3, 800, 112, 5)], [(5, 1632, 184, 5)]])
    stem, parts = space.split(mutants_of(space, row))
    assert set(stem.tolist()) == rounded_widths(64, 128)
    for part in np.flatnonzero(space.is_first):
        _, width, mid, depth = space.split(row)[1][0, part]
        assert set(parts[:, part, 0]) == {3, 5}
        assert set(parts[:, part, 1]) == rounded_widths(width, 2048)
        assert set(parts[:, part, 2]) == rounded_widths(mid, 512)
        assert set(parts[:, part, 3]) == {depth, *(depth + DEPTH_STEPS)}


def test_expansions_are_drawn_anew():
    space = InvertedSpace()
    _, parts = space.split(mutants_of(space, space.start()))
    assert set(parts[:, 0, 2]) == {1, 3, 6}


def test_fine_mutation_leaves_depths_and_parts_alone():
    space = BottleneckSpace()
    stages = [[(3, 120, 64, 1)], [(5, 512, 72, 10), (3, 512, 80, 1)], [(3, 800, 112, 10)], [(5, 1632, 184, 2)] * 3]
    row = make_row(space, 64, stages)
    mutants = mutants_of(space, row, fine=True)
    assert (space.split(mutants)[1][:, :, -1] == space.split(row)[1][:, :, -1]).all()
    assert (mutants != row).any(axis=1).mean() > 0.8


def test_too_deep_parts_are_divided_equally():
    space = BottleneckSpace()
    row = make_row(space, 64, [[(3, 64, 64, 2)], [(3, 128, 64, 10)], [(3, 256, 64, 2)], [(3, 512, 64, 2)]])
    mutants = mutants_of(space, row)
    assert stage_depths(space, mutants, 3) == {(10, 0), (8, 0), (9, 0), (6, 5), (6, 6)}
    _, parts = space.split(mutants)
    divided = parts[parts[:, 2, -1] > 0]
    assert (divided[:, 1, :-1] == divided[:, 2, :-1]).all(), "both halves have the same kernel and widths"


def test_division_moves_the_parts_behind():
    space = BottleneckSpace()
    stages = [[(3, 64, 64, 2)], [(3, 128, 64, 5)], [(3, 256, 64, 5)], [(3, 512, 64, 10), (5, 520, 72, 5)]]
    mutants = mutants_of(space, make_row(space, 64, stages))
    assert {(6, 6, 5), (6, 5, 5)} <= stage_depths(space, mutants, 5)
    _, c5 = space.split(mutants)
    c5 = c5[:, space.level_of_part == 5]
    moved = c5[(c5[:, 0, -1] == 6) & (c5[:, 2, -1] == 5)]
    assert (moved[:, 2] == [5, 520, 72, 5]).all()


def test_a_full_stage_is_as_deep_as_it_can_be():
    space = BottleneckSpace()
    row = make_row(space, 64, [[(3, 64, 64, 10)], [(3, 128, 64, 10)] * 2, [(3, 256, 64, 5)], [(3, 512, 64, 5)]])
    mutants = mutants_of(space, row)
    assert stage_depths(space, mutants, 2) == {(10,), (9,), (8,)}
    assert stage_depths(space, mutants, 3) == {(10, 10), (9, 10), (8, 10), (10, 9), (10, 8)}


def test_a_part_vanishes_where_its_stage_has_another():
    space = BottleneckSpace()
    stages = [[(3, 64, 64, 1)], [(3, 128, 64, 1), (5, 136, 72, 2)], [(3, 256, 64, 1)], [(3, 512, 64, 5)]]
    mutants = mutants_of(space, make_row(space, 64, stages))
    assert stage_depths(space, mutants, 2) == {(1,), (2,), (3,)}, "the last part of a stage stays"
    assert stage_depths(space, mutants, 3) == {(1, 2), (2, 2), (3, 2), (2, 0), (1, 3), (1, 4), (1, 1), (1, 0)}
    _, parts = space.split(mutants)
    left = parts[(parts[:, 1, -1] == 2) & (parts[:, 2, -1] == 0)]
    assert (left[:, 1] == [5, 136, 72, 2]).all(), "the part behind moved up"


def test_a_largest_depth_of_one_stands_every_mutation():
    space = BottleneckSpace(max_depth=1)
    rows = space.sample(500, np.random.default_rng(0))
    assert space.is_valid(space.mutate(rows, np.random.default_rng(1))).all()


@pytest.mark.parametrize("family", STAGED)
@settings(deadline=None, max_examples=15)
@given(seed=SEEDS, fine=st.booleans())
def test_mutants_stay_valid_and_survive_json(family, seed, fine):
    space, rng = SPACES[family](), np.random.default_rng(seed)
    rows = space.sample(8, rng)
    for _ in range(6):
        rows = (space.mutate_finely if fine else space.mutate)(rows, rng)
    assert space.is_valid(rows).all()
    for row, text in zip(rows, space.texts(rows), strict=True):
        assert (space.from_architecture(Architecture.from_json(text)) == row).all()


# ---- crossover ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(seed=SEEDS)
def test_crossover_takes_whole_stages(seed):
    space, rng = BottleneckSpace(), np.random.default_rng(seed)
    first, second = space.sample(32, rng), space.sample(32, rng)
    children = space.crossover(first, second, rng)
    stem, parts = space.split(children)
    (stem_1, parts_1), (stem_2, parts_2) = space.split(first), space.split(second)
    assert ((stem == stem_1) | (stem == stem_2)).all()
    for level in (2, 3, 4, 5):
        own = space.level_of_part == level
        from_first = (parts[:, own] == parts_1[:, own]).all(axis=(1, 2))
        from_second = (parts[:, own] == parts_2[:, own]).all(axis=(1, 2))
        assert (from_first | from_second).all()


# ---- the set of architectures ---------------------------------------------------------------------------------------


def test_repair_moves_absent_parts_behind():
    space = BasicSpace()
    row = np.array([[32, 3, 64, 1, 3, 64, 2, 5, 72, 0, 3, 64, 0, 5, 72, 4, 3, 64, 2, 3, 64, 0, 5, 80, 3]])
    repaired = [[32, 3, 64, 1, 3, 64, 2, 0, 0, 0, 5, 72, 4, 0, 0, 0, 3, 64, 2, 5, 80, 3, 0, 0, 0]]
    assert space.repair(row).tolist() == repaired


def test_a_part_is_absent_as_a_whole_or_not_at_all():
    space = BottleneckSpace()
    row = make_row(space, 64, [[(3, 64, 64, 2)], [(3, 128, 64, 2)] * 2, [(3, 256, 64, 2)], [(3, 512, 64, 2)]])
    for gene in range(9, 13):  # c3.1
        hollow = row.copy()
        hollow[0, gene] = 0
        assert not space.is_valid(hollow).any(), space.genes[gene].name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["stem"].update(kernel=7), "not an architecture"),
        (lambda spec: spec["stem"].pop("width"), "malformed"),
        (lambda spec: spec["stages"][0].pop("bottleneck"), "malformed"),
        (lambda spec: spec["stages"][0].update(stride=1), "C1 has too many parts"),
        (lambda spec: spec["stages"].insert(1, {**spec["stages"][0], "stride": 1}), "C2 has too many parts"),
        (lambda spec: spec["stages"].append({**spec["stages"][3], "stride": 2}), "C6 has too many parts"),
        (lambda spec: spec["stages"].pop(), "c5.0.kernel=0"),
        (lambda spec: spec["stages"][2].update(width=300), "c4.0.width=300"),
        (lambda spec: spec.update(shortcut="stride"), "shortcut"),
    ],
)
def test_from_architecture_says_what_does_not_fit(change, message):
    space = BottleneckSpace()
    spec = space.to_architecture(space.start()[0]).spec
    change(spec)
    with pytest.raises(ValueError, match=message):
        space.from_architecture(Architecture.create("bottleneck", spec))


@pytest.mark.parametrize("largest", [8, 100, 0])
def test_widths_are_multiples_of_eight(largest):
    with pytest.raises(NasrayError, match=r"multiples of 8|from 16 to 16,384"):
        BottleneckSpace(max_width=largest)
