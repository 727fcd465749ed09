import numpy as np
import pytest
import torch

from nasray.filters.filter import PathFilter
from nasray.filters.options import FilterOptions
from nasray.spaces import NasrayError, OFAResNetSpace, RestrictedSpace, ShuffleNetSpace
from nasray.spaces.buckets import Buckets
from nasray.spaces.restricted import forbid_values

TINY = OFAResNetSpace("tiny")
BUCKETS = Buckets.equal("gmacs", 0.02, 0.1, 5)
SMALL = FilterOptions(dim=16, depth=1, heads=2)
ROWS = TINY.sample(600, np.random.default_rng(0))


def test_scores_do_not_depend_on_what_is_scored_beside():
    path_filter = PathFilter(TINY, BUCKETS, SMALL)
    scores = path_filter(ROWS)
    assert (scores.shape, scores.dtype) == ((600,), np.float64)
    np.testing.assert_allclose(path_filter(ROWS[300:301]), scores[300:301], rtol=1e-5)
    assert np.unique(scores).size > 500


def test_a_filter_is_a_function_of_its_seed_and_leaves_the_others_generator_alone():
    state = torch.get_rng_state()
    first, second, other = (PathFilter(TINY, BUCKETS, SMALL, seed=seed)(ROWS) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


def test_a_saved_filter_scores_as_before(tmp_path):
    path_filter = PathFilter(TINY, BUCKETS, SMALL, seed=3)
    path_filter.measured = {"rows": [{"kendall": 0.5}]}
    path_filter.save(tmp_path / "filter.pt")
    restricted = RestrictedSpace(TINY, forbid_values(TINY, {"expand": [35]}))
    for space in (TINY, restricted):  # one filter serves both
        found = PathFilter.load(tmp_path / "filter.pt", space)
        np.testing.assert_array_equal(found(ROWS), path_filter(ROWS))
        assert (found.measured, found.buckets) == (path_filter.measured, BUCKETS)


@pytest.mark.parametrize(("break_file", "message"), [
    (lambda path: path.unlink(), "cannot be read: No such file"),
    (lambda path: path.write_bytes(path.read_bytes()[:-99]), "damaged"),
    (lambda path: torch.save({"format": 1}, path), "is no path filter"),
])  # fmt: skip
def test_what_is_no_filter_is_refused(tmp_path, break_file, message):
    path = tmp_path / "filter.pt"
    PathFilter(TINY, BUCKETS, SMALL).save(path)
    break_file(path)
    with pytest.raises(NasrayError, match=message) as caught:
        PathFilter.load(path, TINY)
    assert "\n" not in str(caught.value)


def test_a_filter_of_another_space_is_refused(tmp_path):
    PathFilter(TINY, BUCKETS, SMALL).save(tmp_path / "filter.pt")
    resolved = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
    for space in (OFAResNetSpace("laptop"), ShuffleNetSpace(), resolved):
        with pytest.raises(NasrayError, match="was fitted on another space"):
            PathFilter.load(tmp_path / "filter.pt", space)
    with pytest.raises(NasrayError, match="buckets are of latency_ms; there are: gmacs, params_m, layers"):
        PathFilter(TINY, Buckets.equal("latency_ms", 1, 2, 3), SMALL)(ROWS)


def test_equal_filters_have_equal_bytes(tmp_path):
    """Whether two of their texts are one object, as of a literal, or two, as of what a file said, shows nowhere."""
    files = []
    for number, word in enumerate(("loss", "".join(["lo", "ss"]))):
        path_filter = PathFilter(TINY, BUCKETS, SMALL)
        path_filter.measured = {"metric": word, "history": [{"loss": 1.0}], "other": "loss"}
        files.append(tmp_path / f"{number}.pt")
        path_filter.save(files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert PathFilter.load(files[0], TINY).measured == path_filter.measured


def test_a_filter_reads_the_resolution(tmp_path):
    """Of two architectures that differ in nothing else, and cost about the same for what the filter knows."""
    space = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
    path_filter = PathFilter(space, Buckets.equal("params_m", 0, 1, 1), SMALL, seed=3)
    path_filter.save(tmp_path / "filter.pt")
    rows = space.sample(6, np.random.default_rng(0))
    low, high = rows.copy(), rows.copy()
    low[:, -1], high[:, -1] = 64, 96
    again = PathFilter.load(tmp_path / "filter.pt", space)
    assert (again(low) != again(high)).all()
    assert (again(low) == path_filter(low)).all()
