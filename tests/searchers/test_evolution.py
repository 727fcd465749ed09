import numpy as np
import pytest

from nasray.searchers import CoarseToFineEvolution, Evolution, ParetoEvolution, RandomSearch
from nasray.searchers.base import NO_PARENT
from nasray.searchers.testing import ToySpace, run_search, toy_metrics
from nasray.spaces import BottleneckSpace, Budget, NasrayError


def most_layers(searcher, num):
    def layers(genes):
        return {"score": searcher.space.cost(genes)["layers"]}

    proposals = run_search(searcher, num, batch=16, metrics=layers)
    return max(layers(proposal.genes)["score"].max() for proposal in proposals)


@pytest.mark.parametrize("options", [{}, {"mutation": 0.4, "crossover": 0.4}], ids=["mutation", "crossover as well"])
def test_evolution_beats_random_search(options):
    space, budget, num, seeds = BottleneckSpace(), Budget(upper={"gmacs": 20.0}), 400, range(4)
    evolved = [
        most_layers(Evolution(space, budget=budget, population_size=16, seed=seed, **options), num) for seed in seeds
    ]
    random = [most_layers(RandomSearch(space, budget=budget, seed=seed), num) for seed in seeds]
    assert np.mean(evolved) > np.mean(random) + 10
    assert min(evolved) > np.mean(random)


def test_population_is_the_best_of_all_told():
    searcher = Evolution(ToySpace(), population_size=10, seed=0)
    genes = np.concatenate([proposal.genes for proposal in run_search(searcher, 100)])
    scores = toy_metrics(searcher.space, genes)["score"]
    best = np.argsort(-scores, kind="stable")[:10]
    assert searcher.population().tolist() == genes[best].tolist()


def test_children_descend_from_the_parents_they_name():
    searcher = Evolution(BottleneckSpace(), population_size=10, parents=6, mutation=0.5, crossover=0.3, seed=0)
    told = np.empty((0, searcher.space.num_genes), dtype=np.int64)
    kinds, pure = set(), []
    for _ in range(12):
        breeding = searcher.population()[:6]
        proposal = searcher.ask(10)
        for child, (first, second) in zip(proposal.genes, proposal.parents, strict=True):
            kinds.add((first != NO_PARENT, second != NO_PARENT))
            for parent in (first, second):
                assert parent == NO_PARENT or told[parent].tolist() in breeding.tolist()
            if second != NO_PARENT:
                pure.append(bool(((child == told[first]) | (child == told[second])).all()))
        searcher.tell(proposal.genes, toy_metrics(searcher.space, proposal.genes))
        told = np.concatenate([told, proposal.genes])
    assert kinds == {(False, False), (True, False), (True, True)}
    assert np.mean(pure) > 0.3, "children of a crossing are mutated only if they are known already"


def test_a_start_over_the_budget_is_mutated_into_it():
    space = BottleneckSpace()
    budget = Budget(upper={"gmacs": 5.0}, lower={"layers": 40})
    assert not budget.admits(space.cost(space.start()), 1).any()
    proposal = Evolution(space, budget=budget, seed=0).ask(32)
    assert len(proposal) == 32
    assert budget.admits(space.cost(proposal.genes), 32).all()


def test_a_smaller_space_has_a_start():
    space = BottleneckSpace(max_width=64, max_mid=32, max_stem_width=16, max_depth=3, kernels=(5,))
    assert len(Evolution(space, seed=0).ask(16)) == 16


@pytest.mark.parametrize("make", [Evolution, ParetoEvolution])
def test_a_converged_evolution_looks_at_few_candidates(make):
    """Nearly all neighbors of the survivors are known, and each proposal is made of a bounded number of candidates."""
    space = ToySpace(widths=6)
    searcher = make(space, population_size=8, seed=0)
    run_search(searcher, 160, batch=1)
    looked_at, candidates = [], searcher._candidates
    searcher._candidates = lambda kind, num: (looked_at.append(num), candidates(kind, num))[1]
    run_search(searcher, 140, batch=1)
    assert searcher.num_told == 300
    assert sum(looked_at) / 140 < 200


@pytest.mark.parametrize("fine_after", [24, 30])
def test_coarse_to_fine_switches_keeps_and_mutates_finely(fine_after):
    space = BottleneckSpace()
    searcher = CoarseToFineEvolution(space, fine_after=fine_after, keep=4, population_size=12, seed=0)
    told = np.empty((0, space.num_genes), dtype=np.int64)
    sizes, coarse_steps = [], 0
    for _ in range(10):
        was_fine, held = searcher.fine, searcher.population()
        proposal = searcher.ask(8)
        known = proposal.parents[:, 0] != NO_PARENT
        depths, parent_depths = (
            space.split(rows)[1][:, :, -1] for rows in (proposal.genes[known], told[proposal.parents[known, 0]])
        )
        same = (depths == parent_depths).all(axis=1)
        if was_fine:
            assert known.all()
            assert same.all(), "a fine mutant has another depth than its parent"
        coarse_steps += int((~same).sum())
        searcher.tell(proposal.genes, toy_metrics(space, proposal.genes))
        told = np.concatenate([told, proposal.genes])
        if searcher.fine and not was_fine:
            pool = np.concatenate([held, proposal.genes])
            scores = toy_metrics(space, pool)["score"]
            assert searcher.population().tolist() == pool[np.argsort(-scores, kind="stable")[:4]].tolist()
        sizes.append(len(searcher.population()))
    switch = -(-fine_after // 8) - 1  # the batch with which so many are told
    assert sizes[switch] == 4
    assert sizes[switch - 1] == 12
    assert sizes[-1] == 12
    assert coarse_steps > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population_size": 1}, "population_size=1"),
        ({"population_size": 100, "parents": 500}, "population_size=100, parents=500"),
        ({"evaluations": 100, "parents": 17}, "population_size=16, parents=17"),
        ({"parents": 0}, "parents=0"),
        ({"mutation": 0.8, "crossover": 0.3}, "mutation=0.8, crossover=0.3"),
        ({"mutation": -0.1}, "mutation=-0.1"),
        ({"mutations_per_child": 0}, "got 0"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(NasrayError, match=message):
        Evolution(ToySpace(), **options)


@pytest.mark.parametrize("options", [{"fine_after": 0}, {"fine_after": 10, "keep": 0}])
def test_senseless_halves_are_refused(options):
    with pytest.raises(NasrayError, match="fine_after"):
        CoarseToFineEvolution(ToySpace(), **options)
