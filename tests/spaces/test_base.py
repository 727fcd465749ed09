import collections

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasray.spaces import Architecture, Budget, Gene, Space, row_keys

GENES = {
    "two": Gene("gene", (3, 5)),
    "consecutive": Gene("gene", (0, 1, 2, 3)),
    "steps": Gene("gene", (3, 5, 7)),
    "irregular": Gene("gene", (1, 3, 6)),
    "single": Gene("gene", (4,)),
    "labels": Gene("gene", (0, 1, 2), ordered=False),
    "log": Gene("gene", (8, 16, 24), log=True),
}


class Plain(Space):
    """As small as a space can be: genes alone."""

    family = "plain"
    genes = (Gene("width", (8, 16, 24), log=True), Gene("kind", (0, 2), ordered=False))


@pytest.mark.parametrize("values", [(), (3, 1), (1, 1, 2)])
def test_gene_refuses_values_that_do_not_ascend(values):
    with pytest.raises(ValueError, match="ascending and distinct"):
        Gene("gene", values)


@pytest.mark.parametrize("values", [(8, 16, 32), (1, 3, 5), (4,)])
def test_log_gene_needs_multiples_of_its_step(values):
    with pytest.raises(ValueError, match="log needs values"):
        Gene("gene", values, log=True)


@pytest.mark.parametrize("gene", GENES.values(), ids=GENES)
def test_numpy_tune_and_optuna_draw_exactly_the_values(gene):
    rng = np.random.default_rng(0)
    assert set(gene.draw(300, rng).tolist()) == set(gene.values)
    assert {gene.from_tune(value) for value in np.ravel(gene.to_tune().sample(size=300, random_state=rng))} == set(
        gene.values
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {gene.suggest(study.ask()) for _ in range(100)} == set(gene.values)


def test_log_gene_is_uniform_in_the_logarithm():
    gene = Gene("width", tuple(range(8, 2049, 8)), log=True)
    values = gene.draw(20_000, np.random.default_rng(0))
    # Value 8*i stands for [i, i + 1) of [1, 257): the lower half of the logarithm ends at sqrt(257) = 16.03.
    assert np.mean(values < 16 * 8) == pytest.approx(np.log(16) / np.log(257), abs=0.015)
    assert values.max() > 2000


def test_plain_space_follows_from_its_genes():
    space, rng = Plain(), np.random.default_rng(0)
    rows = space.sample(200, rng)
    assert sorted({tuple(row) for row in rows.tolist()}) == [(w, k) for w in (8, 16, 24) for k in (0, 2)]
    assert ((space.mutate(rows, rng) != rows).sum(axis=1) <= 1).all()
    children = space.crossover(rows[:100], rows[100:], rng)
    assert ((children == rows[:100]) | (children == rows[100:])).all()
    assert space.cost(rows) == {}
    assert space.start().shape == (0, 2)
    assert space.to_architecture(rows[0]).spec == {"width": rows[0, 0], "kind": rows[0, 1]}


class Counted(Space):
    """Rows of four dice, whose cost is their sum; counts the rows that are drawn."""

    family = "counted"
    genes = tuple(Gene(f"die.{i}", (1, 2, 3, 4, 5, 6)) for i in range(4))

    def __init__(self):
        self.drawn = 0

    def sample(self, num, rng):
        self.drawn += num
        return super().sample(num, rng)

    def cost(self, population):
        return {"sum": population.sum(axis=1).astype(float)}


def test_samples_within_a_budget_are_uniform_over_what_meets_it():
    budget = Budget(upper={"sum": 6})  # 15 of 1,296 rows: 1 + 4 + 10
    space = Counted()
    rows = space.sample_within(1500, budget, np.random.default_rng(0))
    counts = np.array(list(collections.Counter(map(tuple, rows.tolist())).values()))
    assert len(rows) == 1500
    assert len(counts) == 15
    assert abs(counts - 100).max() < 40  # four standard deviations
    assert space.drawn < 1.5 * 1500 * 1296 / 15


def test_samples_within_a_budget_take_another_cost():
    def first(population):
        return {"first": population[:, 0].astype(float)}

    rows = Counted().sample_within(50, Budget(lower={"first": 6}), np.random.default_rng(0), cost=first)
    assert len(rows) == 50
    assert (rows[:, 0] == 6).all()


def test_samples_within_a_budget_are_fewer_once_the_tries_are_used_up():
    space = Counted()
    rows = space.sample_within(50, Budget(upper={"sum": 4}), np.random.default_rng(0), max_tries=3000)
    assert 0 < len(rows) < 50
    assert space.drawn == 3000


def test_small_steps_are_those_of_mutate_unless_a_space_has_others():
    rows = Plain().sample(100, np.random.default_rng(0))
    coarse, fine = (act(rows, np.random.default_rng(1)) for act in (Plain().mutate, Plain().mutate_finely))
    assert (coarse == fine).all()


def test_checked_row_names_what_is_wrong():
    with pytest.raises(ValueError, match="width=9, kind=1 not allowed"):
        Plain().checked_row(np.array([9, 1]))


@pytest.mark.parametrize("spec", [{"width": 8}, {"width": 8.5, "kind": 0}, {"width": 8, "kind": 0, "more": 1}])
def test_from_architecture_refuses_other_specs(spec):
    with pytest.raises(ValueError, match="not an architecture of space 'plain'"):
        Plain().from_architecture(Architecture.create("plain", spec))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=1, max_size=30))
def test_row_keys_are_equal_exactly_for_equal_rows(rows):
    keys = row_keys(np.array(rows)).tolist()
    by_key = collections.defaultdict(set)
    for key, row in zip(keys, rows, strict=True):
        by_key[key].add(tuple(row))
    assert all(len(same) == 1 for same in by_key.values())
    assert len(by_key) == len({tuple(row) for row in rows})
