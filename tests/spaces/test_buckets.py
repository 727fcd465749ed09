import numpy as np
import pytest

from nasray.searchers.testing import ToySpace
from nasray.spaces import NasrayError, OFAResNetSpace, RestrictedSpace, forbid_values
from nasray.spaces.buckets import Buckets
from nasray.spaces.testing import all_rows


def test_what_is_beyond_an_end_belongs_to_the_bucket_there():
    buckets = Buckets.equal("gmacs", 1.0, 6.0, 5)
    assert len(buckets) == 5
    assert buckets.of([-3.0, 1.0, 1.999, 2.0, 5.999, 6.0, 99.0]).tolist() == [0, 0, 0, 1, 4, 4, 4]


def test_budgets_of_buckets_divide_the_range():
    buckets = Buckets("params_m", (0.5, 1.0, 4.0))
    values = np.array([0.5, 0.75, np.nextafter(1.0, 0.0), 1.0, 2.0, 4.0])
    for bucket in range(2):
        admitted = buckets.budget(bucket).admits({"params_m": values}, len(values))
        np.testing.assert_array_equal(admitted, buckets.of(values) == bucket)


@pytest.mark.parametrize("edges", [(1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(NasrayError, match="gmacs"):
        Buckets("gmacs", edges)


def test_buckets_span_the_whole_range_of_a_listed_space():
    space = ToySpace()
    gmacs = space.cost(all_rows(space))["gmacs"]
    assert Buckets.spanning(space, "gmacs", 4) == Buckets.equal("gmacs", gmacs.min(), gmacs.max(), 4)


def test_buckets_of_once_for_all_span_the_smallest_to_the_largest_network():
    # DetOFA's space at 224: once-for-all's smallest and largest networks without their fully connected layers.
    edges = Buckets.spanning(OFAResNetSpace(), "gmacs", 5).edges
    assert edges[0] == (962_192_128 - 1_328_000) / 1e9
    assert edges[-1] == (7_491_643_904 - 2_048_000) / 1e9
    assert np.allclose(np.diff(edges), (edges[-1] - edges[0]) / 5)


def test_a_restricted_space_has_the_buckets_of_the_whole_one():
    space = OFAResNetSpace("tiny")
    restricted = RestrictedSpace(space, forbid_values(space, {"width": [65]}))
    assert Buckets.spanning(restricted, "gmacs", 3) == Buckets.spanning(space, "gmacs", 3)


def test_buckets_count_as_they_are_told():
    def doubled(population):
        return {"gmacs": 2 * space.cost(population)["gmacs"]}

    space = ToySpace()
    assert Buckets.spanning(space, "gmacs", 2, count=doubled).edges == (0.0, 48.0, 96.0)


def test_costs_that_cannot_be_divided_are_refused():
    with pytest.raises(NasrayError, match=r"buckets of params_m: space 'toy' does not have .* It has: gmacs"):
        Buckets.spanning(ToySpace(), "params_m", 5)
    with pytest.raises(NasrayError, match="all architectures of space 'toy' have gmacs 3"):
        Buckets.spanning(ToySpace(), "gmacs", 5, count=lambda population: {"gmacs": np.full(len(population), 3.0)})
