"""Runs: the stages of an experiment, in order, each going on from wherever it was.

Recipes are resolved when the run begins and kept in its `recipes.yaml`, so that later changes to a file do not reach
it. What a stage took and gave is in `stages.json`. One that was begun with other inputs than there are now is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nasray.cluster import Resources, RunFolder, write_atomic
from nasray.cluster.progress import say
from nasray.cluster.records import read_record, yaml_record
from nasray.cluster.session import ray_session
from nasray.options import PartOptions, make_part
from nasray.recipe import RECIPE, Recipe, load_recipe
from nasray.signatures import keywords
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.stages.base import (
    SEARCH,
    SUPERNET,
    Reference,
    Site,
    Stage,
    Work,
    check_references,
    file_digest,
    references,
    stage_references,
    text_digest,
)
from nasray.stages.records import Records
from nasray.training import with_absolute_paths
from nasray.validation import validate

if TYPE_CHECKING:
    from nasray.experiment import Experiment

RECIPES = "recipes.yaml"
RESTORE = "Restore it from a copy of the run"


@dataclass(frozen=True)
class Planned:
    """A stage as it is planned.

    Attributes:
        name: Name of the stage.
        kind: Kind of the stage.
        takes: Options that name stages or files, and what they name.
        gives: What later stages can take from it.
        folder: Its folder within the run's.
        work: What it is going to do.
    """

    name: str
    kind: str
    takes: dict[str, str]
    gives: tuple[str, ...]
    folder: str
    work: Work


def make_stages(experiment: Experiment) -> dict[str, Stage]:
    """Return the stages of an experiment by name, in their order."""
    return {name: make_part(options) for name, options in experiment.stages.items()}


def check_order(experiment: Experiment) -> None:
    """Refuse stages that do not go together; a search without stages is none of a run's.

    Raises:
        NasrayError: naming the option.
    """
    if not experiment.stages:
        return
    if SEARCH not in experiment.stages:
        raise NasrayError(f"stages has none named {SEARCH!r}, whose best is the run's. It has: {_names(experiment)}")
    check_references(experiment, make_stages(experiment))


def without(experiment: Experiment, names: Sequence[str]) -> Experiment:
    """Return an experiment without some of its stages, and without the options that referred to them.

    An option that need not be given, such as `weights`, is left out with the stage, and a line says so.

    Raises:
        NasrayError: for a stage that there is not, or that an option refers to which must be given.
    """
    for name in names:
        if name not in experiment.stages:
            raise NasrayError(
                f"--without: unknown stage {name!r}{did_you_mean(name, experiment.stages)} There are: "
                f"{_names(experiment)}"
            )
    stages = make_stages(experiment)
    left = {name: options for name, options in experiment.stages.items() if name not in names}
    for name in left:
        for reference in stage_references(experiment, name, stages[name]):
            if reference.is_of_stage(names):
                left[name] = _without_option(name, left[name], reference)
    return dataclasses.replace(experiment, stages=left)


def _without_option(stage: str, options: PartOptions, reference: Reference) -> PartOptions:
    """Return the options of a stage without one that refers to a stage that is left out."""
    option, dropped, key = reference.option, reference.value, reference.key
    known = keywords(options.registry.part(options.part_name), options.registry.given)
    if option not in known or known[option].default is not None:
        raise NasrayError(
            f"--without {dropped}: {key} refers to it. Leave {stage} out too, or set --{key} to another one"
        )
    say(f"{key} was {dropped}: left out")
    changed: PartOptions = dataclasses.replace(cast(Any, options), **{option: None})
    return changed


def with_absolute_references(experiment: Experiment) -> Experiment:
    """Return an experiment whose stages and parts name files by their absolute paths."""

    def absolute(options: PartOptions) -> PartOptions:
        paths = {
            reference.option: str(Path(reference.value).absolute())
            for reference in references(options)
            if reference.what == "checkpoint" and not reference.is_of_stage(experiment.stages)
        }
        changed: PartOptions = dataclasses.replace(cast(Any, options), **paths)
        return changed

    return dataclasses.replace(
        experiment,
        searcher=absolute(experiment.searcher),
        evaluator=absolute(experiment.evaluator),
        stages={name: absolute(options) for name, options in experiment.stages.items()},
    )


def _names(experiment: Experiment) -> str:
    return ", ".join(experiment.stages)


def plan(experiment: Experiment) -> list[Planned]:
    """Return what a run of an experiment does, stage by stage; nothing is opened or written.

    Raises:
        NasrayError: for a recipe that is not there, or of the wrong task.
    """
    site = Site(experiment, RunFolder("."), "", make_stages(experiment), resolve_recipes(experiment))
    planned = []
    for name, stage in site.stages.items():
        takes: dict[str, str] = {}
        for reference in stage_references(experiment, name, stage):
            before = takes.get(reference.option)
            takes[reference.option] = f"{before}, {reference.value}" if before else reference.value
        folder = "." if name == SEARCH else name
        kind = experiment.stages[name].kind
        planned.append(Planned(name, kind, takes, tuple(sorted(stage.gives)), folder, stage.plan(site.at(name))))
    return planned


# ---- recipes -----------------------------------------------------------------------------------------------------


def resolve_recipes(experiment: Experiment) -> dict[str, Recipe]:
    """Return the recipes of the experiment's trainings, by stage, with its data and seed.

    A training whose checkpoint a search compares paths of leaves out the images that are held out for that.

    Raises:
        NasrayError: for a recipe that is not there, or of the wrong task.
    """
    searched = _searched_supernets(experiment)
    recipes = {}
    for name, stage in make_stages(experiment).items():
        recipe_name = stage.recipe_name(experiment)
        if recipe_name is None:
            continue
        recipe = load_recipe(recipe_name)
        data = experiment.images if recipe.task == "classification" else experiment.data
        changes: dict[str, Any] = {"seed": experiment.seed, "weights": None}
        if data is not None:
            changes["data"] = data
        if name in searched:
            changes["holdout"] = experiment.holdout
        recipes[name] = with_absolute_paths(dataclasses.replace(recipe, **changes))
    return recipes


def _searched_supernets(experiment: Experiment) -> set[str]:
    """Return the stages whose checkpoint an evaluator takes."""
    return {
        reference.value
        for name, stage in make_stages(experiment).items()
        for reference in stage_references(experiment, name, stage)
        if reference.what == "checkpoint" and reference.option.startswith("evaluator.")
    }


def write_recipes(run: RunFolder, recipes: Mapping[str, Recipe]) -> None:
    """Keep resolved recipes in the run's folder, all in one file; no file for none."""
    if not recipes:
        return
    content = {stage: RECIPE.dump_python(recipe, mode="json") for stage, recipe in recipes.items()}
    write_atomic(run.path / RECIPES, yaml_record(content))


def read_recipes(run: RunFolder, experiment: Experiment) -> dict[str, Recipe] | None:
    """Return the resolved recipes of a run, by stage; None if it was interrupted before they were written.

    Raises:
        NasrayError: if the file is damaged, or not of the run's stages.
    """
    path = run.path / RECIPES
    trained = [name for name, stage in make_stages(experiment).items() if stage.recipe_name(experiment) is not None]
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


def check_stages(experiment: Experiment, recipes: Mapping[str, Recipe], resources: Resources) -> None:
    """Open all data and build all networks once, before anything is written or takes long.

    Raises:
        NasrayError: for every mistake that the user can mend.
    """
    site = Site(experiment, RunFolder("."), "", make_stages(experiment), recipes, resources)
    for name, stage in site.stages.items():
        try:
            stage.check(site.at(name))
        except NasrayError as error:
            if len(site.stages) == 1:
                raise
            raise NasrayError(f"stage {name}: {error}") from error


def site_of(run: RunFolder, experiment: Experiment) -> Site:
    """Return the place of the search in a run."""
    return Site(experiment, run, SEARCH, make_stages(experiment), read_recipes(run, experiment) or {})


def winner_stages(experiment: Experiment) -> list[str]:
    """Return the stages that train the winner of the search by itself, in their order."""
    return [
        name
        for name, stage in make_stages(experiment).items()
        for reference in stage_references(experiment, name, stage)
        if reference.what == "architectures" and reference.value == SEARCH
    ]


def baseline_stages(experiment: Experiment) -> list[str]:
    """Return the stages that train other architectures as the last of `winner_stages` trains the winner."""
    stages, winner = make_stages(experiment), winner_stages(experiment)
    if not winner:
        return []
    recipe = stages[winner[-1]].recipe_name(experiment)
    found = []
    for name, stage in stages.items():
        of = {each.value for each in stage_references(experiment, name, stage) if each.what == "architectures"}
        if of and not of & {SUPERNET, SEARCH} and stage.recipe_name(experiment) == recipe:
            found.append(name)
    return found


def run_stages(
    experiment: Experiment, run: RunFolder, resources: Resources, *, from_history: bool = False
) -> dict[str, Any]:
    """Run whatever is not done yet, and return the content of best.json, with stages.json under `stages`.

    Args:
        experiment: Experiment of the run.
        run: Its folder, with its recipes.
        resources: What a trial of a search needs, and where everything runs.
        from_history: Whether to leave Ray Tune's own state, which is pickled, unread.

    Raises:
        NasrayError: for every mistake that the user can mend; the run can be continued after it.
    """
    stages, records = make_stages(experiment), Records(run)
    site = Site(experiment, run, "", stages, read_recipes(run, experiment) or {}, resources, from_history)
    is_done = all(stage.is_done(site.at(name)) for name, stage in stages.items())
    with nullcontext() if is_done or len(stages) == 1 else ray_session(resources):  # a search alone sees to that itself
        for name, stage in stages.items():
            _run_stage(site.at(name), stage, records)
    return {**run.read_best(), "stages": records.content}


def _run_stage(site: Site, stage: Stage, records: Records) -> None:
    if len(site.stages) > 1:
        say(f"stage {site.name}" + (" (done before)" if records.is_done(site.name) else ""))
    inputs = {} if stage.is_done(site) else inputs_of(site)
    refuse_other_inputs(site, records.inputs(site.name), inputs)
    with records.timed(site.name, inputs):
        result = stage.run(site)
    records.result(site.name, result)


def inputs_of(site: Site) -> dict[str, str]:
    """Return the SHA-256 of what each reference of a stage stands for, by option."""
    found = {}
    for reference in stage_references(site.experiment, site.name, site.stages[site.name]):
        value = reference.value
        if reference.is_of_stage(site.stages):
            found[reference.option] = site.stages[value].digest(site.at(value), reference.what)
        elif reference.what != "architectures":
            found[reference.option] = file_digest(Path(value))
        else:
            found.setdefault(reference.option, text_digest(value))
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
                f"stage {site.name} was begun with another {option.rpartition('.')[2]} (SHA-256 "
                f"{before.get(option, 'none')[:12]}, now {digest[:12]}): put the former one back, or move {away} "
                "away to begin the stage anew"
            )
