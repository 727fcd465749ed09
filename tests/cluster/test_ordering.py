import pickle
from functools import partial

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.searchers import CoarseToFineEvolution, Evolution, ParetoEvolution, RandomSearch
from nasray.spaces import BottleneckSpace, Budget, Gene, NasrayError, Space

from .common import load_drive


def evaluate(genes):
    return {"score": -((genes - 3) ** 2).sum(axis=1).astype(float)}


def new(in_flight=3, evaluations=200, batch_size=10, order="asked"):
    searcher = Evolution(load_drive().Grid(), population_size=12, mutation=0.6, crossover=0.3, seed=1)
    return OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight, order=order)


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
    assert run(again(search), max, log) == whole


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


# ---- the end ------------------------------------------------------------------------------------------------------


class Ladder(RandomSearch):
    """Proposes the numbers up to three beyond the largest told: a searcher that has nothing new until it is told."""

    def _candidates(self, kind, num):
        rows = np.arange(min(self.num_told + 3, len(self.space.genes[0].values)))[:, None]
        return rows, np.full((len(rows), 2), -1)


class Line(Space):
    family = "line"

    def __init__(self, num):
        self.genes = (Gene("place", tuple(range(num))),)


def ladder(in_flight, *, length=1000, evaluations=30, batch_size=4):
    searcher = Ladder(Line(length))
    searcher.max_patience, searcher.max_tries = 5, 20
    return OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight)


def test_in_the_order_finished_none_waits_for_one_that_takes_long():
    asked = new()
    asked.fill()
    for index in (1, 2):
        assert asked.receive(index, evaluate(asked.pending[index].genes)) == []
    assert list(asked.pending) == [0, 1, 2]  # nothing more is due before batch 0
    log = run(new(order="finished"), max, [])  # batch 0 takes as long as all others together
    assert [index for index, _ in log] == list(range(20))
    assert log[-1][1] == new().searcher.ask(10).genes.tolist()


def test_a_search_in_the_order_finished_goes_on_from_its_history():
    search, told = new(order="finished"), []
    search.fill()
    rng = np.random.default_rng(0)
    for _ in range(9):
        number = rng.choice(list(search.pending))
        (batch,) = search.receive(number, evaluate(search.pending[number].genes))
        assert (batch.index, batch.number) == (len(told), number)
        told.append(batch)
        search.tell(batch)
        assert search.receive(number, batch.metrics) == []  # reported twice
    replayed = new(order="finished")
    for batch in told:
        replayed.replay(batch.index, batch.proposal.genes, batch.metrics, batch.asked)
    assert replayed.pending.keys() == search.pending.keys()
    for number, proposal in search.pending.items():
        assert np.array_equal(replayed.pending[number].genes, proposal.genes)
    assert run(replayed, min, []) == run(search, min, [])


def test_a_history_of_another_order_is_refused():
    search = new(order="finished")
    search.fill()
    (batch,) = search.receive(0, evaluate(search.pending[0].genes))
    with pytest.raises(NasrayError, match="another experiment"):
        new().replay(0, batch.proposal.genes, batch.metrics, batch.asked)
    with pytest.raises(NasrayError, match="another experiment"):
        new(order="finished").replay(0, batch.proposal.genes, batch.metrics)


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_a_batch_that_is_short_or_empty_waits_for_what_is_in_flight(in_flight):
    search = ladder(in_flight)
    search.fill()
    assert [len(proposal) for proposal in search.pending.values()] == [3]
    assert not search.is_finished
    log = run(search, min, [])
    assert [row for _, genes in log for (row,) in genes] == list(range(30))
    assert search.ended_early is None
    for order in (max, lambda batches: batches[len(batches) // 2]):
        assert run(ladder(in_flight), order, []) == log


@pytest.mark.parametrize("in_flight", [1, 3])
def test_save_and_load_at_every_moment_of_a_search_that_waits(in_flight):
    whole = run(ladder(in_flight), max, [])
    search, log = ladder(in_flight), []
    while not search.is_finished:
        search = again(search)
        search.fill()
        search.fill()  # asks for nothing more
        search = again(search)
        run(search, max, log, stop=search.num_batches_told + 1)
    assert log == whole
    search, half = ladder(in_flight), len(whole) // 2
    for index, genes in whole[:half]:
        search.replay(index, np.array(genes), evaluate(np.array(genes)))
    assert run(search, min, whole[:half]) == whole


def again(search):
    return pickle.loads(pickle.dumps(search))


def test_a_searcher_without_ideas_ends_early_and_says_where_and_why():
    search = ladder(2, length=100_001)  # too large to be listed
    search.searcher._candidates = lambda kind, num: (np.zeros((num, 1), dtype=np.int64), np.full((num, 2), -1))
    run(search, min, [])
    assert search.is_finished
    assert search.ended_early.startswith("ended early at 1 of 30 evaluations: ")
    assert "candidates in a row were known already or outside of the budget" in search.ended_early


SMALL = {"max_width": 16, "max_stem_width": 16, "max_mid": 16, "max_depth": 1, "kernels": (3,), "parts": (1, 1, 1, 1)}


@pytest.mark.parametrize("in_flight", [1, 2, 5])
@pytest.mark.parametrize("make", [RandomSearch, Evolution, ParetoEvolution])
def test_a_search_ends_early_when_all_of_its_space_is_told(make, in_flight):
    search = OrderedSearch(make(BottleneckSpace(**SMALL)), evaluations=10_000, batch_size=100, in_flight=in_flight)
    log = run(search, min, [])
    rows = [tuple(row) for _, genes in log for row in genes]
    num = 2 * (2 * 2) ** 4
    assert len(rows) == len(set(rows)) == num
    assert search.ended_early == (
        f"ended early at {num} of 10,000 evaluations: all {num} architectures of the space within the budget were "
        "asked for"
    )
    assert again(search).ended_early == search.ended_early


@pytest.mark.parametrize(
    "make", [RandomSearch, Evolution, partial(CoarseToFineEvolution, fine_after=50), ParetoEvolution]
)
def test_a_budget_that_samples_do_not_meet_is_searched_to_the_end(make):
    """A few of a million samples are within it, and mutants of the seeds are a few dozen."""
    budget = Budget(upper={"gmacs": 89.6, "layers": 91}, lower={"gmacs": 89.2, "layers": 91})
    search = OrderedSearch(make(BottleneckSpace(), budget=budget), evaluations=100, batch_size=10, in_flight=2)
    log = run(search, min, [])
    rows = np.array([row for _, genes in log for row in genes])
    assert len(np.unique(rows, axis=0)) == 100
    assert budget.admits(BottleneckSpace().cost(rows), 100).all()
    assert search.ended_early is None


def test_a_search_in_a_tight_budget_goes_on_after_a_restart():
    budget = Budget(upper={"gmacs": 89.6, "layers": 91}, lower={"gmacs": 89.2, "layers": 91})

    def fresh():
        return OrderedSearch(RandomSearch(BottleneckSpace(), budget=budget), evaluations=40, batch_size=8, in_flight=2)

    whole, search, log = run(fresh(), min, []), fresh(), []
    run(search, min, log, stop=2)
    assert search.searcher.newcomers.walkers is not None
    continued, searcher = again(search), fresh().searcher
    searcher.load_state_dict(search.searcher.state_dict())
    continued.searcher = searcher
    assert run(continued, min, log) == whole


@pytest.mark.parametrize("bad", [{"evaluations": 0}, {"batch_size": 0}, {"in_flight": 0}])
def test_bad_numbers_are_refused(bad):
    with pytest.raises(NasrayError, match="at least 1"):
        new(**bad)


def test_a_searcher_that_was_asked_before_is_refused():
    searcher = new().searcher
    searcher.ask(3)
    with pytest.raises(NasrayError, match="asked for 3 architectures already"):
        OrderedSearch(searcher, evaluations=100, batch_size=10, in_flight=1)
