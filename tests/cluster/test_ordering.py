import pickle

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.searchers import Evolution, RandomSearch
from nasray.spaces import BottleneckSpace, NasrayError

from .common import load_drive


def evaluate(genes):
    return {"score": -((genes - 3) ** 2).sum(axis=1).astype(float)}


def new(in_flight=3, evaluations=200, batch_size=10):
    searcher = Evolution(load_drive().Grid(), population_size=12, mutation=0.6, crossover=0.3, seed=1)
    return OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight)


def run(search, order, log, stop=None):
    """Finish pending batches in whatever order `order` likes; log what is told."""
    search.fill()
    while not search.is_finished and (stop is None or search.num_batches_told < stop):
        open_batches = [index for index in search.pending if index not in search.waiting]
        index = order(open_batches)
        for batch in search.receive(index, evaluate(search.pending[index].genes)):
            log.append((batch.index, batch.proposal.genes.tolist()))
            search.tell(batch)
    return log


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_completion_order_does_not_matter(in_flight):
    first = run(new(in_flight), min, [])
    rng = np.random.default_rng(0)
    for order in (max, lambda batches: batches[rng.integers(len(batches))]):
        assert run(new(in_flight), order, []) == first
    assert [index for index, _ in first] == list(range(20))


def test_number_in_flight_does_matter():
    assert run(new(1), min, []) != run(new(3), min, [])


def test_save_and_load_in_the_middle_with_results_waiting():
    whole = run(new(), max, [])
    search, log = new(), []
    run(search, max, log, stop=7)
    search.fill()
    index = max(search.pending)  # a result that waits for its turn travels too
    search.receive(index, evaluate(search.pending[index].genes))
    again = new()
    again.load_state_dict(pickle.loads(pickle.dumps(search.state_dict())))
    assert run(again, max, log) == whole


def test_replay_continues_and_refuses_another_history():
    whole = run(new(), min, [])
    search = new()
    for index, genes in whole[:9]:
        search.replay(index, np.array(genes), evaluate(np.array(genes)))
    assert run(search, max, list(whole[:9])) == whole
    with pytest.raises(NasrayError, match="another experiment"):
        new().replay(0, np.array(whole[1][1]), evaluate(np.array(whole[1][1])))


def test_a_batch_reported_twice_or_never_asked_for_counts_once():
    search = new(1)
    search.fill()
    metrics = evaluate(search.pending[0].genes)
    (batch,) = search.receive(0, metrics)
    search.tell(batch)
    assert search.receive(0, metrics) == []
    assert search.receive(99, metrics) == []
    assert search.num_told == 10


def test_a_small_space_is_exhausted_and_finishes():
    space = BottleneckSpace(max_width=16, max_stem_width=16, max_mid=16, max_depth=1, kernels=(3,), parts=(1, 1, 1, 1))
    search = OrderedSearch(RandomSearch(space), evaluations=10_000, batch_size=300, in_flight=2)
    log = run(search, min, [])
    assert search.exhausted
    assert sum(len(genes) for _, genes in log) == 2 * (2 * 2) ** 4


@pytest.mark.parametrize("bad", [{"evaluations": 0}, {"batch_size": 0}, {"in_flight": 0}])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(NasrayError, match="at least 1"):
        new(**bad)
