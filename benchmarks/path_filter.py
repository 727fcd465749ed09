"""How well a path filter ranks paths that it has not seen, bucket by bucket, beside what costs alone and an MLP tell.

    python benchmarks/path_filter.py RUN --fit 500

RUN is the folder of a search, or of a stage that searches, by `buckets` whose evaluator measured paths: such as the
stage `sample` of `detofa-laptop` with `--stages.sample.evaluations 1000`. What ranks is their loss, if that was
measured, else their score. The filter is fitted to `--fit`
of them, the same share of every bucket, and measured on the others, which nothing has looked at. Rows are settings of
Table 2 of DetOFA (without budget condition, FLOPs-bounded loss, or block positional encoding; with all), then
once-for-all's predictor (three layers of 400, mean squared error of accuracy, here of what ranks), then
multiply-adds and parameters. Intervals are of 95 %.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nasray.cluster import RunFolder
from nasray.cluster.files import to_json
from nasray.filters.filter import PathFilter
from nasray.filters.fitting import FitOptions, divide, fit_filter, measure_scores
from nasray.filters.options import FilterOptions
from nasray.loading import plan_of_run
from nasray.spaces import Population, Space
from nasray.spaces.buckets import Buckets

Floats = NDArray[np.float64]

SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "any two are a pair": ({}, {"bounded": False}),
    "no budget condition": ({"condition": False}, {}),
    "no block positions": ({"block_positions": False}, {}),
    "path filter": ({}, {}),
}


def make_predictor(space: Space, rows: Population, losses: Floats, *, seed: int) -> Any:
    """Return once-for-all's predictor, fitted: a function of (N, G) rows whose values are the higher, the better."""
    torch.manual_seed(seed)
    width = _one_hot(space, rows[:1]).shape[1]
    layers: list[nn.Module] = []
    for size in (width, 400, 400):
        layers += [nn.Linear(size, 400), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(400, 1))
    values = torch.from_numpy(-losses).float()
    center, scale = values.mean(), values.std()
    inputs, targets = _one_hot(space, rows), (values - center) / scale
    learned, held = divide(np.zeros(len(rows), dtype=np.int64), 0.2, np.random.default_rng(seed))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-4)
    best = (float("inf"), {name: value.clone() for name, value in network.state_dict().items()})
    for _ in range(300):
        loss = (network(inputs[learned])[:, 0] - targets[learned]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.inference_mode():
            value = float((network(inputs[held])[:, 0] - targets[held]).square().mean())
        if value < best[0]:
            best = value, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(best[1])

    def predict(population: Population) -> Floats:
        with torch.inference_mode():
            return network(_one_hot(space, population))[:, 0].double().numpy()

    return predict


def _one_hot(space: Space, population: Population) -> torch.Tensor:
    """Return (N, D) one-hot tokens, as once-for-all's encoder has them."""
    tokens = space.tokens(population)
    return nn.functional.one_hot(torch.from_numpy(tokens.ids), tokens.vocabulary).flatten(1).float()


def measure(run: RunFolder, num_fit: int, *, seed: int, epochs: int) -> list[dict[str, Any]]:
    """Return for every way of ranking, and every bucket, what `measure_scores` says of the architectures held out."""
    parts = plan_of_run(run).parts
    history = run.read_history()
    space, rows = parts.space, history.genes
    losses = np.asarray(history.metrics["loss"] if "loss" in history.metrics else -history.metrics["score"])
    buckets = Buckets.spanning(space, "gmacs", 5, count=parts.cost)
    costs = parts.cost(rows)
    bucket, rng = buckets.of(costs["gmacs"]), np.random.default_rng(seed)
    held, fit = divide(bucket, num_fit / len(rows), rng)
    found = []

    def add(name: str, scores: Floats) -> None:
        measured = measure_scores(scores[held], bucket[held], losses[held], len(buckets))
        found.extend({"ranks": name, **row} for row in measured)

    for name, (network, fitting) in SETTINGS.items():
        path_filter = PathFilter(space, buckets, FilterOptions(**network), seed=seed, cost=parts.cost)
        fit_filter(path_filter, rows[fit], losses[fit], FitOptions(epochs=epochs, **fitting), seed=seed)
        add(name, path_filter(rows))
    add("once-for-all's predictor", make_predictor(space, rows[fit], losses[fit], seed=seed)(rows))
    for name in ("gmacs", "params_m"):
        add(name, costs[name])
    return found


def shown(share: dict[str, float | None]) -> str:
    """Return a figure with its interval."""
    return "-" if share["value"] is None else f"{share['value']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="folder of a search by buckets that measured paths")
    parser.add_argument("--fit", type=int, default=500, help="paths to fit to; all others are held out")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    known = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(RunFolder.open(known.run), known.fit, seed=known.seed, epochs=known.epochs)
    if known.json:
        sys.stdout.write(to_json(rows, indent=1) + "\n")
        return
    print("| ranks | bucket | paths | tau | precision | recall | base rate |\n|---|---|---|---|---|---|---|")
    for row in rows:
        shares = " | ".join(shown(row[name]) for name in ("kendall", "precision", "recall"))
        rate = "-" if row["base_rate"] is None else f"{row['base_rate']:.2f}"
        print(f"| {row['ranks']} | {row['bucket']} | {row['num']} | {shares} | {rate} |")


if __name__ == "__main__":
    main()
