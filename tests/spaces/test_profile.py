import numpy as np
import pytest

from nasray.spaces import BasicSpace, Budget, Gene, NasrayError, RestrictedSpace, ShuffleNetSpace, Space, forbid_values
from nasray.spaces.profile import profile_space, wilson_interval


class Dice(Space):
    family = "dice"

    def __init__(self, num):
        self.genes = tuple(Gene(f"die.{i}", (1, 2, 3, 4, 5, 6)) for i in range(num))

    def cost(self, population):
        return {"sum": population.sum(axis=1).astype(np.float64)}


def test_a_small_space_is_listed_as_a_whole():
    profile = profile_space(Dice(4), Budget(upper={"sum": 6}))
    assert (profile.num_architectures, profile.num_looked_at, profile.is_whole) == (1296, 1296, True)
    assert vars(profile.costs["sum"]) == {"minimum": 4.0, "median": 14.0, "maximum": 24.0}
    assert profile.share == 15 / 1296
    assert profile.interval == (15 / 1296, 15 / 1296)


def test_of_a_large_space_the_ends_of_costs_are_found_and_the_share_has_an_interval():
    profile = profile_space(Dice(10), Budget(upper={"sum": 30}), num=4000)
    assert (profile.num_architectures, profile.num_looked_at, profile.is_whole) == (6**10, 4000, False)
    assert vars(profile.costs["sum"]) == {"minimum": 10.0, "median": 35.0, "maximum": 60.0}
    low, high = profile.interval
    assert low < 0.2041 < high  # the exact share
    assert low < profile.share < high
    assert high - low < 0.03


def test_intervals_cover_what_they_say():
    rng = np.random.default_rng(0)
    for share in (0.004, 0.05, 0.5):
        intervals = [wilson_interval(int(hits), 2000) for hits in rng.binomial(2000, share, size=1000)]
        assert 0.93 < np.mean([low <= share <= high for low, high in intervals]) < 0.975
    assert wilson_interval(0, 100)[0] == 0.0
    assert 0.03 < wilson_interval(0, 100)[1] < 0.04
    assert wilson_interval(100, 100)[1] == 1.0


def test_the_costs_of_detnas_spaces_are_those_of_the_docs():
    gmacs = profile_space(ShuffleNetSpace(), num=500).costs["gmacs"]
    assert (round(gmacs.minimum, 3), round(gmacs.maximum, 3)) == (0.237, 0.365)
    assert profile_space(ShuffleNetSpace("large"), num=100).num_architectures == 4**40


def test_absent_parts_are_reached():
    layers = profile_space(BasicSpace(), num=200).costs["layers"]
    assert (layers.minimum, layers.maximum) == (9.0, 161.0)


def test_restricted_spaces_have_profiles():
    space = ShuffleNetSpace()
    only = RestrictedSpace(space, forbid_values(space, {gene.name: [0, 3] for gene in space.genes[:17]}))
    assert profile_space(only, num=100).num_architectures == 2**17 * 4**3


def test_an_unknown_cost_is_refused():
    with pytest.raises(NasrayError, match=r"budget on gmacs: space 'dice' does not have that cost\. It has: sum"):
        profile_space(Dice(2), Budget(upper={"gmacs": 1.0}))
