"""A run with a path filter and a pruning as it lies on disk, made in a moment: scores are a formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.spaces import OFAResNetSpace
from nasray.spaces.buckets import Buckets
from nasray.stages import Records, site_of
from tests.nasray.reports.common import write_run

SPACE = OFAResNetSpace("tiny", image_hw=(64, 64))
CONTENT = {
    "name": "detofa", "evaluations": 48, "minimize": ["gmacs"], "batch_size": 32,
    "space": {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]},
    "searcher": {"name": "pareto-evolution", "population_size": 16},
    "evaluator": {"name": "path", "supernet": "supernet.pt"},
    "stages": {
        "chance": {"kind": "search", "searcher": {"name": "buckets"}, "evaluations": 100},
        "filter": {"kind": "fit-filter", "of": ["chance"], "metric": "score", "fit": {"epochs": 3},
                   "network": {"dim": 16, "depth": 1, "heads": 2}},
        "prune": {"kind": "prune", "filter": "filter", "samples": 10, "draws": 50},
        "search": {"kind": "search"},
    },
}  # fmt: skip


def score(rows):
    """The wider and the deeper, the better, with less and less to be gained; late stages are worth more."""
    stages = np.stack([rows[:, part.start : part.stop].sum(axis=1) for part in SPACE.stages], axis=1)
    return 0.2 + 0.3 * np.tanh(stages @ [0.4, 0.6, 1.0, 1.6] / 700) + 0.01 * np.sin(rows @ np.arange(rows.shape[1]))


def write_detofa_run(path: Path) -> RunFolder:
    """A run whose stages are done: searches without Ray, the others as they run."""
    plan = parse_plan(CONTENT, "test")
    run = write_run(path, plan.parts.searcher, 48, describe_experiment(plan.experiment), evaluator=score)
    chance = plan.stages["chance"]
    write_run(
        path / "chance",
        chance.parts.searcher,
        chance.experiment.evaluations,
        describe_experiment(chance.experiment),
        evaluator=score,
    )
    records, site = Records(run), site_of(run, plan)
    for name, stage in plan.stages.items():
        if name in ("filter", "prune"):
            with records.timed(name, {}):
                records.result(name, stage.run(site.at(name)))
    return run


def buckets() -> Buckets:
    """Five buckets over the whole space."""
    return Buckets.spanning(SPACE, "gmacs", 5)
