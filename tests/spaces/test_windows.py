import numpy as np

from nasray.searchers.testing import ToySpace
from nasray.spaces import Budget, OFAResNetSpace, RestrictedSpace, forbid_values
from nasray.spaces.windows import Surcharge, counts_within, draw_within, is_surely_empty, surcharges_of

SPACE = OFAResNetSpace("tiny")
RESTRICTED = RestrictedSpace(SPACE, forbid_values(SPACE, {"width": [65, 80]}))


class Around:
    """Costs with what stands around a backbone; counts the rows that it was asked for."""

    def __init__(self, space):
        self.space, self.rows = space, 0
        self.surcharges = {("gmacs", space.image_hw): Surcharge(10**9, {32: 10**6})}

    def __call__(self, population):
        self.rows += len(population)
        rest = 10**9 + 10**6 * self.space.map_channels(population)[32]
        return {"gmacs": self.space.cost(population)["gmacs"] + rest / 1e9}


def test_what_a_cost_adds_is_known_of_the_space_itself_and_of_costs_that_say_so():
    for space in (SPACE, RESTRICTED):
        for cost in (None, SPACE.cost, space.cost):
            assert surcharges_of(space, cost) == {}
        for own in (SPACE, RESTRICTED):
            assert surcharges_of(space, Around(own)) == Around(own).surcharges
    assert surcharges_of(SPACE, lambda rows: SPACE.cost(rows)) is None
    assert surcharges_of(OFAResNetSpace(), Around(SPACE)) is None


def test_rare_windows_of_a_cost_with_a_surcharge_are_drawn_directly():
    for space in (SPACE, RESTRICTED):
        cost = Around(space)
        most = cost(space.sample(20_000, np.random.default_rng(0)))["gmacs"].max()
        cost.rows, budget = 0, Budget(lower={"gmacs": float(most)})
        rows = draw_within(space, 64, budget, np.random.default_rng(1), cost, 200_000)
        assert len(rows) == 64
        assert space.is_valid(rows).all()
        assert budget.admits(cost(rows), 64).all()
        assert cost.rows < 2_000


def test_what_is_surely_empty():
    cost = Around(SPACE)
    assert is_surely_empty(SPACE, Budget({"gmacs": 1.0}), cost)
    assert not is_surely_empty(SPACE, Budget({"gmacs": 1.0}), lambda rows: cost(rows))
    assert not is_surely_empty(SPACE, Budget({"gmacs": 1.0}))
    assert is_surely_empty(RESTRICTED, Budget(lower={"gmacs": float(SPACE.cost(widest())["gmacs"][0])}))
    assert not is_surely_empty(SPACE, Budget(lower={"gmacs": float(SPACE.cost(widest())["gmacs"][0])}))
    assert not is_surely_empty(SPACE, Budget())
    assert not is_surely_empty(ToySpace(), Budget({"gmacs": -1.0}))


def test_whole_multiply_adds_within_a_budget():
    for low, high in ((1.1, 2.3), (0.000_000_1, 145.45), (3.0, 3.0)):
        least, most = counts_within(Budget({"gmacs": high}, {"gmacs": low}))
        assert (least - 1) / 1e9 < low <= least / 1e9
        assert most / 1e9 <= high < (most + 1) / 1e9
        assert counts_within(Budget({"gmacs": high}), 7) == (-7, most - 7)
    assert counts_within(Budget(lower={"gmacs": 1.0}))[1] == 2**62


def widest():
    return np.array([[gene.values[-1] for gene in SPACE.genes]])
