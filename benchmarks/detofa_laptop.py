"""What `detofa-laptop` is worth: its front beside chance, pruning beside none, and two stock detectors of like cost.

    nasray search benchmarks/detofa_laptop.yaml --data DATA --seed S --folder RUN          # for each seed
    nasray train cpu-detect-supernet --backbone FILE --data DATA --holdout 48 --schedule.epochs 120 --seed S
    nasray evaluate TRAINING --split held --json > STOCK                                   # for each stock detector
    python benchmarks/detofa_laptop.py RUN ... --stock STOCK ...

`--write-stock FOLDER` writes the architectures of the stock detectors: ResNet-18 scaled in width to the least and the
greatest cost of the space. All figures are mAP on the images held out of every training, which the search looks at:
of 50 measured and the best kept, so the front flatters a little, that of the random ones beside it as well.

Prints for every run how many were predicted and measured, the size of the front, and the area that it dominates
(`hypervolume`: mAP times the share of the range of costs, from mAP 0 and the greatest cost) beside that of as many
random paths of the same buckets; and the mean mAP of 15 random paths of each bucket, of the supernet that was trained
with the pruning (paths of the pruned space) and of that without (paths of the whole space, and the same paths as the
first). Over runs: means with intervals of 95 % (t).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from nasray.architectures import named_architecture
from nasray.cluster import RunFolder
from nasray.loading import load_plan, plan_of_run
from nasray.spaces import Architecture
from nasray.spaces.buckets import Buckets

Floats = NDArray[np.float64]
RANDOM = {"pruned": "random-pruned", "not pruned": "random-unpruned", "not pruned, same paths": "same-unpruned"}


def read(run: Path, stage: str) -> tuple[Floats, Floats]:
    """Return multiply-adds in 1e9 and mAP of what a stage measured, in its order."""
    history = RunFolder.open(run if stage == "search" else run / stage).read_history()
    return np.asarray(history.costs["gmacs"]), np.asarray(history.metrics["score"])


def front(gmacs: Floats, scores: Floats) -> NDArray[np.int64]:
    """Return the indices of the Pareto front, cheapest first; of equal ones the first."""
    order = np.lexsort((-scores, gmacs))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], scores[order]]))
    return order[scores[order] > best[:-1]]


def area(gmacs: Floats, scores: Floats, low: float, high: float) -> float:
    """Return the mean over costs from `low` to `high` of the best mAP within each cost."""
    kept = front(gmacs, scores)
    ends = np.append(gmacs[kept][1:], high)
    return float(((ends - np.maximum(gmacs[kept], low)) * scores[kept]).sum() / (high - low))


def spread(values: list[float]) -> str:
    """Return a mean with its 95 % interval over runs."""
    known = np.asarray(values)
    if len(known) < 2:
        return f"{known.mean():.3f}"
    half = t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return f"{known.mean():.3f} +- {half:.3f}"


def measure(path: Path) -> dict[str, Any]:
    """Return the figures of one run."""
    parts = plan_of_run(RunFolder.open(path)).parts
    buckets = Buckets.spanning(parts.space, "gmacs", 5, count=parts.cost)
    low, high = buckets.edges[0], buckets.edges[-1]
    gmacs, scores = read(path, "search")
    chance, chances = read(path, RANDOM["pruned"])
    num = len(gmacs) // len(buckets)
    first = np.concatenate([np.flatnonzero(buckets.of(chance) == bucket)[:num] for bucket in range(len(buckets))])
    found: dict[str, Any] = {
        "run": path.name,
        "predicted": len(read_predicted(path)),
        "measured": len(gmacs),
        "front": len(front(gmacs, scores)),
        "best": float(scores.max()),
        "hypervolume": area(gmacs, scores, low, high),
        "random front": len(front(chance[first], chances[first])),
        "random hypervolume": area(chance[first], chances[first], low, high),
    }
    for name, stage in RANDOM.items():
        costs, values = read(path, stage)
        found[name] = [float(values[buckets.of(costs) == bucket].mean()) for bucket in range(len(buckets))]
    return found


def read_predicted(path: Path) -> Floats:
    """Return the scores of what the path filter predicted."""
    return np.asarray(RunFolder.open(path / "predict").read_history().metrics["score"])


def stock(experiment: str) -> list[tuple[str, Architecture]]:
    """Return ResNet-18 scaled in width to the least and to the greatest cost of an experiment's space, nearest."""
    parts = load_plan(experiment).parts
    edges = Buckets.spanning(parts.space, "gmacs", 5, count=parts.cost).edges
    base = named_architecture("resnet18")
    found = []
    for end in (edges[0], edges[-1]):
        scaled = []
        for width in range(8, 65):
            spec = copy.deepcopy(base.spec)
            spec["stem"]["width"] = width
            for level, stage in enumerate(spec["stages"]):
                stage["width"] = width * 2**level
            scaled.append((f"resnet18-w{width}", Architecture.create(base.family, spec)))
        found.append(min(scaled, key=lambda one: abs(parts.cost.of(one[1])["gmacs"] - end)))
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs of benchmarks/detofa_laptop.yaml")
    parser.add_argument("--stock", nargs="*", type=Path, default=[], help="what `nasray evaluate --json` printed")
    parser.add_argument("--write-stock", type=Path, help="folder for the architectures of the stock detectors")
    known = parser.parse_args()
    if known.write_stock is not None:
        for name, architecture in stock(str(Path(__file__).with_suffix(".yaml"))):
            (known.write_stock / f"{name}.json").write_text(architecture.text)
            print(known.write_stock / f"{name}.json")
        return
    if not known.runs:
        sys.exit("pass the folders of runs, or --write-stock FOLDER")
    rows = [measure(path) for path in known.runs]
    names = [name for name in rows[0] if name not in ("run", *RANDOM)]
    print("| run | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for row in rows:
        cells = [f"{row[name]:.3f}" if isinstance(row[name], float) else f"{row[name]:,}" for name in names]
        print(f"| {row['run']} | " + " | ".join(cells) + " |")
    gains = [row["hypervolume"] - row["random hypervolume"] for row in rows]
    print(f"\nhypervolume over that of random paths: {spread(gains)}\n")
    print(
        "| mean mAP of random paths | " + " | ".join(f"bucket {n}" for n in range(5)) + " | all |\n" + "|---" * 7 + "|"
    )
    for name in RANDOM:
        columns = [spread([row[name][bucket] for row in rows]) for bucket in range(5)]
        print(f"| {name} | " + " | ".join(columns) + f" | {spread([float(np.mean(row[name])) for row in rows])} |")
    for name in list(RANDOM)[1:]:
        gains = [float(np.mean(row["pruned"]) - np.mean(row[name])) for row in rows]
        print(f"\npruned over {name}: {spread(gains)}")
    for path in known.stock:
        print(f"\n{path.name}: mAP {json.loads(path.read_text())['metrics']['mAP']:.3f}")


if __name__ == "__main__":
    main()
