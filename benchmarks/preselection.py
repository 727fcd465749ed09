"""What pre-selection by a path filter does for a search, and how well the filter ranks paths it has not seen.

    nasray search benchmarks/preselection.yaml --images IMAGE_FOLDER --data DATA --seed S --folder RUN     # each seed
    python benchmarks/preselection.py RUN ...

Prints for every run the mean path mAP of each batch of 20 evaluations, of the search without pre-selection and with it
(the filter picks each candidate out of ten), the best of each, and Kendall's tau with its 95 % interval between mAP and
the filter's scores on the paths of the stage `held` (or of another that measured paths of the same supernet: `--held`),
beside that of multiply-adds. Paths that the filter was fitted to are left out of them. All mAP are of the same
supernet, on images held out of its training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import RunFolder
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import FILTER
from nasray.loading import plan_of_run
from nasray.scores.ranking import rank_agreement

BATCH = 20


def read(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return genes and mAP of what a stage measured, in its order."""
    history = RunFolder.open(folder).read_history()
    return history.genes, np.asarray(history.metrics["score"])


def agreement(scores: NDArray[np.float64], values: NDArray[np.float64]) -> str:
    """Return Kendall's tau with its interval."""
    tau = rank_agreement(scores, values)["kendall"]
    return f"{tau['value']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}]"


def measure(run: Path, held: Path) -> dict[str, Any]:
    """Return the figures of a run, whose filter is held against the paths of a stage."""
    parts = plan_of_run(RunFolder.open(run)).parts
    path_filter = PathFilter.load(run / "filter" / FILTER, parts.space, cost=parts.cost)
    fitted, _ = read(run / "sample")
    rows, values = read(held)
    new = np.array([not (row == fitted).all(axis=1).any() for row in rows])
    rows, values = rows[new], values[new]
    found: dict[str, Any] = {"held": len(rows)}
    found["filter"] = agreement(path_filter(rows), values)
    found["gmacs"] = agreement(parts.cost(rows)["gmacs"], values)
    for stage in ("search", "preselected"):
        _, scores = read(run if stage == "search" else run / stage)
        found[stage] = [float(part.mean()) for part in np.split(scores, range(BATCH, len(scores), BATCH))]
        found[f"best of {stage}"] = float(scores.max())
    found["random"] = float(values.mean())
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs of benchmarks/preselection.yaml")
    parser.add_argument("--held", type=Path, nargs="+", help="folders of stages, one a run; RUN/held by default")
    options = parser.parse_args()
    for run, held in zip(options.runs, options.held or [run / "held" for run in options.runs], strict=True):
        found = measure(run, held)
        print(f"{run.name}: {found['held']} held paths, mean mAP {found['random']:.4f}")
        print(f"  tau of the filter {found['filter']}, of multiply-adds {found['gmacs']}")
        for stage in ("search", "preselected"):
            means = " ".join(f"{value:.4f}" for value in found[stage])
            print(f"  {stage:12} mean of each batch {means}  best {found[f'best of {stage}']:.4f}")


if __name__ == "__main__":
    main()
