import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.searchers import AgingEvolution, Evolution, ParetoEvolution
from nasray.searchers.base import NO_PARENT
from nasray.searchers.breeding import kinds_in_turn
from nasray.searchers.testing import ToySpace, run_search
from nasray.spaces import Budget, ShuffleNetSpace, row_keys

WINDOWS = {1.0: (0.0, 1.0), 0.3: (0.0, 0.2878), 0.01: (0.2970, 0.2973), 0.004: (0.258, 0.26335)}
"""Shares of random architectures of DetNAS's smaller space, and multiply-adds that they meet."""
ASKED = np.array([0.4, 0.4, 0.2])


def share_within(low, high):
    gmacs = ShuffleNetSpace().cost(ShuffleNetSpace().sample(200_000, np.random.default_rng(1)))["gmacs"]
    return ((gmacs >= low) & (gmacs <= high)).mean()


def kinds_of(proposal):
    """0 for mutants, 1 for crossed children, 2 for newcomers."""
    first, second = proposal.parents.T
    return np.where(first == NO_PARENT, 2, np.where(second == NO_PARENT, 0, 1))


@pytest.mark.parametrize(("share", "window"), WINDOWS.items())
@pytest.mark.parametrize("make", [Evolution, AgingEvolution])
def test_shares_of_children_are_those_asked_for_however_tight_the_budget(make, share, window):
    low, high = window
    assert share_within(low, high) == pytest.approx(share, rel=0.15)
    searcher = make(
        ShuffleNetSpace(), population_size=50, mutation=0.4, crossover=0.4, initial=50, seed=0,
        budget=Budget({"gmacs": high}, {"gmacs": low}),
    )  # fmt: skip
    rng, kinds = np.random.default_rng(0), []
    for batch in range(42):
        proposal = searcher.ask(25)
        kinds += [kinds_of(proposal)] if batch >= 2 else []
        searcher.tell(proposal.genes, {"score": rng.random(len(proposal))})
    shares = np.bincount(np.concatenate(kinds), minlength=3) / 1000
    assert np.abs(shares - ASKED).max() < 0.05
    assert searcher.num_replaced == 0


@given(st.integers(0, 10**6), st.integers(0, 200), st.floats(0, 1), st.floats(0, 1))
def test_of_any_children_in_a_row_each_kind_has_its_share(first, num, mutation, rest):
    crossover = rest * (1 - mutation)
    kinds = kinds_in_turn(first, num, mutation, crossover)
    counts = np.bincount(kinds, minlength=3)
    shares = np.array([1 - mutation - crossover, mutation, crossover])
    assert np.abs(counts - num * shares).max() <= 2 + 1e-6
    assert np.array_equal(kinds_in_turn(first, num // 2, mutation, crossover), kinds[: num // 2])


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_shares_of_a_short_search_are_those_asked_for(batch):
    searcher = Evolution(ShuffleNetSpace(), population_size=8, mutation=0.4, crossover=0.4, initial=8, seed=0)
    proposals = run_search(searcher, 24, batch=batch)
    kinds = np.concatenate([kinds_of(proposal) for proposal in proposals])
    assert (kinds[:8] == 2).all()
    bred = kinds[-(-8 // batch) * batch :]
    assert np.abs(np.bincount(bred, minlength=3) / len(bred) - ASKED).max() <= 0.05


@pytest.mark.parametrize("oversample", [1, 5])
def test_shares_hold_with_a_predictor(oversample):
    searcher = Evolution(
        ShuffleNetSpace(), population_size=50, mutation=0.4, crossover=0.4, seed=0, oversample=oversample,
        predictor=lambda genes: genes.sum(axis=1).astype(float),
    )  # fmt: skip
    proposals = run_search(searcher, 1050, batch=25)[2:]
    shares = np.bincount(np.concatenate([kinds_of(proposal) for proposal in proposals]), minlength=3) / 1000
    assert np.abs(shares - ASKED).max() < 0.05


def test_newcomers_in_the_place_of_what_cannot_be_bred_are_counted():
    searcher = Evolution(ToySpace(widths=3), population_size=2, parents=1, mutation=1.0, initial=2, seed=0)
    proposals = run_search(searcher, 100, batch=4)
    newcomers = sum(int((kinds_of(proposal) == 2).sum()) for proposal in proposals[1:])
    assert searcher.num_told == 100
    assert searcher.num_replaced == newcomers > 0
    copy = Evolution(ToySpace(widths=3), population_size=2, parents=1, mutation=1.0, initial=2, seed=0)
    copy.load_state_dict(searcher.state_dict())
    assert copy.num_replaced == newcomers


@pytest.mark.parametrize("make", [Evolution, AgingEvolution, ParetoEvolution])
def test_known_children_of_a_crossing_are_mutated(make):
    """Parents that are alike have no new children; the share of crossed ones holds all the same."""
    space = ShuffleNetSpace()
    searcher = make(space, population_size=8, mutation=0.0, crossover=1.0, initial=8, seed=0)
    twin = space.sample(1, np.random.default_rng(0))
    searcher.tell(searcher.ask(8).genes, {"score": np.zeros(8)})
    searcher.genes = np.repeat(twin, 8, axis=0)
    searcher.seen.update(searcher.seen | {int(key) for key in row_keys(twin)})
    children = searcher.ask(16)
    assert (kinds_of(children) == 1).all()
    assert ((children.genes != twin).sum(axis=1) <= 8).all()
