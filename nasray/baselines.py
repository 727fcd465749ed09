"""Train what a run's winner is compared with: random architectures, named ones, and the winner again, all alike.

Everything is trained by the recipes of the run's winner (or by one that is given) in `compare/` of the run's folder, as
in a stage that trains several. Whatever is finished there is not repeated, so the same call continues what was
interrupted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nasray.cluster import RunFolder, owned
from nasray.cluster.training import training_session
from nasray.comparison import FOLDER, RANDOM, WINNER, Group, Training, architecture_name, groups_of_run, part_ids
from nasray.finding import find_architecture
from nasray.loading import known_plan, plan_of_run
from nasray.parts import TO_BUDGET
from nasray.recipe import Recipe, load_recipe
from nasray.spaces import Architecture, NasrayError
from nasray.stages import site_of, winner_stages
from nasray.stages.plan import Plan
from nasray.stages.train import TrainStage
from nasray.training import try_out, with_absolute_paths
from nasray.training.folder import is_training, read_description
from nasray.training.jobs import StagedTraining, train_in_stages


def train_alike(
    folder: str | Path,
    *,
    num_random: int = 0,
    baselines: Sequence[str] = (),
    repeats: int = 1,
    recipe: str | None = None,
    seed: int = 0,
) -> None:
    """Train what is missing for a comparison of a run's winner.

    Args:
        folder: The run.
        num_random: Random architectures of the run's space and budget, those of `nasray rank` included; each is
            trained once.
        baselines: Names or files of architectures, each a group of its own.
        repeats: Trainings, with different seeds, of the winner and of each baseline.
        recipe: Recipe of all trainings; that of the winner's own by default.
        seed: Seed of the random choice.

    Raises:
        NasrayError: if nothing says how the winner is trained; and as `begin_training`.
    """
    run = RunFolder.open(folder)
    named = {}
    for name in baselines:
        if TO_BUDGET.fullmatch(name):
            named[name] = plan_of_run(run).parts.named(name)
        else:
            found = find_architecture(name)
            named[architecture_name(found)] = found
    recipes = comparison_recipes(run, recipe)
    last = next(reversed(recipes.values()))
    for architecture in named.values():
        try_out(dataclasses.replace(last, weights=None), architecture)
    with owned(run.path / FOLDER):
        missing = missing_trainings(run, last.seed, named, num_random, repeats, seed)
        if not missing:
            return
        with training_session(last.resources.address, last.resources.workers):  # one for all stages
            train_in_stages(missing, recipes, run.path / FOLDER)


def comparison_recipes(run: RunFolder, name: str | None = None) -> dict[str, Recipe]:
    """Return the recipes of a comparison's trainings, by stage: that which is given, or those of the run's winner.

    Raises:
        NasrayError: if the run does not say how its winner is trained, or others cannot be trained so.
    """
    if name is not None:
        return {"train": with_absolute_paths(load_recipe(name))}
    plan = known_plan(run)
    if plan and (trained := winner_stages(plan)):
        first = plan.stages[trained[0]]
        if isinstance(first, TrainStage) and (begun := first.weights or first.continues):
            raise NasrayError(
                f"stage {trained[0]} of {run.path} trains the winner from what {begun} has, which others do not have. "
                "Pass --recipe"
            )
        return stage_recipes(run, plan)
    folder = run.path / "train"
    if not is_training(folder):
        raise NasrayError(
            f"{run.path} does not say how its winner is trained, which others are to be trained like. Train it first, "
            f"`nasray train {run.path} --recipe ...`, or pass --recipe"
        )
    recipe = read_description(folder).recipe
    if recipe.weights is not None:
        raise NasrayError(
            f"the winner in {folder} was trained from weights, {recipe.weights}, which others do not have. Train it "
            "from scratch in another folder, or pass --recipe"
        )
    return {"train": recipe}


def stage_recipes(run: RunFolder, plan: Plan) -> dict[str, Recipe]:
    """Return the recipes by which others are trained as a run's stages train its winner, by stage.

    Raises:
        NasrayError: if what a stage needs, such as a teacher, is not there.
    """
    site, recipes = site_of(run, plan), {}
    for name in winner_stages(plan):
        stage, recipe = plan.stages[name], site.recipes[name]
        recipes[name] = stage.recipe_of_others(site.at(name), recipe) if isinstance(stage, TrainStage) else recipe
    return recipes


def missing_trainings(
    run: RunFolder, first_seed: int, named: dict[str, Architecture], num_random: int, repeats: int, seed: int
) -> list[StagedTraining]:
    """Return the trainings that are not finished yet, in an order that does not depend on which are.

    Their labels are GROUP/ID/seed-N.

    Args:
        run: The run.
        first_seed: Seed of every first training; further ones count up.
        named: Baselines by name.
        num_random: Random architectures.
        repeats: Trainings of the winner and of each baseline.
        seed: Seed of the random choice.
    """
    groups = {group.name: group for group in groups_of_run(run)}

    def is_done(group: str, architecture: Architecture, at: int) -> bool:
        return any(t.seed == at and architecture.id in part_ids(t.folder) for t in _trainings(groups.get(group)))

    def training(group: str, architecture: Architecture, at: int) -> StagedTraining:
        return StagedTraining(f"{group}/{architecture.id}/seed-{at}", architecture, at)

    winner = run.read_entries()[0].architecture
    seeds = range(first_seed, first_seed + repeats)
    missing = [
        training(group, architecture, at)
        for group, architecture in {WINNER: winner, **named}.items()
        for at in seeds
        if not is_done(group, architecture, at)
    ]
    done = _trainings(groups.get(RANDOM))
    num_done, have = len({t.architecture for t in done}), {part for t in done for part in part_ids(t.folder)}
    if num_done < num_random:
        drawn = plan_of_run(run).parts.random_architectures(num_random, seed)
        fresh = [architecture for architecture in drawn if architecture.id not in have]
        missing += [training(RANDOM, architecture, first_seed) for architecture in fresh[: num_random - num_done]]
    return missing


def _trainings(group: Group | None) -> tuple[Training, ...]:
    return () if group is None else group.trainings
