"""A gradient search as it lies on disk, made in a moment: shares sharpen by a formula, nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasray.cluster import RunFolder, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.halving import HALVING
from nasray.cluster.leaders import make_entry
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.spaces import FADSpace
from nasray.stages import Records
from nasray.stages.gradient import Outcome, chosen_on_edges, seed_folder, stopped_after
from nasray.training.bilevel import collapse

CONTENT = {
    "name": "made", "data": "shapes", "holdout": 80, "recipe": "shapes-fcos",
    "space": {"name": "fad", "channels": 8, "in_channels": 32, "cells": 1, "image_hw": [96, 96]},
    "stages": {
        "search": {"kind": "gradient", "seeds": 3, "halving": {"rungs": [5], "keep": 0.67}},
        "train": {"kind": "train", "of": "search"},
    },
}  # fmt: skip
MEAN_APS = (0.31, 0.52, 0.12)
"""Of the seeds: the first wins, the second has collapsed, the third is stopped."""


def shares(space: FADSpace, seed: int, time: float) -> dict[str, list[list[float]]]:
    """Shares of a seed at a time in [0, 1]: choices that follow from the seed and the edge grow from even ones."""
    found = {}
    for group, name in enumerate(space.names):
        alphas = np.random.default_rng([seed, group]).standard_normal((9, 13)) * 3 * time
        if seed == 1:
            alphas[:, -1] += 8 * time
        weights = np.exp(alphas)
        found[name] = (weights / weights.sum(axis=1, keepdims=True)).tolist()
    return found


def write_fad_run(path: Path) -> RunFolder:
    """A run whose stage `search` is done."""
    plan = parse_plan(CONTENT, "test")
    space = plan.parts.space
    run = RunFolder.create(path, describe_experiment(plan.experiment))
    scores = {f"seeds/{seed}": mean_ap for seed, mean_ap in enumerate(MEAN_APS)}
    rung = {"epochs": 5.0, "scores": scores, "left": ["seeds/0", "seeds/1"]}
    write_atomic(path / HALVING, to_json({"rungs": [rung]}).encode())
    found = []
    for seed, mean_ap in enumerate(MEAN_APS):
        last = shares(space, seed, 1.0)
        logs = [np.log(np.array(group)) for group in last.values()]
        row = space.derive(np.stack([group[:, :-1] for group in logs]))
        costs = {name: float(value[0]) for name, value in space.cost(row[None]).items()}
        none = float(np.mean([edge[-1] for group in last.values() for edge in group]))
        entry = make_entry(space, row, seed, {"mAP": mean_ap, "entropy": 1.0, "none": none}, costs)
        why = collapse(last, chosen_on_edges(entry.architecture.spec))
        found.append(Outcome(seed, {**entry.to_json(), "shares": last}, mean_ap, why, stopped_after(path, seed)))
        seed_folder(path, seed).mkdir(parents=True)
        write_atomic(seed_folder(path, seed) / "log.jsonl", _log(space, seed, 60 if seed == 2 else 120, mean_ap))
    found.sort(key=lambda outcome: outcome.rank)
    run.write_best(
        {
            "evaluations": 3, "finished": True, "ended_early": None,
            "objectives": [{"name": "mAP", "direction": "max"}],
            "cost_scope": {"scope": "head", "image_hw": [96, 96], "costs": {}},
            "choices": [*(each.name for each in space.chosen), "none"],
            "best": [outcome.to_json() for outcome in found],
        }
    )  # fmt: skip
    records = Records(run)
    with records.timed("search", {}):
        records.result("search", {"id": found[0].entry["id"], "mAP": MEAN_APS[0], "seed": 0})
    return run


def _log(space: FADSpace, seed: int, end: int, mean_ap: float) -> bytes:
    lines: list[dict[str, object]] = [
        {
            "iteration": step, "epoch": step / 10, "loss": 2.0, "losses": {"boxes": 2.0}, "lr": 0.1,
            "shares": shares(space, seed, step / 120),
        }
        for step in range(10, end + 1, 10)
    ]  # fmt: skip
    for step in range(60, end + 1, 60):
        metrics = {"mAP": mean_ap * step / end}
        lines.append({"iteration": step, "epoch": step / 10, "metrics": metrics, "seconds": 1.0})
    return "".join(to_json(line) + "\n" for line in lines).encode()
