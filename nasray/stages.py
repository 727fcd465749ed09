"""The stages of a run that searches in a supernet: train the supernet, search, train the winner.

    supernet-pretrain   the supernet on classification         supernet/pretrain/
    supernet-train      the supernet as a detector             supernet/train/
    search              paths of the supernet                  the run's folder itself
    pretrain            the winner on classification           pretrain/
    train               the winner as a detector               train/

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, section 3.3.

Which of them a run has, its experiment says. Every stage goes on from wherever it was, and one that is done is passed
over. Recipes are resolved when the run begins and kept in its `recipes.yaml`, so that later changes to a file do not
reach it. What a stage took and gave is in `stages.json`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from nasray.cluster import Resources, RunFolder, run_search, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.progress import repeating, say
from nasray.cluster.records import StageRecord, read_record, yaml_record
from nasray.cluster.session import ray_session
from nasray.evaluators import PathEvaluator
from nasray.experiment import Experiment, experiment_of_run
from nasray.models.supernets import supernet_architecture
from nasray.parts import make_evaluator, make_searcher, make_space, needs_supernet
from nasray.recipe import RECIPE, Recipe, load_recipe
from nasray.spaces import Architecture, NasrayError
from nasray.training import begin_training, resume_training, try_out, with_absolute_paths
from nasray.training.folder import (
    drop_damaged_summary,
    is_finished,
    is_training,
    last_checkpoint,
    read_summary,
)
from nasray.validation import validate

SUPERNET_STAGES = {"supernet-pretrain": "supernet/pretrain", "supernet-train": "supernet/train"}
WINNER_STAGES = {"pretrain": "pretrain", "train": "train"}
RECIPES, RECORDS = "recipes.yaml", "stages.json"
RESTORE = "Restore it from a copy of the run"
INTERVAL = 30.0
"""Seconds between two writings of a stage's time, so that a killed session's is known too."""
FOLDERS = {**SUPERNET_STAGES, "search": ".", **WINNER_STAGES}
"""Every stage in its order, and its folder within the run's."""

TASKS = {"supernet-pretrain": "classification", "supernet-train": "detection", "pretrain": "classification",
         "train": "detection"}  # fmt: skip


def has_stages(experiment: Experiment) -> bool:
    """Whether anything is trained before or after the search."""
    return needs_supernet(experiment) or any(vars(experiment.winner).values())


# ---- recipes -----------------------------------------------------------------------------------------------------


def resolve_recipes(experiment: Experiment) -> dict[str, Recipe]:
    """The recipes of the experiment's trainings, by stage, with its data and seed.

    Raises:
        NasrayError: for a recipe that is not there, or of the wrong task.
    """
    recipes = {}
    for stage, name in _recipe_names(experiment).items():
        recipe = load_recipe(name)
        if recipe.task != TASKS[stage]:
            raise NasrayError(
                f"stage {stage} trains for {TASKS[stage]}; recipe {name} is for {recipe.task}. Choose another"
            )
        data = experiment.images if recipe.task == "classification" else experiment.data
        changes: dict[str, Any] = {"seed": experiment.seed, "weights": None}
        if data is not None:
            changes["data"] = data
        if stage == _last_supernet_stage(experiment):
            changes["holdout"] = experiment.supernet.holdout
        recipes[stage] = with_absolute_paths(dataclasses.replace(recipe, **changes))
    return recipes


def _recipe_names(experiment: Experiment) -> dict[str, str]:
    """Return the recipe of each training that the experiment has, by stage."""
    names = {
        "supernet-pretrain": experiment.supernet.pretrain, "supernet-train": experiment.supernet.train,
        "pretrain": experiment.winner.pretrain, "train": experiment.winner.train,
    }  # fmt: skip
    return {stage: name for stage, name in names.items() if name is not None}


def _last_supernet_stage(experiment: Experiment) -> str | None:
    """The training whose checkpoint is searched."""
    if experiment.supernet.train:
        return "supernet-train"
    return "supernet-pretrain" if experiment.supernet.pretrain else None


def write_recipes(run: RunFolder, recipes: dict[str, Recipe]) -> None:
    """Keep resolved recipes in the run's folder, all in one file."""
    content = {stage: RECIPE.dump_python(recipe, mode="json") for stage, recipe in recipes.items()}
    write_atomic(run.path / RECIPES, yaml_record(content))


def read_recipes(run: RunFolder) -> dict[str, Recipe] | None:
    """The resolved recipes of a run, by stage; None if it was interrupted before they were written."""
    path = run.path / RECIPES
    if not path.is_file():
        return None
    content = read_record(path, dict[str, dict[str, Any]], RESTORE)
    stages = _recipe_names(experiment_of_run(run.description(), str(run.path))).keys()
    if content.keys() != stages:
        raise NasrayError(
            f"{path} holds recipes of {_listed(content)}; the run's trainings are {_listed(stages)}. {RESTORE}"
        )
    return {
        stage: validate(RECIPE, Recipe, recipe, f"{path}, {stage}", is_record=True) for stage, recipe in content.items()
    }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def check_stages_fit(experiment: Experiment, recipes: dict[str, Recipe]) -> None:
    """Open all data, build all networks once and load given weights, before anything is written or takes long.

    Raises:
        NasrayError: for every mistake that the user can mend.
    """
    space = make_space(experiment)
    anyone = space.to_architecture(space.sample(1, np.random.default_rng(0))[0])
    weights = experiment.supernet.weights
    if weights is not None and not Path(weights).is_file():
        raise NasrayError(f"no file at supernet.weights {weights}: name a checkpoint of a supernet's training")
    if "supernet-train" in recipes and weights is not None:
        try_out(dataclasses.replace(recipes["supernet-train"], weights=weights), supernet_architecture(space))
        weights = None
    for stage, recipe in recipes.items():
        try_out(recipe, supernet_architecture(space) if stage in SUPERNET_STAGES else anyone)
    if weights is not None:  # searched as it is
        evaluator = make_evaluator(experiment)
        assert isinstance(evaluator, PathEvaluator)
        _ = dataclasses.replace(evaluator, checkpoint=weights).loaded


# ---- running -----------------------------------------------------------------------------------------------------


def run_stages(
    experiment: Experiment, run: RunFolder, resources: Resources, search_options: dict[str, Any]
) -> dict[str, Any]:
    """Run whatever is not done yet, and give the content of best.json, with what was trained under `stages`.

    Args:
        experiment: of the run.
        run: its folder, with its recipes.
        resources: what a trial of the search needs, and where everything runs.
        search_options: of `run_search`.

    Raises:
        NasrayError: for every mistake that the user can mend; the run can be continued after it.
    """
    recipes = read_recipes(run) or {}
    space = make_space(experiment)
    records = Records(run)
    with nullcontext() if _all_done(run, recipes) else ray_session(resources):
        weights = experiment.supernet.weights
        for stage in SUPERNET_STAGES:
            if stage in recipes:
                weights = _train(stage, recipes[stage], weights, supernet_architecture(space), run, records)
        evaluator: Any = make_evaluator(experiment)
        if isinstance(evaluator, PathEvaluator):
            assert weights is not None
            evaluator = dataclasses.replace(evaluator, checkpoint=weights)
        with records.timed("search"):
            say(_title("search", records))
            best = run_search(make_searcher(experiment), evaluator, run, resources=resources, **search_options)
        winner = best["best"][0]
        records.result("search", {"id": winner["id"], **winner["metrics"], "evaluations": best["evaluations"]})
        architecture, weights = Architecture.create(**winner["architecture"]), None
        for stage in WINNER_STAGES:
            if stage in recipes:
                weights = _train(stage, recipes[stage], weights, architecture, run, records)
    return {**best, "stages": records.content}


def _all_done(run: RunFolder, recipes: dict[str, Recipe]) -> bool:
    """Whether nothing is left for Ray to do."""
    return run.is_finished() and all(is_finished(run.path / FOLDERS[stage]) for stage in recipes)


def supernet_checkpoint(experiment: Experiment, run: RunFolder) -> Path:
    """The checkpoint whose paths a run searches.

    Raises:
        NasrayError: if it is not trained yet.
    """
    stage = _last_supernet_stage(experiment)
    path = Path(experiment.supernet.weights or "") if stage is None else last_checkpoint(run.path / FOLDERS[stage])
    if not path.is_file():
        raise NasrayError(f"{run.path} has no trained supernet yet. `nasray resume {run.path}` continues it")
    return path


def _train(
    stage: str, recipe: Recipe, weights: str | None, architecture: Architecture, run: RunFolder, records: Records
) -> str:
    """Train a stage to its end, if it is not there yet; gives its last checkpoint."""
    folder = run.path / FOLDERS[stage]
    say(_title(stage, records))
    drop_damaged_summary(folder)
    if not is_finished(folder):
        with records.timed(stage):
            if is_training(folder):
                resume_training(folder)
            else:
                begin_training(dataclasses.replace(recipe, weights=weights), folder, architecture, clear=True)
    summary = read_summary(folder)
    best = {name: summary["best"][name] for name in ("mAP", "AP50", "top1") if name in summary["best"]}
    records.result(stage, {"iterations": summary["iterations"], "workers": recipe.resources.workers, **best})
    return str(last_checkpoint(folder))


def _title(stage: str, records: Records) -> str:
    done = " (done before)" if records.is_done(stage) else ""
    return f"stage {stage}{done}"


def read_records(run: RunFolder) -> dict[str, Any]:
    """The `content` of a run's `Records`; empty where there are none."""
    path = run.path / RECORDS
    remedy = "Remove it: `nasray resume` begins it anew, and only the times of earlier sessions are lost"
    content = read_record(path, dict[str, StageRecord], remedy) if path.is_file() else {}
    if unknown := [stage for stage in content if stage not in FOLDERS]:
        raise NasrayError(f"{path} has unknown stage {unknown[0]!r}. {remedy}")
    return content


class Records:
    """What every stage took and gave, in `stages.json`.

    Attributes:
        content: by stage: `seconds` of wall time, of all sessions (of one that was killed, the last `INTERVAL` may be
            missing); `sessions`, how often it was begun or continued; and when it is done, its `result`.
    """

    def __init__(self, run: RunFolder) -> None:
        self.path, self.content = run.path / RECORDS, read_records(run)

    def is_done(self, stage: str) -> bool:
        """Whether a stage has a result."""
        return "result" in self.content.get(stage, {})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time within it, unless the stage is done."""
        if self.is_done(stage):
            yield
            return
        entry = self.content.setdefault(stage, {"seconds": 0.0, "sessions": 0})
        entry["sessions"] += 1
        before, begin = entry["seconds"], time.monotonic()

        def note() -> None:
            entry["seconds"] = round(before + time.monotonic() - begin, 2)
            self._write()

        note()
        try:
            with repeating(note, INTERVAL):
                yield
        finally:
            note()

    def result(self, stage: str, result: dict[str, Any]) -> None:
        """Note that a stage is done."""
        self.content.setdefault(stage, {"seconds": 0.0, "sessions": 0})["result"] = result
        self._write()

    def _write(self) -> None:
        write_atomic(self.path, to_json(self.content, indent=1).encode())


def stage_rows(content: dict[str, Any], show: Callable[[float], str]) -> list[list[str]]:
    """What `Records` holds as rows of a table: stage, seconds, result."""
    rows = []
    for stage in FOLDERS:
        if stage in content:
            result = content[stage].get("result", {})
            text = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                             for name, value in result.items())  # fmt: skip
            rows.append([stage, show(content[stage]["seconds"]), text or "not done"])
    return rows
