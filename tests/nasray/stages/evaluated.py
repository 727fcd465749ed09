"""Finished searches whose metrics are known functions, made without Ray."""

import numpy as np

from nasray.cluster import RunFolder
from nasray.cluster.ordering import ToldBatch
from nasray.experiment import describe_experiment, parse_experiment
from nasray.options import make_part
from nasray.searchers import Proposal

OFA_TINY = {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]}


def worth(space, rows):
    """A loss that cost alone does not tell: late layers count more than early ones."""
    ids = space.tokens(rows).ids
    return -(ids * np.linspace(-0.5, 1.0, ids.shape[1])).sum(axis=1) / 20


def evaluated(folder, *, num=300, seed=0, space=OFA_TINY, metric="loss", values=worth):
    """A run of random architectures; returns its folder and the architectures."""
    experiment = parse_experiment(
        {"name": "sample", "space": space, "searcher": {"name": "random"}, "evaluator": {"name": "synflow"},
         "evaluations": num},
        "test",
    )  # fmt: skip
    made = make_part(experiment.space)
    rows = np.unique(made.sample(num, np.random.default_rng(seed)), axis=0)
    run = RunFolder.create(folder, describe_experiment(experiment))
    losses = values(made, rows)
    parents = np.full((len(rows), 2), -1, dtype=np.int64)
    batch = ToldBatch(0, Proposal(rows, parents), {"score": -losses, metric: losses})
    run.write_batch(batch, made, made.cost(rows))
    entry = made.to_architecture(rows[0])
    run.write_best(
        {"evaluations": len(rows), "finished": True, "ended_early": None,
         "objectives": [{"name": "score", "direction": "max"}],
         "best": [{"id": entry.id, "evaluation": 0, "metrics": {"score": 1.0}, "costs": {},
                   "architecture": {"family": entry.family, "spec": entry.spec}}]}
    )  # fmt: skip
    return run.path, rows
