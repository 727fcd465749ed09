"""Best score per searcher over several seeds, on the same budget of evaluations, in this process (no Ray).

`python benchmarks/searchers.py [--evaluations 1000] [--seeds 5] [--json]`.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np

from nasray.cluster import OrderedSearch
from nasray.cluster.files import to_json
from nasray.loading import load_plan
from nasray.options import options_of
from nasray.parts import make_parts
from nasray.registry import SEARCHERS

NAMES = ("random", "evolution", "coarse-to-fine", "optuna-tpe", "optuna-nsga2")


def best_of(experiment):
    parts = make_parts(experiment)
    search = OrderedSearch(
        parts.searcher, evaluations=experiment.evaluations, batch_size=experiment.batch_size, in_flight=1
    )
    scores = []
    search.run(parts.evaluator, lambda batch: scores.append(batch.metrics["score"].max()))
    return float(max(scores))


def main(name, searchers, evaluations, seeds, batch_size):
    rows = {}
    for searcher in searchers:
        options = options_of(SEARCHERS, searcher)  # by default in all else
        begin = time.process_time()
        common = {"searcher": options, "evaluations": evaluations, "batch_size": batch_size}
        scores = []
        for seed in range(seeds):
            scores.append(best_of(replace(load_plan(name).experiment, seed=seed, **common)))
            print(f"{searcher} seed {seed}: {scores[-1]:.1f}", file=sys.stderr, flush=True)
        rows[searcher] = {
            "mean": float(np.mean(scores)),
            "sd": float(np.std(scores, ddof=1)) if seeds > 1 else 0.0,
            "best": max(scores),
            "scores": scores,
            "cpu_seconds_per_search": (time.process_time() - begin) / seeds,
        }
    return {"experiment": name, "evaluations": evaluations, "batch_size": batch_size, "seeds": seeds, "searchers": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiment", default="maedet-m")
    parser.add_argument("--searchers", nargs="+", default=list(NAMES), choices=list(SEARCHERS))
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = main(options.experiment, options.searchers, options.evaluations, options.seeds, options.batch_size)
    if options.json:
        print(to_json(result, indent=1))
    else:
        print(f"{'searcher':16} {'mean':>9} {'sd':>7} {'best':>9} {'CPU s':>7}")
        for name, row in result["searchers"].items():
            print(
                f"{name:16} {row['mean']:9.1f} {row['sd']:7.1f} {row['best']:9.1f} {row['cpu_seconds_per_search']:7.1f}"
            )
