"""Predictors for `guided-evolution`: its Gaussian process beside a path filter, on the landscapes of `landscapes.py`.

`python benchmarks/predictors.py [--landscapes blocks-10^12 peaks-10^8] [--evaluations 100 300] [--seeds 2] [--json]`

Both are fitted to the same random architectures within the landscape's budget; Kendall's tau is of their guesses for
500 others. The path filter has one bucket, so that all pairs count, and is otherwise by default.
"""

import argparse
import sys
import time

import numpy as np
from landscapes import LANDSCAPES

from nasray.cluster.files import to_json
from nasray.filters.filter import PathFilter
from nasray.filters.fitting import fit_filter
from nasray.scores.ranking import rank_agreement
from nasray.searchers.surrogate import GaussianProcess
from nasray.spaces.buckets import Buckets

NUM_OTHERS = 500
FIRST_SEED = 1_000


def fit_process(space, genes, values):
    """Return the guesses of a Gaussian process."""
    process = GaussianProcess(space, genes, values)
    return lambda rows: process(rows)[0]


def fit_path_filter(space, genes, values):
    """Return the guesses of a path filter of one bucket."""
    name, costs = next(iter(space.cost(genes).items()))
    path_filter = PathFilter(space, Buckets(name, (float(costs.min()) - 1, float(costs.max()) + 1)))
    fit_filter(path_filter, genes, -values)
    return path_filter


PREDICTORS = {"gaussian process": fit_process, "path filter": fit_path_filter}


def compare(name, evaluations, seed):
    """Return a row for each predictor: tau on others, and CPU seconds of the fit."""
    make_space, make_landscape, budget = LANDSCAPES[name]
    space, rng = make_space(), np.random.default_rng(seed)
    landscape = make_landscape(space, seed)
    rows = rng.permutation(np.unique(space.sample_within(2 * (evaluations + NUM_OTHERS), budget, rng), axis=0))
    values = landscape(rows)["score"]
    others = slice(evaluations, evaluations + NUM_OTHERS)
    for predictor, fit in PREDICTORS.items():
        begin = time.process_time()
        guess = fit(space, rows[:evaluations], values[:evaluations])
        seconds = time.process_time() - begin
        tau = rank_agreement(guess(rows[others]), values[others])["kendall"]
        yield {
            "landscape": name, "evaluations": evaluations, "seed": seed, "predictor": predictor, "kendall": tau,
            "seconds": seconds,
        }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--landscapes", nargs="+", default=["blocks-10^12", "peaks-10^8"], choices=list(LANDSCAPES))
    parser.add_argument("--evaluations", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    known = parser.parse_args()
    rows = []
    for name in known.landscapes:
        for evaluations in known.evaluations:
            for seed in range(FIRST_SEED, FIRST_SEED + known.seeds):
                rows += compare(name, evaluations, seed)
                print(to_json(rows[-2:], indent=None), file=sys.stderr, flush=True)
    if known.json:
        print(to_json(rows))
    else:
        for row in rows:
            tau = row["kendall"]
            print(
                f"{row['landscape']:14} {row['evaluations']:5} seed {row['seed']} {row['predictor']:16} tau "
                f"{tau['value']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}] {row['seconds']:8.2f} s"
            )
