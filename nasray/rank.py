"""Does a supernet rank architectures as their training by themselves does?

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, sections 3.3 and 5.4, do not say;
Yu et al., "Evaluating the search phase of neural architecture search", ICLR 2020, propose to measure it so.

Random architectures within the run's budget are evaluated as paths and scored without training: a random search of its
own, in `rank/` of the run's folder. Then they are trained by the recipes of the run's winner, as in a stage that trains
several. All of it runs on a whole cluster and can be resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.baselines import stage_recipes
from nasray.cluster import Resources, RunFolder, owned, run_search, search_session, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.records import Rank, read_record
from nasray.evaluators import EVALUATORS, PathEvaluator
from nasray.loading import plan_of_run
from nasray.recipe import Recipe
from nasray.scores.ranking import MIN_NUM, rank_agreement
from nasray.searchers import Metrics
from nasray.spaces import NasrayError, Population, Space
from nasray.stages import site_of, winner_stages
from nasray.training.folder import is_finished, read_summary
from nasray.training.jobs import StagedTraining, train_in_stages

PROXIES = ("zen", "naswot", "synflow")
FOLDER = "rank"
SCORE, SUPERNET = "score", "supernet"
"""Names of metrics: what a random search asks for, which earlier versions put the trained mAP in; mAP as a path."""


@dataclass
class Predictors:
    """Everything that is measured of an architecture before it is trained by itself, for the trials.

    Attributes:
        paths: Evaluator of paths of the supernet.
        seed: Seed of the scores' random numbers.
    """

    paths: PathEvaluator
    seed: int

    def __call__(self, genes: Population) -> Metrics:
        """Return `supernet` (mAP as a path), the same as `score`, and the zero-shot scores, each (N,)."""
        space = self.paths.space
        found = self.paths(genes)["score"]
        metrics: Metrics = {SCORE: found, SUPERNET: found}
        image_hw = _image_hw(space)
        for name in PROXIES:
            metrics[name] = EVALUATORS[name](space, seed=self.seed, image_hw=image_hw)(genes)["score"]
        return metrics


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
        resources: Resources of a trial; those of the run's trials by default. Trainings have those of their recipes;
            where one of a single worker leaves its cores open, it has a trial's, and several run at a time on CPUs.

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
    resources = resources or plan.resources
    recipes = {name: _with_cpus(recipe, resources.cpus) for name, recipe in stage_recipes(run, plan).items()}
    predictors = Predictors(evaluator, seed_of_run)
    inner, description = RunFolder(path), {"rank": {"run": run.path.name, "seed": seed}}
    searcher = plan.parts.random_searcher(seed)
    with owned(path), ExitStack() as stack:
        if inner.is_run():
            _check_begun(RunFolder.open(path), seed)
        if not _is_ranked(run, num):
            stack.enter_context(search_session(resources))  # one for paths and trainings
        if not inner.is_run():
            RunFolder.create(path, description)
        run_search(searcher, predictors, inner, evaluations=num, batch_size=1, in_flight=num, resources=resources)
        values = train_measured(inner, searcher.space, recipes)
        result = summarize(inner, values, run, run.path / trained[-1])
        write_atomic(path / "rank.json", to_json(result, indent=1).encode())
    return result


def _check_begun(inner: RunFolder, seed: int) -> None:
    """Refuse to go on with another search, or with another seed."""
    before = inner.description().get("rank")
    if before is None:
        raise NasrayError(f"{inner.path} was not begun by `nasray rank`. Move it away to begin anew")
    if before["seed"] != seed:
        raise NasrayError(f"{inner.path} was begun with --seed {before['seed']}, got {seed}. Move it to begin anew")


def _is_ranked(run: RunFolder, num: int) -> bool:
    """Return whether rank.json holds so many architectures; one that is damaged is written anew."""
    try:
        found = read_rank(run)
    except NasrayError:
        return False
    return found is not None and len(found["architectures"]) >= num


def _with_cpus(recipe: Recipe, cpus: float) -> Recipe:
    """Return a recipe whose single worker has so many cores, if it leaves them open."""
    own = recipe.resources
    if own.workers > 1 or own.cpus is not None:
        return recipe
    return dataclasses.replace(recipe, resources=dataclasses.replace(own, cpus=cpus))


def read_rank(run: RunFolder) -> dict[str, Any] | None:
    """Return what `rank_run` found of a run; None if it was not measured."""
    path = run.path / FOLDER / "rank.json"
    return read_record(path, Rank, f"`nasray rank {run.path}` writes it anew") if path.is_file() else None


def train_measured(inner: RunFolder, space: Space, recipes: Mapping[str, Recipe]) -> dict[str, float]:
    """Train all architectures of a search, and return the best validation mAP of each by its id."""
    seed = next(iter(recipes.values())).seed
    trainings = [
        StagedTraining(key, space.to_architecture(row), seed)
        for batch in inner.read_batches()
        for key, row in zip(batch.ids, batch.genes, strict=True)
    ]
    summaries = train_in_stages(trainings, recipes, inner.path / "trainings")
    return {key: float(summary["best"]["mAP"]) for key, summary in summaries.items()}


def summarize(inner: RunFolder, trainings: Mapping[str, float], run: RunFolder, training: Path) -> dict[str, Any]:
    """Return every architecture's figures, and the agreement of each predictor with training.

    Args:
        inner: Search of the random architectures.
        trainings: mAP of each after its training, by id.
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
    del table[SCORE]
    trained = np.array([trainings[key] for key in ids])
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
