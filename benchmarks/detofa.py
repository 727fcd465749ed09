"""What DetOFA's parts are worth: the front beside chance, and pruning beside none and by other rules.

    nasray search benchmarks/detofa_laptop.yaml --data DATA --seed S --folder RUN          # for each seed
    nasray train FILE --recipe cpu-detect-supernet --data DATA --holdout 48 --schedule.epochs E --seed S --folder T
    nasray front RUN --beside T ...                                                        # stock detectors beside it
    python benchmarks/detofa.py RUN ...
    nasray search benchmarks/detofa_strategies.yaml --seed S --folder RUN                  # Figure 8, in small
    python benchmarks/detofa.py RUN ...

`--write-stock FOLDER` writes the architectures of the stock detectors: ResNet-18 scaled in width to the least and the
greatest cost of the space, for the smallest and the largest of its images (`--augmentation.short-side 55 60 64
--augmentation.long-side 96`, `--augmentation.short-side 194 209 224`). All figures are mAP on the images held
out of every training, which the search looks at: of 50 measured and the best kept, so the front flatters a little,
that of the random ones beside it as well.

Prints for every run how many were predicted and measured, the size of the front, and the area that it dominates
(`hypervolume`: mAP times the share of the range of costs, from mAP 0 and the greatest cost) beside that of as many
random paths of the same buckets; and the mean mAP of random paths of each bucket by every stage that measured some
(`random-*`, paths of the space that its supernet was trained on; `same-*`, the same paths under another supernet).
Over runs: means with intervals of 95 % (t); differences are of the runs' means, run by run.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.architectures import ARCHITECTURES
from nasray.architectures.scaling import scaled_within
from nasray.cluster import RunFolder
from nasray.evaluation.statistics import mean_interval
from nasray.loading import load_plan, plan_of_run
from nasray.searchers import BucketSampling, pareto_front
from nasray.spaces import Architecture
from nasray.spaces.buckets import Buckets
from nasray.stages.search import SearchStage

Floats = NDArray[np.float64]
RANDOM = ("random-", "same-")
"""How stages are called that measure random paths; so does `search` where nothing was predicted."""


def read(run: Path, stage: str) -> tuple[Floats, Floats]:
    """Return multiply-adds in 1e9 and mAP of what a stage measured, in its order."""
    history = RunFolder.open(run if stage == "search" else run / stage).read_history()
    return np.asarray(history.costs["gmacs"]), np.asarray(history.metrics["score"])


def front(gmacs: Floats, scores: Floats) -> NDArray[np.int64]:
    """Return the indices of the Pareto front, cheapest first."""
    kept = np.flatnonzero(pareto_front(np.stack([scores, -gmacs], axis=1)))
    return kept[np.argsort(gmacs[kept], kind="stable")]


def area(gmacs: Floats, scores: Floats, low: float, high: float) -> float:
    """Return the mean over costs from `low` to `high` of the best mAP within each cost."""
    kept = front(gmacs, scores)
    ends = np.append(gmacs[kept][1:], high)
    return float(((ends - np.maximum(gmacs[kept], low)) * scores[kept]).sum() / (high - low))


def spread(values: list[float]) -> str:
    """Return a mean with its 95 % interval over runs."""
    found = mean_interval(values)
    return f"{found.mean:.3f}" if found.high is None else f"{found.mean:.3f} +- {found.high - found.mean:.3f}"


def measure(path: Path) -> dict[str, Any]:
    """Return the figures of one run, and under `random` the mean mAP of each bucket by every stage of random paths."""
    stages = plan_of_run(RunFolder.open(path)).stages
    names = [name for name in stages if name.startswith(RANDOM)] + ["search"] * ("predict" not in stages)
    first = stages[names[0]]
    assert isinstance(first, SearchStage)
    searcher = first.parts.searcher
    assert isinstance(searcher, BucketSampling)
    buckets = searcher.buckets
    means: dict[str, list[float]] = {}
    for name in names:
        costs, values = read(path, name)
        owner = buckets.of(costs)
        means[name] = [float(values[owner == bucket].mean()) for bucket in range(len(buckets))]
    found: dict[str, Any] = {"run": path.name, "random": means}
    return {**found, **compare_fronts(path, buckets, names[0])} if "predict" in stages else found


def compare_fronts(path: Path, buckets: Buckets, stage: str) -> dict[str, Any]:
    """Return the figures of a run's front beside those of as many random paths of every bucket."""
    low, high = buckets.edges[0], buckets.edges[-1]
    gmacs, scores = read(path, "search")
    chance, chances = read(path, stage)
    num = len(gmacs) // len(buckets)
    first = np.concatenate([np.flatnonzero(buckets.of(chance) == bucket)[:num] for bucket in range(len(buckets))])
    return {
        "predicted": len(RunFolder.open(path / "predict").read_history().genes),
        "measured": len(gmacs),
        "front": len(front(gmacs, scores)),
        "best": float(scores.max()),
        "hypervolume": area(gmacs, scores, low, high),
        "random front": len(front(chance[first], chances[first])),
        "random hypervolume": area(chance[first], chances[first], low, high),
    }


def stock(experiment: str) -> list[tuple[str, Architecture]]:
    """Return ResNet-18 scaled in width to the ends of the costs of an experiment's space, the cheaper first.

    That of the least cost is for the smallest images, where it costs the share that these have of the largest's pixels.
    """
    parts = load_plan(experiment).parts
    edges = Buckets.spanning(parts.space, "gmacs", 5, count=parts.cost).edges
    smallest, largest = (math.prod(size) for size in (parts.space.resolutions[0], parts.space.resolutions[-1]))

    def gmacs(architecture: Architecture) -> float:
        return float(parts.cost.of(architecture)["gmacs"])

    bounds = {"least": edges[0] * largest / smallest, "greatest": edges[-1]}
    return [(f"resnet18-{end}", scaled_within(ARCHITECTURES["resnet18"], bounds[end], gmacs)) for end in bounds]


def mean_of(row: dict[str, Any], stage: str) -> float:
    """Return the mean over all buckets of what a stage of a run measured."""
    return float(np.mean(row["random"][stage]))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs of benchmarks/detofa_laptop.yaml")
    parser.add_argument("--write-stock", type=Path, help="folder for the architectures of the stock detectors")
    known = parser.parse_args()
    if known.write_stock is not None:
        known.write_stock.mkdir(parents=True, exist_ok=True)
        for name, architecture in stock(str(Path(__file__).with_name("detofa_laptop.yaml"))):
            (known.write_stock / f"{name}.json").write_text(architecture.text)
            print(known.write_stock / f"{name}.json")
        return
    if not known.runs:
        sys.exit("pass the folders of runs, or --write-stock FOLDER")
    rows = [measure(path) for path in known.runs]
    if "front" in rows[0]:
        names = [name for name in rows[0] if name not in ("run", "random")]
        print("| run | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
        for row in rows:
            cells = [f"{row[name]:.3f}" if isinstance(row[name], float) else f"{row[name]:,}" for name in names]
            print(f"| {row['run']} | " + " | ".join(cells) + " |")
        gains = [row["hypervolume"] - row["random hypervolume"] for row in rows]
        print(f"\nhypervolume over that of random paths: {spread(gains)}\n")
    stages = list(rows[0]["random"])
    num = len(rows[0]["random"][stages[0]])
    print("| mean mAP of random paths | " + " | ".join(f"bucket {n}" for n in range(num)) + " | all |")
    print("|---" * (num + 2) + "|")
    for stage in stages:
        columns = [spread([row["random"][stage][bucket] for row in rows]) for bucket in range(num)]
        print(f"| {stage} | " + " | ".join(columns) + f" | {spread([mean_of(row, stage) for row in rows])} |")
    for stage in stages[1:]:
        print(f"\n{stages[0]} over {stage}: {spread([mean_of(row, stages[0]) - mean_of(row, stage) for row in rows])}")


if __name__ == "__main__":
    main()
