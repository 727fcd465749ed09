"""Does a supernet rank architectures as their training by themselves does?

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, sections 3.3 and 5.4, do not say;
Yu et al., "Evaluating the search phase of neural architecture search", ICLR 2020, propose to measure it so.

Random architectures within the run's budget are evaluated as paths, trained by the recipes of the run's winner, and
scored without training. All of it is a random search of its own, in `rank/` of the run's folder: a trial is an
architecture, so that it runs on a whole cluster and can be resumed.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import Resources, RunFolder, owned, run_search, search_session, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.records import Rank, read_record
from nasray.evaluators import EVALUATORS, PathEvaluator
from nasray.loading import plan_of_run
from nasray.recipe import Recipe
from nasray.scores.ranking import MIN_NUM, rank_agreement
from nasray.searchers import Metrics
from nasray.spaces import Architecture, NasrayError, Population, Space
from nasray.stages import site_of, winner_stages
from nasray.training import train_here
from nasray.training.folder import is_finished, last_checkpoint, read_summary

PROXIES = ("zen", "naswot", "synflow")
FOLDER = "rank"
TRAINED, SUPERNET = "score", "supernet"
"""Names of the metrics: mAP after training by itself, and as a path."""


@dataclass
class Comparison:
    """Everything that is measured of an architecture, for the trials.

    Attributes:
        paths: Paths of the supernet.
        recipes: Recipes of the training by itself, by stage, each with the weights of the one before.
        folder: Folder for trainings, seen by all machines.
        seed: Seed of the scores' random numbers.
    """

    paths: PathEvaluator
    recipes: dict[str, Recipe]
    folder: Path
    seed: int

    def __call__(self, genes: Population) -> Metrics:
        """`score` (mAP after training), `supernet` (mAP as a path), and the zero-shot scores, each (N,)."""
        space = self.paths.space
        metrics: Metrics = {SUPERNET: self.paths(genes)["score"]}
        image_hw = _image_hw(space)
        for name in PROXIES:
            metrics[name] = EVALUATORS[name](space, seed=self.seed, image_hw=image_hw)(genes)["score"]
        trained = [self.train(space.to_architecture(row)) for row in genes]
        return {TRAINED: np.array(trained), **metrics}

    def train(self, architecture: Architecture) -> float:
        """Train one architecture, from where its training was, and return its best validation mAP."""
        weights = None
        for stage, recipe in self.recipes.items():
            folder = self.folder / architecture.id / stage
            summary = train_here(dataclasses.replace(recipe, weights=weights), folder, architecture)
            weights = str(last_checkpoint(folder))
        return float(summary["best"]["mAP"])


def _image_hw(space: Space) -> tuple[int, int]:
    """Return the size for zero-shot scores: that of the costs, but at most 224 pixels, which they were made for."""
    height, width = space.image_hw or (224, 224)
    return min(height, 224), min(width, 224)


def rank_run(folder: str | Path, num: int, *, seed: int = 0, resources: Resources | None = None) -> dict[str, Any]:
    """Measure a run's supernet, or go on with it; return the content of rank.json.

    Args:
        folder: Folder of a run whose supernet is trained.
        num: Number of architectures.
        seed: Seed of their choice.
        resources: Resources of a trial; those of the run's trials by default.

    Raises:
        NasrayError: if the run has no trained supernet, or does not say how its winner is trained.
    """
    run = RunFolder.open(folder)
    plan = plan_of_run(run)
    site, trained = site_of(run, plan), winner_stages(plan)
    if not isinstance(plan.parts.evaluator, PathEvaluator) or not trained:
        raise NasrayError(
            f"{folder} does not say how an architecture is trained by itself, which its supernet is to be compared "
            "with: begin a run with evaluator 'path' and a stage that trains the winner, such as detnas-300m"
        )
    if num < 3:
        raise NasrayError(f"--architectures is at least 3 to be ranked; got {num}")
    evaluator, seed_of_run = plan.search.parts_at(site).evaluator, plan.experiment.seed
    assert isinstance(evaluator, PathEvaluator)
    path = run.path / FOLDER
    recipes = {name: site.recipes[name] for name in trained}
    comparison = Comparison(evaluator, recipes, path / "trainings", seed_of_run)
    inner, description = RunFolder(path), {"rank": {"run": run.path.name, "seed": seed}}
    resources = resources or plan.resources
    searcher = plan.parts.random_searcher(seed)
    with owned(path), ExitStack() as stack:
        if inner.is_run():
            inner = RunFolder.open(path)
            before = inner.description().get("rank")
            if before is None:
                raise NasrayError(f"{path} was not begun by `nasray rank`. Move it away to begin anew")
            if before["seed"] != seed:
                raise NasrayError(f"{path} was begun with --seed {before['seed']}, got {seed}. Move it to begin anew")
        else:
            stack.enter_context(search_session(resources))
            inner = RunFolder.create(path, description)
        run_search(searcher, comparison, inner, evaluations=num, batch_size=1, in_flight=num, resources=resources)
        result = summarize(inner, run, run.path / trained[-1])
        write_atomic(path / "rank.json", to_json(result, indent=1).encode())
    return result


def read_rank(run: RunFolder) -> dict[str, Any] | None:
    """Return what `rank_run` found of a run; None if it was not measured."""
    path = run.path / FOLDER / "rank.json"
    return read_record(path, Rank, f"`nasray rank {run.path}` writes it anew") if path.is_file() else None


def summarize(inner: RunFolder, run: RunFolder, training: Path) -> dict[str, Any]:
    """Return every architecture's figures, and the agreement of each predictor with training.

    Args:
        inner: Search of the random architectures.
        run: Run whose supernet is measured.
        training: Folder of its winner's training.

    Returns:
        JSON-serializable: `architectures`, best first, and `agreement` by predictor (see `rank_agreement`);
        `random`, mean and deviation of mAP; and `winner`, the run's, if trained.
    """
    columns: dict[str, list[NDArray[np.float64]]] = {}
    ids: list[str] = []
    for batch in inner.read_batches():
        ids += batch.ids
        for name, values in {**batch.metrics, **batch.costs}.items():
            columns.setdefault(name, []).append(values)
    table = {name: np.concatenate(values) for name, values in columns.items()}
    trained = table.pop(TRAINED)
    agreement = {}
    for name, values in table.items():
        sound = np.isfinite(values) & np.isfinite(trained)
        if sound.sum() >= 2:
            agreement[name] = rank_agreement(values[sound], trained[sound])
    order = np.argsort(-trained, kind="stable")
    rows = [
        {"id": ids[index], "mAP": float(trained[index]), **{name: float(table[name][index]) for name in table}}
        for index in order.tolist()
    ]
    result: dict[str, Any] = {
        "architectures": rows,
        "agreement": agreement,
        "random": {"mean": float(trained.mean()), "sd": float(trained.std(ddof=1)), "num": len(trained)},
    }
    if is_finished(training):
        summary = read_summary(training)
        winner = run.read_best()["best"][0]
        result["winner"] = {"id": winner["id"], "mAP": summary["best"]["mAP"], SUPERNET: winner["metrics"]["score"]}
    return result


def too_few(result: dict[str, Any]) -> str | None:
    """Return a sentence where a rank.json has too few architectures to state any agreement."""
    num = len(result["architectures"])
    if num >= MIN_NUM:
        return None
    return f"{num} architectures are too few to say how predictors agree with training; at least {MIN_NUM} are needed"
