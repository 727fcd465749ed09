import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from nasray.filters.filter import PathFilter
from nasray.filters.options import FilterOptions
from nasray.filters.pruned import FILTER, PRUNED, Pruned, forbidden_of, read_pruned, write_pruned
from nasray.filters.pruning import path_thresholds, prune_operations
from nasray.spaces import NasrayError, OFAResNetSpace, RestrictedSpace, ShuffleNetSpace
from nasray.spaces.buckets import Buckets

TINY = OFAResNetSpace("tiny")


@pytest.fixture
def written(tmp_path):
    gmacs = TINY.cost(TINY.sample(4_000, np.random.default_rng(0)))["gmacs"]
    path_filter = PathFilter(TINY, Buckets.equal("gmacs", gmacs.min(), gmacs.max(), 3), FilterOptions(16, 1, 2))
    path_filter.save(tmp_path / FILTER)
    operations = tuple(prune_operations(TINY, path_filter, samples=4))
    space = RestrictedSpace(TINY, forbidden_of(operations))
    thresholds = tuple(path_thresholds(space, path_filter, num=50))
    pruned = Pruned("gmacs", path_filter.buckets.edges, operations, thresholds, tmp_path / FILTER, {"settings": [1, 2]})
    write_pruned(tmp_path / PRUNED, TINY, pruned)
    return tmp_path / PRUNED, pruned


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_it_is_read_as_it_was_written(written):
    path, pruned = written
    found = read_pruned(path, TINY)
    assert found == pruned  # scores and thresholds to the last bit
    space = found.restricted(TINY)
    assert space.forbidden == RestrictedSpace(TINY, forbidden_of(pruned.operations)).forbidden
    assert found.forbidden
    assert read_pruned(path, OFAResNetSpace("tiny", coupled=True)).forbidden == found.forbidden  # the same networks


def test_nothing_pruned_leaves_the_space_itself(written):
    _, pruned = written
    kept = tuple(dataclasses.replace(one, state="kept") for one in pruned.operations)
    assert dataclasses.replace(pruned, operations=kept).restricted(TINY) is TINY


def test_it_is_read_without_torch(written):
    path, pruned = written
    script = (
        "import sys; from nasray.filters.pruned import read_pruned; from nasray.spaces import OFAResNetSpace; "
        f"print(len(read_pruned({str(path)!r}, OFAResNetSpace('tiny')).forbidden), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(len(pruned.forbidden)), "False"]


def test_what_does_not_fit_is_refused_in_one_line(written):
    path, _ = written
    content = path.read_text()
    for space in (OFAResNetSpace("laptop"), ShuffleNetSpace()):
        with pytest.raises(NasrayError, match="pruned another space"):
            read_pruned(path, space)
    with pytest.raises(NasrayError, match="buckets of gmacs; here there are: layers"):
        read_pruned(path, TINY, cost=lambda rows: {"layers": np.zeros(len(rows))})
    changed(path, format=99)
    with pytest.raises(NasrayError, match="newer version"):
        read_pruned(path, TINY)
    path.write_text(content)
    changed(path, thresholds=[0.5])
    with pytest.raises(NasrayError, match="1 thresholds for 3 buckets"):
        read_pruned(path, TINY)
    path.write_text(content)
    operation = {"operation": {"c9.depth": 1}, "score": 0.0, "cost": 1.0, "bucket": 0, "state": "pruned"}
    changed(path, operations=[operation])
    with pytest.raises(NasrayError, match=r"no gene 'c9\.depth'"):
        read_pruned(path, TINY)
    path.write_text(content[: len(content) // 2])
    with pytest.raises(NasrayError, match="Restore it, or prune anew"):
        read_pruned(path, TINY)
    with pytest.raises(NasrayError, match="prune anew"):
        read_pruned(path.with_name("other.json"), TINY)


def test_another_filter_beside_it_is_noticed(written):
    path, _ = written
    path_filter = PathFilter.load(path.with_name(FILTER), TINY)
    path_filter.measured = {"x": 1}
    path_filter.save(path.with_name(FILTER))
    with pytest.raises(NasrayError, match="is not the filter that"):
        read_pruned(path, TINY)
    path.with_name(FILTER).unlink()
    with pytest.raises(NasrayError, match=r"filter\.pt not found"):
        read_pruned(path, TINY)
