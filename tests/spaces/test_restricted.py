import collections
import pickle

import numpy as np
import pytest
from scipy.stats import chisquare

from nasray.spaces import BasicSpace, Gene, InfeasibleError, NasrayError, RestrictedSpace, ShuffleNetSpace, Space
from nasray.spaces.restricted import forbid_values
from nasray.spaces.testing import all_rows


class Elastic(Space):
    """Two stages of a depth and the expansions of up to two blocks; a block that is not there expands by 20."""

    family = "elastic"
    genes = tuple(
        Gene(f"{stage}.{name}", values)
        for stage in ("c2", "c3")
        for name, values in (
            ("depth", (1, 2)), ("width", (65, 80, 100)), ("0.expand", (20, 25, 35)), ("1.expand", (20, 25, 35))
        )
    )  # fmt: skip
    groups = ((0, 1, 2, 3), (4, 5, 6, 7))

    def repair(self, population):
        repaired = population.copy()
        for depth, last in ((0, 3), (4, 7)):
            repaired[repaired[:, depth] == 1, last] = 20
        return repaired

    def cost(self, population):
        return {"gmacs": population.sum(axis=1) / 100.0}


COUPLED = (
    (("c2.depth", 1), ("c2.width", 100)),
    (("c3.0.expand", 35), ("c3.1.expand", 35)),
    (("c2.width", 65), ("c3.width", 65)),
)


def test_sampling_is_uniform_over_what_is_allowed():
    space = RestrictedSpace(Elastic(), COUPLED + forbid_values(Elastic(), {"c3.depth": [2], "c2.0.expand": [25]}))
    allowed = all_rows(Elastic())
    allowed = allowed[[is_allowed(row) for row in allowed]]
    assert space.num_architectures == len(allowed)
    rows = space.sample(40 * len(allowed), np.random.default_rng(0))
    counts = collections.Counter(map(tuple, rows.tolist()))
    assert set(counts) == set(map(tuple, allowed.tolist()))
    assert chisquare(list(counts.values())).pvalue > 0.001


def is_allowed(row):
    named = dict(zip([gene.name for gene in Elastic.genes], row.tolist(), strict=True))
    ties = any(all(named[name] == value for name, value in combination) for combination in COUPLED)
    return not ties and named["c3.depth"] == 2 and named["c2.0.expand"] == 25


def test_what_is_tied_together_is_one_group():
    assert RestrictedSpace(Elastic(), COUPLED[:2]).groups == Elastic.groups
    assert RestrictedSpace(Elastic(), COUPLED).groups == (tuple(range(8)),)


def test_groups_that_are_not_touched_are_drawn_as_the_space_draws_them():
    space, rng = BasicSpace(parts=(1, 1, 1, 1)), np.random.default_rng(0)
    restricted = RestrictedSpace(space, forbid_values(space, {"c2.0.kernel": [3]}))
    rows = restricted.sample(2000, rng)
    assert (rows[:, 1] == 3).all()
    column = [gene.name for gene in space.genes].index("c3.0.width")
    assert np.median(rows[:, column]) == pytest.approx(1024**0.5 * 8**0.5, rel=0.3)  # log-uniform from 8 to 1024


def test_rows_and_architectures_are_those_of_the_space():
    space = ShuffleNetSpace()
    restricted = RestrictedSpace(space, forbid_values(space, {"c2.0": [0, 3]}))
    rows = restricted.sample(50, np.random.default_rng(0))
    assert set(rows[:, 0].tolist()) == {0, 3}
    assert restricted.ids(rows) == space.ids(rows)
    assert all((restricted.cost(rows)[name] == values).all() for name, values in space.cost(rows).items())
    assert (restricted.tokens(rows).ids == space.tokens(rows).ids).all()
    assert restricted.network_options() == space.network_options()
    assert restricted.size == space.size
    assert restricted.layers(rows).cost()["gmacs"].tolist() == space.cost(rows)["gmacs"].tolist()
    outside = rows[0].copy()
    outside[0] = 1
    assert not restricted.is_valid(outside[None])[0]
    with pytest.raises(ValueError, match=r"outside of the restricted space 'shufflenet': it has c2\.0=1"):
        restricted.from_architecture(space.to_architecture(outside))


def test_restrictions_add_up_and_survive_pickle():
    space = Elastic()
    twice = RestrictedSpace(RestrictedSpace(space, COUPLED[:1]), COUPLED[1:])
    assert twice.space is space
    assert twice.forbidden == RestrictedSpace(space, COUPLED).forbidden
    copy = pickle.loads(pickle.dumps(twice))
    rows = twice.sample(20, np.random.default_rng(0))
    assert (copy.sample(20, np.random.default_rng(0)) == rows).all()


def test_repair_takes_the_nearest_setting():
    space = RestrictedSpace(Elastic(), forbid_values(Elastic(), {"width": [65, 100]}) + COUPLED[:1])
    row = np.array([[2, 80, 35, 20, 2, 80, 20, 20], [1, 100, 35, 20, 2, 100, 20, 20]])
    assert space.repair(row).tolist() == [[2, 65, 35, 20, 2, 65, 20, 20], [2, 100, 35, 20, 2, 100, 20, 20]]


def test_a_group_too_large_to_be_listed_is_drawn_by_rejection():
    space = BasicSpace()
    restricted = RestrictedSpace(space, forbid_values(space, {"kernel": [3], "width": list(range(8, 513, 8))}))
    rows = restricted.sample(300, np.random.default_rng(0))
    _, parts = restricted.split(rows)
    assert restricted.is_valid(rows).all()
    assert set(parts[:, :, 0].ravel().tolist()) == {0, 3}
    assert parts[:, :, 1].max() <= 512
    assert restricted.num_architectures is None
    with pytest.raises(NasrayError, match=r"ties c5\.0\.kernel, c5\.0\.width together.*not listed"):
        RestrictedSpace(space, ((("c5.0.kernel", 3), ("c5.0.width", 64)),))
    few = RestrictedSpace(BasicSpace(), forbid_values(space, {"c5.0.width": [8], "c5.0.depth": [1]}))
    few.space.sample = lambda num, rng: np.repeat(BasicSpace().start(), num, axis=0)
    with pytest.raises(InfeasibleError, match="no allowed setting"):
        few.sample(1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("forbidden", "message"),
    [
        (((("c4.depth", 1),),), "has no gene 'c4.depth'. It has: c2.depth, c2.width"),
        (((("c2.depth", 3),),), "gene 'c2.depth' never is 3. Its values are 1, 2"),
        (((),), "names one gene or several"),
        (((("c2.depth", 1), ("c2.depth", 2)),), "each once"),
        (((("c2.depth", 1),), (("c2.depth", 2),)), "every value of gene 'c2.depth'"),
        (
            tuple((("c2.depth", d), ("c2.width", w)) for d in (1, 2) for w in (65, 80, 100)),
            "every setting of the genes c2.depth, c2.width",
        ),
    ],
)
def test_senseless_restrictions_are_refused(forbidden, message):
    with pytest.raises(NasrayError, match=message):
        RestrictedSpace(Elastic(), forbidden)


@pytest.mark.parametrize(
    ("within", "message"),
    [
        ({"widht": [65]}, "no gene 'widht'. There are: depth, width, expand"),
        ({"width": [66]}, "no gene 'width' can be 66. Its values are 65, 80, 100"),
        ({"width": []}, "leaves gene 'c2.width' without a value"),
    ],
)
def test_senseless_values_are_refused(within, message):
    with pytest.raises(NasrayError, match=message):
        forbid_values(Elastic(), within)


def test_values_are_forbidden_by_the_last_word_of_names():
    forbidden = forbid_values(Elastic(), {"expand": [20, 35], "c3.width": [100]})
    assert forbidden == (
        *(((f"{gene}.expand", 25),) for gene in ("c2.0", "c2.1", "c3.0", "c3.1")),
        (("c3.width", 65),),
        (("c3.width", 80),),
    )
