"""Which trainings a run holds, in groups, and whether one group is better than another.

A group is a set of trainings that answer one question: the winner of the search, random architectures of the same
space and budget, a named baseline. It may have several architectures, and several trainings (seeds) of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasray.architectures import ARCHITECTURES, slots
from nasray.cluster import RunFolder
from nasray.cluster.files import to_json
from nasray.evaluation.statistics import POWER, compare_groups, mean_interval
from nasray.loading import known_plan
from nasray.recipe import RECIPE
from nasray.spaces import Architecture, NasrayError
from nasray.stages import baseline_stages, winner_stages
from nasray.stages.plan import Plan
from nasray.stages.train import TrainStage
from nasray.stages.trainings import training_folders
from nasray.training.folder import Description, is_finished, is_training, read_description, read_summary

FOLDER = "compare"
"""Folder within a run for what `nasray compare` trains: compare/GROUP/ID/seed-N/, with a folder for each stage."""

WINNER, RANDOM = "winner", "random"
METRICS = ("mAP", "top1")
"""What trainings are compared by, the first that they have."""

OWN_KEYS = ("name", "backbone", "seed", "weights", "resources", "log_every")
"""Keys of a recipe in which trainings that are compared may differ."""

MAX_DIFFERENCES = 6
"""Further ones that a note names no more."""


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        architecture: Id of its architecture.
        seed: Seed of its recipe.
        value: Metric of its best validation.
        folder: Its folder.
    """

    architecture: str
    seed: int
    value: float
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return the training as a JSON-serializable dict."""
        return {**dataclasses.asdict(self), "folder": str(self.folder)}


@dataclass(frozen=True)
class Group:
    """Trainings that are compared as one.

    Attributes:
        name: Name for tables, such as "winner" or "random".
        trainings: At least one.
    """

    name: str
    trainings: tuple[Training, ...]

    @property
    def values(self) -> list[float]:
        """The values that count as independent: one an architecture, its mean; of one architecture one a training."""
        by_architecture: dict[str, list[float]] = {}
        for training in self.trainings:
            by_architecture.setdefault(training.architecture, []).append(training.value)
        if len(by_architecture) == 1:
            return next(iter(by_architecture.values()))
        return [sum(values) / len(values) for values in by_architecture.values()]

    @property
    def num_architectures(self) -> int:
        """Number of different architectures."""
        return len({training.architecture for training in self.trainings})


def groups_of_run(run: RunFolder) -> list[Group]:
    """Return the groups of finished trainings in a run, the winner's first; groups without any are left out."""
    winner = run.read_entries()[0].id
    plan = known_plan(run)
    last = next(iter(reversed(winner_stages(plan) if plan else [])), "train")
    folders: dict[str, list[Path]] = {WINNER: training_folders(run.path / last), RANDOM: []}
    for stage in baseline_stages(plan) if plan else []:
        names = _names(plan, stage) if plan else {}
        for path in training_folders(run.path / stage):
            if is_training(path):
                name = next((names[key] for key in part_ids(path) if key in names), RANDOM)
                folders.setdefault(name, []).append(path)
    folders[RANDOM] += sorted((run.path / "rank" / "trainings").glob(f"*/{last}"))
    for path in sorted((run.path / FOLDER).glob(f"*/*/*/{last}")):
        folders.setdefault(path.relative_to(run.path / FOLDER).parts[0], []).append(path)
    groups = [Group(name, tuple(_finished(paths))) for name, paths in folders.items()]
    mine = tuple(training for training in groups[0].trainings if winner in part_ids(training.folder))
    groups[0] = Group(WINNER, mine)
    return [group for group in groups if group.trainings]


def _names(plan: Plan, stage: str) -> dict[str, str]:
    """Return what a stage calls the single architectures that it trains, by their ids."""
    trained = plan.stages[stage]
    return trained.names(plan.stages) if isinstance(trained, TrainStage) else {}


def part_ids(folder: Path) -> list[str]:
    """Return the ids of what the architecture of a training is made of: a head beside a searched backbone, say."""
    return [part.id for part in slots(read_description(folder).architecture).values()]


def groups_of_folders(folders: Sequence[Path]) -> list[Group]:
    """Return what lies in folders as groups, in the order given.

    A run stands for its winner's trainings. Other trainings are one group where architecture and recipe are the same
    but for the seed. Where each was trained once, the first stands against all others as one group: single trainings
    say nothing about each other.

    Args:
        folders: Runs and trainings.

    Raises:
        NasrayError: if a folder holds no finished training.
    """
    found: dict[tuple[str, ...], list[Training]] = {}
    for folder in {folder.resolve(): folder for folder in folders}.values():  # one that is named twice counts once
        if (folder / "experiment.yaml").is_file():
            found.setdefault((str(folder),), []).extend(_winner_of(folder))
            continue
        if not is_finished(folder):
            state = f"not finished: `nasray resume {folder}` continues it" if is_training(folder) else "no training"
            raise NasrayError(f"{folder} is {state}. Compare finished trainings")
        for training in _finished([folder]):
            recipe = to_json(_compared_keys(read_description(folder)))
            found.setdefault((training.architecture, recipe), []).append(training)
    architectures = [key[0] for key in found]
    groups = []
    for key, items in found.items():
        name = architecture_name(read_description(items[0].folder).architecture)
        if len(key) == 1 or architectures.count(key[0]) > 1:
            name = key[0] if len(key) == 1 else str(items[0].folder)
        groups.append(Group(name, tuple(items)))
    if len(groups) > 2 and all(len(group.trainings) == 1 for group in groups):
        rest = tuple(training for group in groups[1:] for training in group.trainings)
        return [groups[0], Group("the others", rest)]
    return groups


def _winner_of(folder: Path) -> tuple[Training, ...]:
    groups = groups_of_run(RunFolder.open(folder))
    if not groups or groups[0].name != WINNER:
        raise NasrayError(f"no winner was trained in {folder} yet. `nasray train {folder} --recipe ...` trains it")
    return groups[0].trainings


def architecture_name(architecture: Architecture) -> str:
    """Return the name of a published architecture, or the id of another."""
    return next((name for name, known in ARCHITECTURES.items() if known == architecture), architecture.id)


def _finished(folders: Iterable[Path]) -> list[Training]:
    """Return the finished trainings among folders, each architecture with each seed once."""
    found: dict[tuple[str, int], Training] = {}
    for folder in folders:
        if is_training(folder) and is_finished(folder):
            description, best = read_description(folder), read_summary(folder)["best"]
            metric = next((name for name in METRICS if name in best), None)
            if metric is None:
                raise NasrayError(
                    f"{folder} was never validated: there is no figure to compare. Give its data a split val"
                )
            training = Training(description.architecture.id, description.recipe.seed, float(best[metric]), folder)
            found.setdefault((training.architecture, training.seed), training)
    return list(found.values())


def compare(groups: Sequence[Group]) -> dict[str, Any]:
    """Compare the first group with each of the others.

    Returns:
        JSON-serializable: `metric`; `groups`, each with its trainings, `num` independent values, `mean`, `sd`, `low`,
        `high` (see `mean_interval`); `comparisons` of the first group, each `with` another, with `difference`, `low`,
        `high`, `smallest`, `likely`, `verdict` (see `compare_groups`); `notes`, sentences on what was not done alike.

    Raises:
        NasrayError: for trainings of different metrics.
    """
    trainings = [training for group in groups for training in group.trainings]
    first, metric = read_description(trainings[0].folder), _metric(trainings[0])
    notes: dict[str, list[Path]] = {}
    for training in trainings[1:]:
        if _metric(training) != metric:
            raise NasrayError(
                f"{training.folder} has {_metric(training)}, {trainings[0].folder} has {metric}: a classifier is not "
                "compared with a detector. Leave one of them out"
            )
        if difference := _difference(first, read_description(training.folder)):
            notes.setdefault(difference, []).append(training.folder)
    described = [
        {
            "name": group.name,
            "architectures": group.num_architectures,
            "trainings": [training.to_json() for training in group.trainings],
            **_mean(group.values),
        }
        for group in groups
    ]
    comparisons = []
    for other in groups[1:]:
        found = dataclasses.asdict(compare_groups(groups[0].values, other.values))
        comparisons.append({"group": groups[0].name, "with": other.name, **found})
    sentences = [_note(difference, folders) for difference, folders in notes.items()]
    return {"metric": metric, "groups": described, "comparisons": comparisons, "notes": sentences}


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """Return `mean_interval` as a dict, its interval within what mAP and accuracy can be."""
    found = dataclasses.asdict(mean_interval(values))
    if found["low"] is not None:
        found |= {"low": max(found["low"], 0.0), "high": min(found["high"], 1.0)}
    return found


def _metric(training: Training) -> str:
    best = read_summary(training.folder)["best"]
    return next(name for name in METRICS if name in best)


def _difference(one: Description, other: Description) -> str:
    """Return in which keys two recipes differ, beyond those that may differ; empty where in none."""
    before, after = _compared_keys(one), _compared_keys(other)
    keys = [key for key in (before | after) if before.get(key) != after.get(key)]
    names = [f"{key} {after.get(key)} instead of {before.get(key)}" for key in keys[:MAX_DIFFERENCES]]
    more = [f"and {len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else []
    return ", ".join([*names, *more])


def _compared_keys(description: Description) -> dict[str, Any]:
    """Return a recipe's keys, `schedule.epochs` and so on, without those in which compared trainings may differ."""
    content = RECIPE.dump_python(description.recipe, mode="json")
    keys: dict[str, Any] = {}
    for key, value in content.items():
        if key == "continues":  # each goes on with a training of its own
            value = value is not None
        if key not in OWN_KEYS:
            keys |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
    return keys


def _note(difference: str, folders: list[Path]) -> str:
    more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
    verb = "were" if more else "was"
    return f"{folders[0]}{more} {verb} trained otherwise: {difference}"


def verdict_sentence(result: dict[str, Any], found: dict[str, Any]) -> str:
    """Return a comparison of `compare` as a sentence for its reader.

    Args:
        result: What `compare` returned.
        found: One of its `comparisons`.
    """
    metric, other = result["metric"], found["with"]
    by_name = {group["name"]: group for group in result["groups"]}
    mine, theirs = by_name[found["group"]], by_name[other]
    if found["verdict"] == "too few to tell":
        why = "so few trainings say" if mine["num"] == theirs["num"] == 1 else "figures that are all alike say"
        both = f"{_named(mine)} {metric} {mine['mean']:.4f}, {_named(theirs)} {theirs['mean']:.4f}"
        return _sentence(f"{both}: {why} nothing about chance")
    verb = {"better": "is better than", "worse": "is worse than"}.get(found["verdict"], "cannot be told apart from")
    ending = ""
    if found["verdict"] == "cannot be told apart":
        ending = (
            f"; a difference of less than {found['smallest']:.4f} could not have been seen, one of "
            f"{found['likely']:.4f} would have been in about {POWER:.0%} of such comparisons"
        )
    text = (
        f"{_named(mine)} {verb} {_named(theirs)}: {metric} {mine['mean']:.4f} against {theirs['mean']:.4f}, difference "
        f"{found['difference']:+.4f} (95 % interval {found['low']:+.4f} to {found['high']:+.4f}){ending}"
    )
    return _sentence(text)


def _sentence(text: str) -> str:
    """Return a text with a capital, unless it begins with a name."""
    return f"The{text[3:]}" if text.startswith("the ") else text


def _named(group: dict[str, Any]) -> str:
    """Return a group's name with its number of architectures and trainings."""
    names = {WINNER: "the winner", RANDOM: "random choice"}
    group = {**group, "name": names.get(group["name"], group["name"])}
    num, trainings = group["architectures"], len(group["trainings"])
    if num > 1:
        several = f", {trainings} trainings" if trainings > num else ""
        return f"{group['name']} ({num} architectures{several})"
    return f"{group['name']} ({trainings} training{'s' * (trainings != 1)})"
