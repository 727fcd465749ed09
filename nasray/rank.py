"""Does a score, or a supernet, rank architectures as their training by themselves does?

Reference: Yu et al., "Evaluating the search phase of neural architecture search", ICLR 2020, propose to measure it so;
Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, sections 3.3 and 5.4, do not say.

Random architectures within the run's budget are evaluated as the run's search evaluates them, and scored without
training: a random search of its own, in `rank/` of the run's folder. Then they are trained by the recipes of the run's
winner, as in a stage that trains several. All of it runs on a whole cluster and can be resumed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.baselines import comparison_recipes, stage_recipes
from nasray.cluster import Resources, RunFolder, owned, run_search, search_session, write_atomic
from nasray.cluster.files import to_json
from nasray.evaluators import AZNAS, EVALUATORS, PathEvaluator
from nasray.loading import plan_of_run
from nasray.measured import FOLDER, SUPERNET, describe_measured, own_name, proxy_options, read_rank
from nasray.recipe import RECIPE, Recipe
from nasray.scores.ranking import MIN_NUM, rank_agreement
from nasray.searchers import Metrics
from nasray.spaces import NasrayError, Population, Space
from nasray.stages import Plan, site_of, winner_stages
from nasray.training import try_out
from nasray.training.folder import is_finished, read_summary
from nasray.training.jobs import StagedTraining, train_in_stages

if TYPE_CHECKING:
    from nasray.cluster.trial import Evaluator

Floats = NDArray[np.float64]

AZ_RANKS = "aznas-ranks"
"""AZ-NAS as the paper has it: the sum of ranks over all architectures that were measured."""

SCORE = "score"
"""Name of the metric that a random search asks for; earlier versions put the trained mAP in it."""


@dataclass
class Predictors:
    """Everything that is measured of an architecture before it is trained by itself, for the trials.

    Attributes:
        space: Space of the genes.
        evaluator: Evaluator of the run's search.
        name: Name of its score among the others.
        seed: Seed of the other scores' random numbers.
    """

    space: Space
    evaluator: Evaluator
    name: str
    seed: int

    def __call__(self, genes: Population) -> Metrics:
        """Return the run's own score, under its name and as `score`, and the zero-shot scores, each (N,)."""
        found = self.evaluator(genes)[SCORE]
        metrics: Metrics = {SCORE: found, self.name: found}
        for name, options in proxy_options(self.space).items():
            proxy = EVALUATORS[name](self.space, **options, **({} if name == "entropy" else {"seed": self.seed}))
            if isinstance(proxy, AZNAS):  # its score would need references; `summarize` has all at once
                metrics |= {part: values for part, values in proxy.measure(genes).items() if part in proxy.components}
            elif name != self.name:
                metrics[name] = proxy(genes)[SCORE]
        return metrics


def rank_run(
    folder: str | Path, num: int, *, recipe: str | None = None, seed: int = 0, resources: Resources | None = None
) -> dict[str, Any]:
    """Measure how a run's score ranks, or go on with it; return the content of rank.json.

    Args:
        folder: Folder of a run that searches by a zero-shot score, or of one whose supernet is trained.
        num: Number of architectures.
        recipe: Recipe of their trainings; those of the run's winner by default.
        seed: Seed of their choice.
        resources: Resources of a trial; those of the run's trials by default. Trainings have those of their recipes;
            where one of a single worker leaves its cores open, it has a trial's, and several run at a time on CPUs.

    Raises:
        NasrayError: if the run has neither such a score nor a trained supernet, or nothing says how its winner is
            trained.
    """
    run = RunFolder.open(folder)
    plan = plan_of_run(run)
    name = own_name(plan)
    if num < 3:
        raise NasrayError(f"--architectures is at least 3 to be ranked; got {num}")
    own = plan.search.parts_at(site_of(run, plan))
    path = run.path / FOLDER
    resources = resources or plan.resources
    named = rank_recipes(run, plan, recipe)
    recipes = {stage: _with_cpus(one, resources.cpus) for stage, one in named.items()}
    searcher = plan.parts.random_searcher(seed)
    predictors = Predictors(searcher.space, own.evaluator, name, plan.experiment.seed)
    inner, begun = RunFolder(path), {"run": run.path.name, "seed": seed, "recipes": _digest(named)}
    last = next(reversed(recipes.values()))
    if not _is_ranked(run, num):  # what a user can fix shows before anything is scored
        try_out(dataclasses.replace(last, weights=None), plan.parts.random_architectures(1, seed)[0])
    with owned(path), ExitStack() as stack:
        if inner.is_run():
            _check_begun(RunFolder.open(path), begun)
        if not _is_ranked(run, num):
            stack.enter_context(search_session(resources))  # one for scores and trainings
        if not inner.is_run():
            RunFolder.create(path, {"rank": begun})
        run_search(searcher, predictors, inner, evaluations=num, batch_size=1, in_flight=num, resources=resources)
        values = train_measured(inner, searcher.space, recipes)
        trained = winner_stages(plan)
        training = run.path / (trained[-1] if trained else "train")
        result = summarize(inner, values, run, None if recipe else training, name)
        result["measured"] = describe_measured(plan, run, last)
        write_atomic(path / "rank.json", to_json(result, indent=1).encode())
    return result


def rank_recipes(run: RunFolder, plan: Plan, name: str | None = None) -> dict[str, Recipe]:
    """Return the recipes by which architectures are trained to be ranked, by stage: a named one, or the winner's.

    Raises:
        NasrayError: if nothing says how the winner is trained, or not for detection.
    """
    if name is None and isinstance(plan.search.parts.evaluator, PathEvaluator):
        if not winner_stages(plan):
            raise NasrayError(
                f"{run.path} does not say how an architecture is trained by itself, which its supernet is to be "
                "compared with: begin a run with a stage that trains the winner, such as detnas-300m, or pass --recipe"
            )
        recipes = stage_recipes(run, plan)
    else:
        recipes = comparison_recipes(run, name)
    last = next(reversed(recipes.values()))
    if last.task != "detection":
        raise NasrayError(
            f"recipe {last.name} trains classifiers, which have no mAP. Pass --recipe with one of detectors"
        )
    return recipes


def _digest(recipes: Mapping[str, Recipe]) -> str:
    """Return what recipes are told apart by; where they run does not count."""
    content = {stage: RECIPE.dump_python(recipe, mode="json") for stage, recipe in recipes.items()}
    for one in content.values():
        del one["resources"]
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def _check_begun(inner: RunFolder, begun: dict[str, Any]) -> None:
    """Refuse to go on with another search, with another seed, or by another recipe."""
    before = inner.description().get("rank")
    if before is None:
        raise NasrayError(f"{inner.path} was not begun by `nasray rank`. Move it away to begin anew")
    if before["seed"] != begun["seed"]:
        raise NasrayError(
            f"{inner.path} was begun with --seed {before['seed']}, got {begun['seed']}. Move it to begin anew"
        )
    if before.get("recipes", begun["recipes"]) != begun["recipes"]:
        raise NasrayError(
            f"{inner.path} was begun by another recipe, and trainings by different ones do not rank together. Pass the "
            "same --recipe, or move the folder away to begin anew"
        )


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


def summarize(
    inner: RunFolder, trainings: Mapping[str, float], run: RunFolder, training: Path | None, name: str = SUPERNET
) -> dict[str, Any]:
    """Return every architecture's figures, and the agreement of each predictor with training.

    Args:
        inner: Search of the random architectures.
        trainings: mAP of each after its training, by id.
        run: Run whose score is measured.
        training: Folder of its winner's training by the same recipes; None where there is none.
        name: Name of the run's own score.

    Returns:
        JSON-serializable: `architectures`, best first, and `agreement` by predictor (see `rank_agreement`);
        `random`, mean and deviation of mAP; and `winner`, the run's, if trained.
    """
    batches = list(inner.read_batches())
    ids = [key for batch in batches for key in batch.ids]
    metrics, costs = (_columns([getattr(batch, kind) for batch in batches]) for kind in ("metrics", "costs"))
    if set(AZNAS.components) <= metrics.keys():
        metrics[AZ_RANKS] = _az_ranks([*(metrics[part] for part in AZNAS.components), costs["gmacs"]])
    table = metrics | costs
    del table[SCORE]
    trained = np.array([trainings[key] for key in ids])
    agreement = {}
    for column, values in table.items():
        sound = np.isfinite(values) & np.isfinite(trained)
        if sound.sum() >= 2:
            agreement[column] = rank_agreement(values[sound], trained[sound])
    order = np.argsort(-trained, kind="stable")
    rows = [
        {"id": ids[index], "mAP": float(trained[index]), **{column: float(table[column][index]) for column in table}}
        for index in order.tolist()
    ]
    result: dict[str, Any] = {
        "architectures": rows,
        "agreement": agreement,
        "random": {"mean": float(trained.mean()), "sd": float(trained.std(ddof=1)), "num": len(trained)},
    }
    if training is not None and is_finished(training):
        summary = read_summary(training)
        winner = run.read_best()["best"][0]
        result["winner"] = {"id": winner["id"], "mAP": summary["best"]["mAP"], name: winner["metrics"]["score"]}
    return result


def _columns(batches: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Return columns of several batches as one, each (N,); NaN where an earlier version did not measure one."""
    names = dict.fromkeys(name for batch in batches for name in batch)
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    return {
        name: np.concatenate(
            [batch.get(name, np.full(size, np.nan)) for batch, size in zip(batches, sizes, strict=True)]
        )
        for name in names
    }


def _az_ranks(parts: Sequence[Floats]) -> Floats:
    """Return AZ-NAS's sum of ranks, each (N,), over those architectures of which all parts were measured."""
    from nasray.scores.aznas import rank_sum

    known: NDArray[np.bool_] = np.all(~np.isnan(np.stack(parts)), axis=0)
    total = np.full(len(known), np.nan)
    if known.any():
        total[known] = rank_sum([part[known] for part in parts])
    return total


def too_few(result: dict[str, Any]) -> str | None:
    """Return a sentence where a rank.json has too few architectures to state any agreement."""
    num = len(result["architectures"])
    if num >= MIN_NUM:
        return None
    return f"{num} architectures are too few to say how predictors agree with training; at least {MIN_NUM} are needed"
