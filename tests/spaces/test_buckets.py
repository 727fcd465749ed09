import numpy as np
import pytest

from nasray.spaces import NasrayError
from nasray.spaces.buckets import Buckets


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
