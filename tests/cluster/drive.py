"""A search in a process of its own, for tests that kill it: `drive.py FOLDER EVALUATIONS IN_FLIGHT SECONDS RETRIES`.

What a trial meets lies beside the folder: `suicide`, `suicide-between-batches`, `broken`.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

import nasray
from nasray.cluster import Resources
from nasray.cluster.trial import BatchTrial
from nasray.searchers import Evolution


class Grid(nasray.Space):
    family = "grid"
    genes = tuple(nasray.Gene(f"g{i}", tuple(range(12))) for i in range(6))

    def cost(self, population):
        return {"size": population.sum(axis=1).astype(float)}


def kinds(base):
    """A class and all that inherit from it: Tune and Ray copy a trial's methods into classes of their own."""
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


class Slow:
    """Sleeps, appends what it evaluated to a log, dies once where it is told to: in a batch or before the next."""

    def __init__(self, seconds: float, log: str) -> None:
        self.seconds, self.log = seconds, log

    def __call__(self, genes):
        time.sleep(self.seconds * len(genes) * (1 + genes[0, 0] % 3))  # uneven, so that batches overtake each other
        suicide = Path(self.log).with_name("suicide")
        if suicide.exists():
            suicide.unlink()
            os._exit(1)
        suicide = Path(self.log).with_name("suicide-between-batches")
        if suicide.exists():
            suicide.unlink()
            for kind in kinds(BatchTrial):
                kind.reset_config = lambda trial, config: os._exit(1)
        if Path(self.log).with_name("broken").exists():
            raise RuntimeError("no luck with this batch")
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {len(genes)}\n")
        return {"score": -((genes - np.arange(6)) ** 2).sum(axis=1) / 7.0}


def drive(folder: str, evaluations: int, in_flight: int, seconds: float, retries: int = 5) -> dict:
    space = Grid()
    searcher = Evolution(
        space, population_size=16, mutation=0.5, crossover=0.4, seed=5, budget=nasray.Budget({"size": 50.0})
    )
    return nasray.search(
        space,
        Slow(seconds, f"{folder}.log"),
        folder=folder,
        searcher=searcher,
        evaluations=evaluations,
        batch_size=8,
        in_flight=in_flight,
        resources=Resources(local_cpus=2, retries=retries),
        resume=Path(folder).exists(),
    )


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
