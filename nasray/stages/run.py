"""Runs: the stages of an experiment, in order, each going on from wherever it was.

Recipes are resolved when the run begins and kept in its `recipes.yaml`, so that later changes to a file do not reach
it. What a stage took and gave is in `stages.json`. One that was begun with other inputs than there are now is refused.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nasray.cluster import Resources, RunFolder, write_atomic
from nasray.cluster.callbacks import told_stage
from nasray.cluster.progress import part_of, say
from nasray.cluster.records import read_record, yaml_record
from nasray.cluster.session import ray_session
from nasray.recipe import RECIPE, Recipe
from nasray.spaces import NasrayError
from nasray.stages.base import SEARCH, Reference, Site, Stage, path_digest, text_digest
from nasray.stages.outlook import StageOutlook, outlook, time_left_text
from nasray.stages.plan import Plan
from nasray.stages.records import Records
from nasray.validation import validate

RECIPES = "recipes.yaml"
LOOK = 10.0
"""Least seconds between two looks at how far the stages are."""
RESTORE = "Restore it from a copy of the run"


# ---- recipes -----------------------------------------------------------------------------------------------------


def write_recipes(run: RunFolder, recipes: Mapping[str, Recipe]) -> None:
    """Keep resolved recipes in the run's folder, all in one file; no file for none."""
    if not recipes:
        return
    content = {stage: RECIPE.dump_python(recipe, mode="json") for stage, recipe in recipes.items()}
    write_atomic(run.path / RECIPES, yaml_record(content))


def read_recipes(run: RunFolder, plan: Plan) -> dict[str, Recipe] | None:
    """Return the resolved recipes of a run, by stage; None if it was interrupted before they were written.

    Raises:
        NasrayError: if the file is damaged, or not of the run's stages.
    """
    path = run.path / RECIPES
    trained = [name for name, stage in plan.stages.items() if stage.recipe_name() is not None]
    if not trained:
        return {}
    if not path.is_file():
        return None
    content = read_record(path, dict[str, dict[str, Any]], RESTORE)
    if list(content) != trained:
        raise NasrayError(
            f"{path} holds recipes of {', '.join(content) or 'none'}; the run's trainings are "
            f"{', '.join(trained) or 'none'}. {RESTORE}"
        )
    return {
        stage: validate(RECIPE, Recipe, recipe, f"{path}, {stage}", is_record=True) for stage, recipe in content.items()
    }


# ---- running -----------------------------------------------------------------------------------------------------


def check_stages(plan: Plan, recipes: Mapping[str, Recipe], resources: Resources) -> None:
    """Open all data and build all networks once, before anything is written or takes long.

    Raises:
        NasrayError: for every mistake that the user can fix.
    """
    site = Site(RunFolder("."), "", plan.stages, recipes, resources)
    for name, stage in site.stages.items():
        try:
            stage.check(site.at(name))
        except NasrayError as error:
            if len(site.stages) == 1:
                raise
            raise NasrayError(f"stage {name}: {error}") from error


def site_of(run: RunFolder, plan: Plan) -> Site:
    """Return the place of the search in a run."""
    return Site(run, SEARCH, plan.stages, read_recipes(run, plan) or {})


def run_stages(plan: Plan, run: RunFolder, resources: Resources, *, from_history: bool = False) -> dict[str, Any]:
    """Run whatever is not done yet, and return the content of best.json, with stages.json under `stages`.

    Args:
        plan: What the run does.
        run: Its folder, with its recipes.
        resources: What a trial of a search needs, and where everything runs.
        from_history: Whether to leave Ray Tune's own state, which is pickled, unread.

    Raises:
        NasrayError: for every mistake that the user can fix; the run can be continued after it.
    """
    stages, records = plan.stages, Records(run)
    site = Site(run, "", stages, read_recipes(run, plan) or {}, resources, from_history)
    is_done = all(stage.is_done(site.at(name)) for name, stage in stages.items())
    with nullcontext() if is_done or len(stages) == 1 else ray_session(resources):  # a search alone sees to that itself
        for name, stage in stages.items():
            _run_stage(site.at(name), stage, plan.references[name], records)
    return {**run.read_best(), "stages": records.content}


def _run_stage(site: Site, stage: Stage, takes: Sequence[Reference], records: Records) -> None:
    rest, num = _Rest(site, records), len(site.stages)
    if num > 1:
        note = "(done before)" if records.is_done(site.name) else rest()
        say(f"stage {1 + list(site.stages).index(site.name)}/{num} {site.name}  {note}".rstrip())
    inputs = {} if stage.is_done(site) else inputs_of(site, takes)
    refuse_other_inputs(site, records.inputs(site.name), inputs)
    is_begun, is_done = site.name in records.content, records.is_done(site.name)
    with told_stage(site.run.path, site.name, is_begun=is_begun, is_done=is_done) as figures:
        with records.timed(site.name, inputs), part_of(rest) if num > 1 else nullcontext():
            figures |= stage.run(site)
        records.result(site.name, figures)


class _Rest:
    """What is left of a run while a stage runs, in words; looked up now and then, since stages read their folders."""

    def __init__(self, site: Site, records: Records) -> None:
        self.site, self.records = site, records
        self.stages: list[StageOutlook] = []
        self.next = 0.0

    def __call__(self, at_least: float = math.inf) -> str:
        """Return the text; `at_least` are the seconds that the stage takes at least, infinity where unknown."""
        begin = time.monotonic()
        if begin >= self.next:
            self.records.count()
            with contextlib.suppress(Exception):  # of a file system or of Ray: the run matters more than its forecast
                self.stages = stages_ahead(self.site, self.records.content)
            self.next = begin + max(LOOK, 100 * (time.monotonic() - begin))
        text = time_left_text(self.stages, self.site.name, at_least)
        return text and f"run ETA {text}"


def stages_ahead(site: Site, records: Mapping[str, Any]) -> list[StageOutlook]:
    """Return how far each stage of a run is, as its folder and the content of the run's `Records` say."""
    return outlook({name: stage.effort(site.at(name)) for name, stage in site.stages.items()}, records)


def inputs_of(site: Site, takes: Sequence[Reference]) -> dict[str, str]:
    """Return the SHA-256 of what each reference of a stage stands for, by option."""
    found: dict[str, str] = {}
    for reference in takes:
        value, before = reference.value, found.get(reference.option)
        if reference.is_of_stage(site.stages):
            digest = site.stages[value].digest(site.at(value), reference.what)
        elif reference.what != "architectures":
            digest = path_digest(Path(value))
        else:
            digest = text_digest(value)
        found[reference.option] = digest if before is None else text_digest(before + digest)
    return found


def refuse_other_inputs(site: Site, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with a stage whose inputs have changed.

    Args:
        site: Place of the stage.
        before: Digests of the inputs that it was begun with; empty if it was not begun.
        now: Digests of its inputs; empty if it is done.

    Raises:
        NasrayError: naming the first that differs.
    """
    for option, digest in now.items():
        if before and before.get(option) != digest:
            away = f"{site.folder / 'history'} and {site.folder / 'tune'}" if site.name == SEARCH else site.folder
            raise NasrayError(
                f"stage {site.name} was begun with another {option} (SHA-256 "
                f"{before.get(option, 'none')[:12]}, now {digest[:12]}): put the former one back, or move {away} "
                "away to begin the stage anew"
            )
