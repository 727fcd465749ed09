import pickle

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.cluster.leaders import in_turn, leaders
from nasray.searchers import BucketEvolution, BucketSampling, Objective
from nasray.searchers.base import NO_PARENT
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import Budget, InfeasibleError, NasrayError, OFAResNetSpace, RestrictedSpace, forbid_values
from nasray.spaces.buckets import Buckets
from nasray.spaces.testing import all_rows

TINY = OFAResNetSpace("tiny")
SEARCHES = [BucketSampling, BucketEvolution]


def genes_of(proposals):
    return np.concatenate([proposal.genes for proposal in proposals])


def counts(searcher, genes):
    return np.bincount(searcher.niches(genes), minlength=searcher.num).tolist()


@pytest.mark.parametrize("search", SEARCHES)
def test_every_bucket_has_as_many_however_rare_it_is(search):
    """The last fifth of the costs holds 13 of a million settings of the released space."""
    searcher = search(OFAResNetSpace(), seed=1)
    proposals = run_search(searcher, 203, batch=29)
    total = np.zeros(5, dtype=int)
    for proposal in proposals:
        total += counts(searcher, proposal.genes)
        assert total.max() - total.min() <= 1
    assert counts(searcher, genes_of(proposals)) == [41, 41, 41, 40, 40]
    assert searcher.notes() == []


def test_batches_of_one_go_round_the_buckets():
    searcher = BucketSampling(TINY, num=3)
    assert [int(searcher.niches(searcher.ask(1).genes)[0]) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_buckets_are_those_of_the_whole_space_and_of_the_cost():
    restricted = RestrictedSpace(TINY, forbid_values(TINY, {"width": [65, 80], "depth": [0]}))
    assert BucketSampling(restricted, num=3).buckets == Buckets.spanning(TINY, "gmacs", 3)

    def twice(rows):
        return {"gmacs": 2 * TINY.cost(rows)["gmacs"]}

    assert BucketSampling(TINY, num=3, cost=twice).buckets == Buckets.spanning(TINY, "gmacs", 3, count=twice)
    layers = BucketSampling(TINY, num=2, by="layers")
    assert layers.buckets.cost == "layers"
    rows = genes_of(run_search(layers, 20))
    assert counts(layers, rows) == [10, 10]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_bucket_that_is_pruned_away_is_passed_over(search):
    space = RestrictedSpace(TINY, forbid_values(TINY, {"width": [65, 80], "depth": [0, 1]}))
    searcher = search(space, seed=3)
    genes, edges = genes_of(run_search(searcher, 60)), searcher.buckets.edges
    assert searcher.buckets == Buckets.spanning(TINY, "gmacs", 5)
    assert counts(searcher, genes) == [30, 30, 0, 0, 0]
    assert space.is_valid(genes).all()
    assert searcher.notes() == [
        f"bucket of gmacs {edges[low]:.4g} to {edges[low + 1]:.4g} closed: the space has no architecture there"
        for low in (2, 3, 4)
    ]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_bucket_in_a_gap_of_costs_is_passed_over(search):
    """Where a space cannot count, samples and mutants look for the bucket."""
    searcher = search(ToySpace(), edges=(0.0, 0.25, 0.75, 12.0, 48.0), seed=0)  # costs are whole numbers
    searcher.max_tries = 2_000
    assert counts(searcher, genes_of(run_search(searcher, 50))) == [1, 0, 25, 24]
    first, second = searcher.notes()
    assert (
        first == "bucket of gmacs 0 to 0.25 closed: all 1 architectures of the space within the budget were asked for"
    )
    assert second == "bucket of gmacs 0.25 to 0.75 closed: none of 2,000 architectures was there"


@pytest.mark.parametrize("search", SEARCHES)
def test_the_end_of_a_space(search):
    space, seen = ToySpace(widths=2), set()
    searcher = search(space, num=3)
    ordered = OrderedSearch(searcher, evaluations=1000, batch_size=8, in_flight=2)

    def evaluate(genes):
        seen.update(map(bytes, genes))
        return toy_metrics(space, genes)

    ordered.run(evaluate)
    assert len(seen) == searcher.num_told == len(all_rows(space)) == 49
    assert ordered.ended_early.startswith("ended early at 49 of 1,000 evaluations: every bucket is closed: bucket of")


@pytest.mark.parametrize("search", SEARCHES)
def test_the_budget_holds_beside_the_buckets(search):
    budget = Budget({"gmacs": 20.0}, {"gmacs": 4.0})
    searcher = search(ToySpace(), edges=(0.0, 3.0, 10.0, 30.0, 48.0), budget=budget, seed=0)
    genes = genes_of(run_search(searcher, 40))
    assert counts(searcher, genes) == [0, 20, 20, 0]
    assert budget.admits(searcher.space.cost(genes), 40).all()
    assert [note.rpartition(": ")[2] for note in searcher.notes()] == ["outside of the budget"] * 2
    with pytest.raises(InfeasibleError, match="gmacs"):
        search(ToySpace(), budget=Budget({"gmacs": -1.0})).ask(3)


def test_costs_beyond_the_edges_are_not_searched():
    searcher = BucketSampling(ToySpace(), edges=(5.0, 10.0, 20.0))
    gmacs = searcher.space.cost(genes_of(run_search(searcher, 40)))["gmacs"]
    assert gmacs.min() >= 5
    assert gmacs.max() <= 20


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_with_closed_buckets_goes_on_exactly(search):
    def make(seed):
        return search(ToySpace(), edges=(0.0, 0.5, 12.0, 48.0), seed=seed)

    straight, stopped = make(4), make(4)
    first, second = (genes_of(run_search(searcher, 24)) for searcher in (straight, stopped))
    np.testing.assert_array_equal(first, second)
    assert straight.closed
    again = make(5)
    again.load_state_dict(pickle.loads(pickle.dumps(stopped.state_dict())))
    assert (again.notes(), again.seen, again.num_told) == (straight.notes(), straight.seen, 24)
    np.testing.assert_array_equal(*(genes_of(run_search(searcher, 40)) for searcher in (straight, again)))


def test_parents_are_of_the_same_bucket():
    searcher, told = BucketEvolution(TINY, num=3, population_size=6, initial=6, seed=0), []
    for _ in range(20):
        proposal = searcher.ask(9)
        niches = searcher.niches(proposal.genes)
        for niche, parents in zip(niches, proposal.parents, strict=True):
            for parent in parents[parents != NO_PARENT]:
                assert searcher.niches(told[parent][None])[0] == niche
        told += list(proposal.genes)
        searcher.tell(proposal.genes, toy_metrics(TINY, proposal.genes))
    assert (proposal.parents[:, 0] != NO_PARENT).any()
    assert len(searcher.population()) == 18
    assert counts(searcher, searcher.population()) == [6, 6, 6]


def test_scores_of_different_buckets_never_compare():
    """Scores that are higher the more an architecture costs leave every bucket its own search."""
    searches = []
    for slope in (0.0, 1000.0):
        searcher = BucketEvolution(TINY, num=3, population_size=6, initial=6, seed=0)

        def metrics(genes, slope=slope, searcher=searcher):
            return {"score": toy_metrics(TINY, genes)["score"] + slope * searcher.niches(genes)}

        searches.append(genes_of(run_search(searcher, 120, batch=9, metrics=metrics)))
    np.testing.assert_array_equal(*searches)


def test_leaders_are_the_best_of_every_bucket():
    searcher = BucketEvolution(TINY, seed=0)
    genes = genes_of(run_search(searcher, 100))
    values = searcher.objective_values(genes, toy_metrics(TINY, genes))
    kept = leaders(values, niches=searcher.niches(genes))
    assert counts(searcher, genes[kept]) == [10] * 5


def test_several_objectives_are_a_front_in_every_bucket():
    """What a listing search takes of a bucket then differs in cost; by the score alone its best lie close together."""
    spans = []
    for objectives in ((Objective("score"),), (Objective("score"), Objective("gmacs", "min"))):
        searcher = BucketEvolution(TINY, num=3, population_size=8, objectives=objectives, seed=0)

        def metrics(genes):  # worth what it costs
            return {"score": TINY.cost(genes)["gmacs"]}

        genes = genes_of(run_search(searcher, 240, batch=12, metrics=metrics))
        costs = TINY.cost(genes)
        niches, values = searcher.niches(genes), searcher.objective_values(genes, {**costs, **metrics(genes)})
        taken = in_turn(values, niches)[:24]
        assert np.bincount(niches[taken]).tolist() == [8, 8, 8]
        spans.append([np.ptp(costs["gmacs"][taken][niches[taken] == bucket]) for bucket in range(3)])
    assert (np.asarray(spans[1]) > 2 * np.asarray(spans[0])).all(), spans


def random_landscape(seed):
    """Score of every gene's value, and of every pair of neighboring genes."""
    rng = np.random.default_rng(seed)
    most = max(gene.values[-1] for gene in TINY.genes) + 1
    single, double = rng.normal(size=(TINY.num_genes, most)), rng.normal(size=(TINY.num_genes - 1, 61, 59))

    def score(genes):
        own = single[np.arange(TINY.num_genes), genes].sum(axis=1)
        return own + double[np.arange(TINY.num_genes - 1), genes[:, :-1] % 61, genes[:, 1:] % 59].sum(axis=1)

    return lambda genes: {"score": score(genes)}


def test_evolution_finds_better_ones_than_sampling_in_every_bucket():
    """Eight landscapes, 80 evaluations in each of five buckets; the 95 % interval of the gain, bucket by bucket."""
    gains = []
    for seed in range(8):
        best = []
        for search in SEARCHES:
            searcher, metrics = search(TINY, seed=100 + seed, evaluations=400), random_landscape(seed)
            genes = genes_of(run_search(searcher, 400, batch=20, metrics=metrics))
            scores, niches = metrics(genes)["score"], searcher.niches(genes)
            best.append([scores[niches == niche].max() for niche in range(5)])
        gains.append(np.subtract(best[1], best[0]))
    mean, half = np.mean(gains, axis=0), 1.96 * np.std(gains, axis=0, ddof=1) / np.sqrt(len(gains))
    assert (mean - half > 0).all(), f"{mean} +- {half}"


def test_options_are_those_of_a_bucket():
    assert BucketSampling(TINY).options() == {"num": 5}
    assert BucketSampling(TINY, edges=(0, 1, 2)).options() == {"num": 2}
    options = BucketEvolution(TINY, num=4, evaluations=400, crossover=0.25).options()
    assert options == {
        "num": 4,
        "population_size": 16,
        "parents": 3,
        "mutation": 0.75,
        "crossover": 0.25,
        "mutations_per_child": 1,
        "initial": 16,
    }


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (BucketSampling, {"num": 0}, "num is a whole number from 1 to 100; got 0"),
        (BucketSampling, {"by": "latency_ms"}, "buckets by latency_ms: space 'toy' does not have .* It has: gmacs"),
        (BucketSampling, {"edges": (1.0, 1.0)}, "edges of buckets of gmacs ascend"),
        (BucketSampling, {"edges": (1.0, 2.0), "num": 2}, "2 edges bound 1 buckets, got num=2"),
        (BucketSampling, {"edges": (1.0, 2.0), "budget": Budget({"gmacs": 0.5})}, "leaves nothing of the buckets"),
        (BucketEvolution, {"population_size": 4, "parents": 5}, "parents <= population_size"),
    ],
)
def test_senseless_options_are_refused(search, options, message):
    with pytest.raises(NasrayError, match=message):
        search(ToySpace(), **options)
