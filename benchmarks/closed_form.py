"""Candidates a second of the closed-form path on one core: mutation, validity, cost, score.

The populations are those that the experiment's own search meets, taken along its way; every candidate of them takes
all four steps. `python benchmarks/closed_form.py [--json]`. The released MAE-DET code makes 22 candidates a second
unpatched, about 1,000 with its networks left unbuilt (measured by its authors' command on one core of a like machine).
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from nasray.cluster import OrderedSearch
from nasray.cluster.files import to_json
from nasray.loading import load_plan


def populations(plan):
    """Return the survivors of an evolution at ten moments."""
    experiment, searcher, evaluator = plan.experiment, plan.parts.searcher, plan.parts.evaluator
    search = OrderedSearch(searcher, evaluations=experiment.evaluations, batch_size=experiment.batch_size, in_flight=2)
    every = max(experiment.evaluations // experiment.batch_size // 10, 1)
    kept = []

    def keep(batch):
        if batch.index and batch.index % every == 0:
            kept.append(searcher.population())

    search.run(evaluator, keep)
    return searcher, evaluator, kept


def measure(plan, rounds):
    searcher, evaluator, kept = populations(plan)
    experiment = plan.experiment
    space, rng = searcher.space, np.random.default_rng(0)
    seconds = dict.fromkeys(("mutation", "validity", "cost", "score"), 0.0)
    num = 0
    for _ in range(rounds):
        for survivors in kept:
            parents = survivors[rng.integers(len(survivors), size=experiment.batch_size)]
            marks = [time.process_time()]
            children = space.mutate(parents, rng)
            marks.append(time.process_time())
            space.is_valid(children)
            marks.append(time.process_time())
            searcher.cost(children)
            marks.append(time.process_time())
            evaluator(children)
            marks.append(time.process_time())
            for name, took in zip(seconds, np.diff(marks), strict=True):
                seconds[name] += took
            num += len(children)
    per_candidate = {name: value / num * 1e6 for name, value in seconds.items()}
    total = sum(per_candidate.values())
    return {
        "experiment": experiment.name,
        "batch_size": experiment.batch_size,
        "candidates": num,
        "microseconds_per_candidate": {**per_candidate, "all": total},
        "candidates_per_second": 1e6 / total,
        "times_released_code": {"unpatched_22_per_second": 1e6 / total / 22, "patched_1000_per_second": 1e3 / total},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiment", default="maedet-m")
    parser.add_argument("--rounds", type=int, default=10, help="10 make as many candidates as the search evaluates")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(load_plan(options.experiment), options.rounds)
    if options.json:
        print(to_json(result, indent=1))
    else:
        for step, value in result["microseconds_per_candidate"].items():
            print(f"{step:10} {value:8.2f} us a candidate")
        print(f"{result['candidates_per_second']:,.0f} candidates a second (CPU time of one core)")
