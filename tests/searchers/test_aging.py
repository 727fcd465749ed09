import numpy as np
import pytest

from nasray.searchers import AgingEvolution
from nasray.searchers.base import NO_PARENT
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import BottleneckSpace, NasrayError


def test_the_oldest_die_however_good_they_are():
    searcher = AgingEvolution(ToySpace(), population_size=10, seed=0)
    genes = np.concatenate([proposal.genes for proposal in run_search(searcher, 60, batch=4)])
    living = genes[-10:]
    scores = toy_metrics(searcher.space, living)["score"]
    assert searcher.population().tolist() == living[np.argsort(-scores, kind="stable")].tolist()


def test_the_best_of_a_tournament_breeds():
    space = BottleneckSpace()
    searcher = AgingEvolution(space, population_size=20, tournament=5, initial=20, seed=0)
    ranks = []
    for _ in range(60):
        ages, values = searcher.numbers, searcher.values[:, 0] if len(searcher.values) else np.empty(0)
        proposal = searcher.ask(4)
        if len(values) == 20:
            place = {number: rank for rank, number in enumerate(ages[np.argsort(-values, kind="stable")].tolist())}
            ranks += [place[parent] for parent in proposal.parents[:, 0].tolist()]
            assert (proposal.parents[:, 1] == NO_PARENT).all()
        searcher.tell(proposal.genes, toy_metrics(space, proposal.genes))
    counts = np.bincount(ranks, minlength=20) / len(ranks)
    expected = ((20 - np.arange(20)) / 20) ** 5 - ((19 - np.arange(20)) / 20) ** 5  # the best of 5, with replacement
    assert len(ranks) > 200
    assert np.abs(counts - expected).max() < 0.08


def test_sizes_follow_the_evaluations():
    options = AgingEvolution(ToySpace(), evaluations=300).options()
    assert (options["population_size"], options["tournament"], options["initial"]) == (50, 10, 50)
    assert (options["mutation"], options["crossover"]) == (1.0, 0.0)
    assert AgingEvolution(ToySpace(), evaluations=300, crossover=0.5).options()["mutation"] == 0.5


@pytest.mark.parametrize(("options", "message"), [({"tournament": 0}, "tournament=0"), ({"population_size": 1}, "=1")])
def test_senseless_options_are_refused(options, message):
    with pytest.raises(NasrayError, match=message):
        AgingEvolution(ToySpace(), **options)
