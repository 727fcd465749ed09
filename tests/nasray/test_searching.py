"""Small experiments drawn by a seed: each runs to its asked number, or says why not, and resumes."""

import pickle

import numpy as np
import pytest

from nasray.cluster import OrderedSearch
from nasray.experiment import describe_experiment, parse_description, parse_experiment
from nasray.loading import parse_plan
from nasray.parts import make_parts
from nasray.searchers import SEARCHERS
from nasray.searchers.newcomers import MAX_LISTED
from nasray.spaces import SPACES
from nasray.spaces.testing import all_rows
from nasray.stages import make_plan

BACKBONES = [name for name, space in SPACES.items() if space.cost_scope == "backbone"]  # that zen scores
SMALL_STAGED = {"max_width": 16, "max_depth": 1, "kernels": [3], "parts": [1, 1, 1, 1]}
SMALL_SHUFFLENET = {"widths": [16, 32, 64, 96], "stem_width": 8, "depths": [1, 1, 1, 1]}


def draw(seed):
    """The content of an experiment's YAML."""
    rng = np.random.default_rng(seed)

    def maybe(value, share=0.5):
        return value if rng.random() < share else None

    drawn = [name for name in SEARCHERS if name not in ("listed", "optuna-gp")]  # one needs a list, one is slow
    space, searcher = str(rng.choice(BACKBONES)), str(rng.choice(drawn))
    most = {"optuna-tpe": 8, "optuna-nsga2": 15}.get(searcher, 80)  # samplers of Optuna are slow
    small = {"shufflenet": SMALL_SHUFFLENET, "ofa-resnet": {"size": "tiny"}}.get(space, SMALL_STAGED)
    content = {
        "name": f"drawn-{seed}",
        "seed": int(rng.integers(1000)),
        "evaluations": int(rng.integers(1, most)),
        "batch_size": maybe(int(rng.choice([1, 2, 7, 64, 500]))),
        "in_flight": maybe(int(rng.integers(1, 7))),
        "space": {"name": space, **(small if rng.random() < 0.5 else {})},
        "searcher": {"name": searcher},
        "minimize": ["gmacs"]
        if searcher in ("random", "pareto-evolution", "optuna-nsga2") and rng.random() < 0.5
        else [],
        "evaluator": {"name": "zen"},
    }
    if "evolution" in searcher or searcher == "coarse-to-fine":
        size = int(rng.integers(2, 60))
        options = {
            "population_size": size, "initial": int(rng.integers(0, 80)),
            "tournament" if searcher == "aging-evolution" else "parents": int(rng.integers(1, size + 1)),
            "mutations_per_child": int(rng.integers(1, 3)),
        }  # fmt: skip
        content["searcher"] |= {name: value for name, value in options.items() if rng.random() < 0.5}
        if "parents" in content["searcher"]:
            content["searcher"]["population_size"] = size
        if rng.random() < 0.3:
            content["searcher"] |= {"mutation": 0.25, "crossover": 0.5}
    sample = make_parts(parse_experiment(content, "drawn")).space
    costs = sample.cost(sample.sample(2000, rng))
    low, high = np.quantile(costs["gmacs"], sorted(rng.random(2) * [0.05, 1.0]))
    content["budget"] = {"gmacs": float(high) * 1.0001, "min_gmacs": maybe(float(low) * 0.9999)}
    return {key: value for key, value in content.items() if value is not None}


def new_search(experiment):
    searcher = make_parts(experiment).searcher
    return OrderedSearch(
        searcher, evaluations=experiment.evaluations, batch_size=experiment.batch_size, in_flight=experiment.in_flight
    )


def measure(genes):
    weights = np.random.default_rng(7).normal(size=(genes.shape[1], 16))
    score = weights[np.arange(genes.shape[1]), genes % 16].sum(axis=1)
    return {"score": np.where(genes.sum(axis=1) % 23 == 0, np.nan, score)}


def run(search, stop=None):
    """What is asked for, in order, up to some batch; results come in another order than that of asking."""
    asked = []
    search.fill()
    while not search.is_finished and (stop is None or search.num_batches_told < stop):
        index = max(index for index in search.pending if index not in search.waiting)
        for batch in search.receive(index, measure(search.pending[index].genes)):
            asked.append(batch.proposal.genes.tolist())
            search.tell(batch)
    return asked


def check(seed):
    content = draw(seed)
    experiment = parse_plan(content, "drawn").experiment
    assert parse_description(describe_experiment(experiment), "drawn") == experiment == make_plan(experiment).experiment
    search = new_search(experiment)
    whole = run(search)
    searcher = search.searcher
    rows = np.array([row for batch in whole for row in batch])
    assert len(np.unique(rows, axis=0)) == len(rows) == searcher.num_told
    assert searcher.budget.admits(searcher.cost(rows), len(rows)).all()
    if search.ended_early is None:
        assert len(rows) == experiment.evaluations, content
    else:
        assert len(rows) < experiment.evaluations
        assert f"ended early at {len(rows)} of {experiment.evaluations} evaluations: all " in search.ended_early, (
            content
        )
        assert np.prod([len(gene.values) for gene in searcher.space.genes]) <= MAX_LISTED
        every = all_rows(searcher.space)
        assert searcher.budget.admits(searcher.cost(every), len(every)).sum() == len(rows)

    # Killed after some batch, while others are in flight or wait: from the state, and from the history alone.
    stop = int(np.random.default_rng(seed).integers(len(whole) + 1))
    search = new_search(experiment)
    before = run(search, stop)
    again, searcher = pickle.loads(pickle.dumps(search)), make_parts(experiment).searcher
    searcher.load_state_dict(pickle.loads(pickle.dumps(search.searcher.state_dict())))
    again.searcher = searcher
    assert before + run(again) == whole, content
    replayed = new_search(experiment)
    for index, batch in enumerate(before):
        replayed.replay(index, np.array(batch), measure(np.array(batch)))
    assert before + run(replayed) == whole, content
    return search.ended_early is not None or len(rows) < experiment.evaluations


@pytest.mark.slow
def test_forty_random_experiments_run_to_their_end():
    ended_early = [check(seed) for seed in range(40)]
    assert 0 < sum(ended_early) < 20, "all kinds of ends are wanted"


@pytest.mark.slow
def test_random_experiments_run_to_their_end():
    for seed in range(40, 400):
        check(seed)
