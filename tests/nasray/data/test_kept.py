"""Batches are kept once all of them were loaded, as far as there is memory for them."""

import numpy as np

from nasray.data.kept import CacheBudget, KeptBatches


def test_batches_are_kept_when_all_were_loaded():
    class Item:
        images = np.zeros(10, dtype=np.uint8)

    loads = []

    def load():
        loads.append(1)
        return [Item(), Item()]

    batches = KeptBatches(load, CacheBudget(25))
    assert next(iter(batches))  # left early
    assert batches.kept is None
    iterator = iter(batches)
    next(iterator), next(iterator)  # the last was had, and its end not asked for
    assert len(list(batches)) == len(list(batches)) == 2
    assert len(loads) == 2
    assert batches.budget.left == 5
    other = KeptBatches(load, batches.budget)
    assert len(list(other)) == len(list(other)) == 2
    assert other.kept is None
    assert len(loads) == 4
