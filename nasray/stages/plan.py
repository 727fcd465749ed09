"""Plans: what a run of an experiment does, each stage with its parts made.

An experiment walks down once: it is read, planned here, and asked no more. What does not go together shows here, before
anything is opened or written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nasray.architectures import FAMILIES
from nasray.cluster import Resources, RunFolder
from nasray.cluster.progress import say
from nasray.experiment import STAGES, Experiment, PreselectOptions
from nasray.options import PartOptions, make_part
from nasray.parts import Parts, make_parts, trial_resources
from nasray.recipe import Recipe, load_recipe
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
    is_path,
    references,
    stage_references,
)
from nasray.stages.search import SearchStage
from nasray.training import with_absolute_paths


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        experiment: Experiment as the run keeps it: files by their absolute paths, and with what its number of
            evaluations decides written out.
        parts: Parts of the stage `search`, whose best is the run's.
        stages: Stages by name, in their order.
        references: What each of them takes from others and from files.
    """

    experiment: Experiment
    parts: Parts
    stages: Mapping[str, Stage]
    references: Mapping[str, tuple[Reference, ...]]

    @property
    def search(self) -> SearchStage:
        """The stage `search` of a run that evaluates architectures one by one.

        Raises:
            NasrayError: if it is of another kind.
        """
        stage = self.stages[SEARCH]
        if not isinstance(stage, SearchStage):
            kind = self.experiment.stages[SEARCH].kind
            raise NasrayError(f"stage {SEARCH} of {self.experiment.name} is of kind {kind}, not search")
        return stage

    @property
    def resources(self) -> Resources:
        """What a trial needs and where it runs."""
        return trial_resources(self.experiment)


def make_plan(experiment: Experiment) -> Plan:
    """Plan an experiment: make its parts and stages, once.

    Raises:
        NasrayError: for whatever does not go together.
    """
    kinds = [STAGES.part(options.kind) for options in experiment.stages.values()]
    parts = make_parts(experiment, searches=any(issubclass(kind, SearchStage) for kind in kinds))
    experiment = _with_absolute_references(parts.experiment)
    # Pre-selection is of the search alone: its filter may be fitted on what other stages find.
    others = dataclasses.replace(experiment, preselect=None)
    stages = {
        name: _make_stage(name, options, experiment if name == SEARCH else others, parts)
        for name, options in experiment.stages.items()
    }
    found = {name: stage_references(name, experiment.stages[name], stage) for name, stage in stages.items()}
    search = stages.get(SEARCH)
    if search is None or not search.leads:
        fit = " or ".join(name for name in STAGES if STAGES.part(name).leads)
        raise NasrayError(
            f"stages has none named {SEARCH!r} of kind {fit}, whose best is the run's. It has: {', '.join(stages)}"
        )
    if experiment.supernet and not any(stage.is_of_supernet for stage in stages.values()):
        raise NasrayError("supernet is of stages that train one, and there is none. Leave supernet out")
    check_references(found, stages)
    return Plan(experiment, search.parts if isinstance(search, SearchStage) else parts, stages, found)


def _make_stage(name: str, options: PartOptions, experiment: Experiment, parts: Parts) -> Stage:
    try:
        stage: Stage = make_part(options, experiment=experiment, parts=parts)
    except NasrayError as error:
        raise NasrayError(f"stages.{name}: {error}") from error
    return stage


def _with_absolute_references(experiment: Experiment) -> Experiment:
    """Return an experiment whose stages and parts name files by their absolute paths."""

    def absolute(options: Any) -> Any:
        paths: dict[str, Any] = {}
        for reference in references(options):
            if (
                reference.what != "architectures"
                and not reference.is_of_stage(experiment.stages)
                and is_path(reference.value)  # a misspelled stage is named as it is written
            ):
                given, path = reference.value, str(Path(reference.value).absolute())
                before = paths.get(reference.option, getattr(options, reference.option))
                several = not isinstance(before, str)
                paths[reference.option] = tuple(path if item == given else item for item in before) if several else path
        kinds = (PartOptions, PreselectOptions)
        parts = {name: absolute(value) for name, value in vars(options).items() if isinstance(value, kinds)}
        return dataclasses.replace(options, **paths, **parts)

    return dataclasses.replace(
        experiment,
        **{
            name: absolute(options)
            for name in ("searcher", "evaluator", "preselect")
            if (options := getattr(experiment, name)) is not None
        },
        stages={name: absolute(options) for name, options in experiment.stages.items()},
    )


def without(plan: Plan, names: Sequence[str]) -> Plan:
    """Plan an experiment anew without some of its stages, and without the options that referred to them.

    An option that need not be given, such as `weights`, is left out with the stage, and a line says so.

    Raises:
        NasrayError: for a stage that there is not, or that an option refers to which must be given.
    """
    for name in names:
        if name not in plan.stages:
            raise NasrayError(
                f"--without: unknown stage {name!r}{did_you_mean(name, plan.stages)} There are: "
                f"{', '.join(plan.stages)}"
            )
    experiment = plan.experiment
    left = {name: options for name, options in experiment.stages.items() if name not in names}
    for name in left:
        for reference in plan.references[name]:
            if reference.is_of_stage(names) and reference.key == "preselect.filter":
                say(f"preselect was by {reference.value}: left out")
                experiment = dataclasses.replace(experiment, preselect=None)
            elif reference.is_of_stage(names):
                left[name] = _without_option(name, left[name], reference)
    return make_plan(dataclasses.replace(experiment, stages=left))


def _without_option(stage: str, options: PartOptions, reference: Reference) -> PartOptions:
    """Return the options of a stage without one that refers to a stage that is left out."""
    option, dropped, key = reference.option, reference.value, reference.key
    if option == "preselect.filter":  # which must be given where there is a section
        option, key = "preselect", key.rpartition(".")[0]
    known = keywords(options.registry.part(options.part_name), options.registry.given)
    if option not in known or known[option].default is not None:
        leave = "Set " if stage == SEARCH else f"Leave {stage} out too, or set "
        raise NasrayError(f"--without {dropped}: {key} refers to it. {leave}--{key} to another one")
    say(f"{key} was {dropped}: left out")
    changed: PartOptions = dataclasses.replace(cast(Any, options), **{option: None})
    return changed


# ---- what is planned ---------------------------------------------------------------------------------------------


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


def planned_stages(plan: Plan) -> list[Planned]:
    """Return what a run does, stage by stage; nothing is written.

    Raises:
        NasrayError: for a recipe that is not there, or of the wrong task.
    """
    site = Site(RunFolder("."), "", plan.stages, resolve_recipes(plan))
    planned = []
    for name, stage in plan.stages.items():
        takes: dict[str, str] = {}
        for reference in plan.references[name]:
            before = takes.get(reference.option)
            takes[reference.option] = f"{before}, {reference.value}" if before else reference.value
        folder = "." if name == SEARCH else name
        kind = plan.experiment.stages[name].kind
        planned.append(Planned(name, kind, takes, tuple(sorted(stage.gives)), folder, stage.plan(site.at(name))))
    return planned


def resolve_recipes(plan: Plan) -> dict[str, Recipe]:
    """Return the recipes of a run's trainings, by stage, with the experiment's data and seed.

    A training whose checkpoint a search compares paths of leaves out the images that are held out for that, and a
    gradient search those from which it learns; so do trainings for the same task from which they take weights.

    Weights are those that a stage names; a space of heads leaves the recipe's backbone, and so the weights of that.

    Raises:
        NasrayError: for a recipe that is not there, or of the wrong task.
    """
    experiment = plan.experiment
    recipes: dict[str, Recipe] = {}
    family = FAMILIES.get(plan.parts.space.family)
    is_of_heads = family is not None and family.slot == "head"
    for name, stage in plan.stages.items():
        recipe_name = stage.recipe_name()
        if recipe_name is None:
            continue
        recipe = load_recipe(recipe_name)
        if recipe.callbacks:
            raise NasrayError(
                f"stages.{name}: recipe {recipe.name} has callbacks {', '.join(recipe.callbacks)}, and in a run those "
                "of the experiment hear all stages. Move them to the experiment's key callbacks"
            )
        data = experiment.images if recipe.task == "classification" else experiment.data
        changes: dict[str, Any] = {"seed": experiment.seed}
        if not is_of_heads:
            changes["weights"] = None
        if data is not None:
            changes["data"] = data
        try:
            recipe = stage.own_recipe(dataclasses.replace(recipe, **changes))
        except NasrayError as error:
            raise NasrayError(f"stages.{name}: {error}") from error
        recipes[name] = with_absolute_paths(recipe)
    held = _of_searched(plan, recipes)
    return {
        name: dataclasses.replace(recipe, holdout=experiment.holdout) if name in held else recipe
        for name, recipe in recipes.items()
    }


def _of_searched(plan: Plan, recipes: Mapping[str, Recipe]) -> set[str]:
    """Return the stages that search by gradient or whose checkpoint an evaluator takes, and what these begin with."""
    taken = {
        name: [reference for reference in found if reference.what == "checkpoint" and reference.value in recipes]
        for name, found in plan.references.items()
    }
    found = {
        reference.value
        for references in taken.values()
        for reference in references
        if reference.option.startswith("evaluator.")
    } | {name for name, recipe in recipes.items() if recipe.alpha.is_searched}
    for name in reversed(list(plan.stages)):  # what comes later takes from what comes before
        if name in found:
            found |= {each.value for each in taken[name] if recipes[each.value].task == recipes[name].task}
    return found


def winner_stages(plan: Plan) -> list[str]:
    """Return the stages that train the winner of the search by itself, in their order."""
    return [
        name
        for name, found in plan.references.items()
        for reference in found
        if reference.what == "architectures" and reference.value == SEARCH
    ]


def baseline_stages(plan: Plan) -> list[str]:
    """Return the stages that train other architectures as the last of `winner_stages` trains the winner."""
    winner = winner_stages(plan)
    if not winner:
        return []
    recipe = plan.stages[winner[-1]].recipe_name()
    found = []
    for name, stage in plan.stages.items():
        of = {each.value for each in plan.references[name] if each.what == "architectures"}
        if of and not of & {SUPERNET, SEARCH} and stage.recipe_name() == recipe:
            found.append(name)
    return found
