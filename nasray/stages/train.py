"""The stage that trains: a supernet, or architectures by themselves, all with the same recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from nasray.cluster import RunFolder
from nasray.cluster.leaders import Entry
from nasray.cluster.progress import counted, say
from nasray.cluster.training import Group, num_places
from nasray.counting import costs_of
from nasray.experiment import Experiment
from nasray.models.supernets import PATHS, supernet_architecture
from nasray.options import options_of
from nasray.parts import Parts
from nasray.recipe import Recipe
from nasray.spaces import Architecture, NasrayError
from nasray.spaces.ranges import Range
from nasray.spaces.references import From, Output
from nasray.stages.base import RANDOM, SUPERNET, Site, Stage, Work, file_digest, text_digest
from nasray.stages.outlook import Effort
from nasray.stages.trainings import checkpoints_gib, training_effort, training_folders
from nasray.training import finish_training, try_out
from nasray.training.folder import is_finished, is_training, last_checkpoint, read_summary
from nasray.training.jobs import TrainingJob, train_all
from nasray.training.schedules import refuse_other_schedule

FIGURES = ("mAP", "AP50", "top1")


@dataclass(frozen=True)
class Training:
    """One training of a stage.

    Attributes:
        folder: Its folder.
        architecture: What is trained.
        repeat: Number of it among the trainings of the architecture, counted from 0.
    """

    folder: Path
    architecture: Architecture
    repeat: int


class TrainStage(Stage):
    """Train a supernet, or architectures by themselves.

    Args:
        of: `supernet`, a stage whose best architectures are taken, or a list of named architectures, files, folders of
            runs, `random-N` for N random architectures of the space within the budget, and `NAME@budget` for the widest
            scaling of a named network within the budget's gmacs.
        top: Architectures taken of a stage, best first.
        repeats: Trainings of each architecture, with seeds that count up from the experiment's.
        recipe: Recipe of the trainings; the experiment's if left out.
        data: Data of the trainings, instead of the experiment's.
        weights: Stage or checkpoint from which weights are taken: of the same architecture where it trains several, of
            the path where it is a supernet's.
        continues: Stage or checkpoint whose training is gone on with, by the same schedule: weights, optimizer and
            iteration are taken up.
        until: Epochs of the schedule after which it ends; another stage goes on from there.
        epochs: Epochs of the schedule, instead of the recipe's.
        within: Values that genes of the supernet's paths may have, by the last word of the genes' names, such as
            `{width: [80, 100]}`.
        pruned: Stage that pruned the space, or its file: paths with pruned operations, and those that the path filter
            scores below the thresholds, are not trained.
        draw: How paths are drawn: `genes`, gene by gene, depths first; `uniform`; or `buckets`, an interval of costs
            uniformly and a path uniformly within. What the recipe's `paths` say if left out, `genes` with `pruned`.
        sort_channels: Whether channels inside the supernet's blocks are put in the order of their importance first.
        distil: Stage or checkpoint of a classifier whose probabilities are learned beside the labels.
    """

    gives = frozenset({"checkpoint", "architectures"})

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        of: Annotated[str | tuple[str, ...], From("architectures")],
        top: Annotated[int, Range(1, 1000)] = 1,
        repeats: Annotated[int, Range(1, 1000)] = 1,
        recipe: str | None = None,
        data: str | None = None,
        weights: Annotated[str, From("checkpoint")] | None = None,
        continues: Annotated[str, From("checkpoint")] | None = None,
        until: Annotated[float, Range(above=0)] | None = None,
        epochs: Annotated[float, Range(above=0)] | None = None,
        within: dict[str, tuple[int, ...]] | None = None,
        pruned: Annotated[str, From("restriction")] | None = None,
        draw: Literal["genes", "uniform", "buckets"] | None = None,
        sort_channels: bool = False,
        distil: Annotated[str, From("checkpoint")] | None = None,
    ) -> None:
        self.of = (of,) if isinstance(of, str) else tuple(of)
        self.is_of_supernet = SUPERNET in self.of
        self.top, self.repeats, self.recipe, self.weights = top, repeats, recipe or experiment.recipe, weights
        self.data, self.continues, self.pruned, self.distil = data, continues, pruned, distil
        self.until, self.epochs, self.within, self.draw = until, epochs, within, draw
        self.sort_channels = sort_channels
        self.parts, self.seed, self.supernet = parts, experiment.seed, experiment.supernet
        self.space = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(experiment.space).items()
            if value is not None
        }
        self.counted = experiment.counted if experiment.costs == "detector" else None
        if not self.of:
            raise NasrayError("of is empty. Name `supernet`, a stage, or architectures")
        if self.is_of_supernet and (len(self.of) > 1 or top > 1 or repeats > 1):
            raise NasrayError("a supernet is trained once and alone: leave out top, repeats, and other architectures")
        of_paths = {"within": within, "pruned": pruned, "draw": draw, "sort_channels": sort_channels}
        if (given := [name for name, value in of_paths.items() if value]) and not self.is_of_supernet:
            raise NasrayError(f"{given[0]} is about the paths of a supernet, and this stage trains none. Leave it out")
        if continues and (weights or sort_channels):
            other = "weights" if weights else "sort_channels"
            raise NasrayError(f"continues takes up a whole training, its weights too: leave out {other}, or continues")

    def recipe_name(self) -> str:
        """See `Stage.recipe_name`.

        Raises:
            NasrayError: if neither stage nor experiment names one.
        """
        if self.recipe is None:
            raise NasrayError("a stage that trains needs a recipe: set its `recipe`, or that of the experiment")
        return self.recipe

    def own_recipe(self, recipe: Recipe) -> Recipe:
        """See `Stage.own_recipe`."""
        changes: dict[str, Any] = {}
        schedule: dict[str, Any] = {"epochs": self.epochs, "until": self.until}
        if given := {name: value for name, value in schedule.items() if value is not None}:
            changes["schedule"] = dataclasses.replace(recipe.schedule, **given)
        if self.data:
            changes["data"] = self.data
        if self.sort_channels:
            changes["sort_channels"] = True
        if self.within:
            changes["within"] = self.within
        if self.draw is not None:
            changes["paths"] = options_of(PATHS, self.draw)
        if self.is_of_supernet:
            changes["space"] = self.space
        if self.distil and recipe.task != "classification":
            raise NasrayError("distil is of classification: detectors learn from labels alone. Leave distil out")
        return dataclasses.replace(recipe, **changes)

    def recipe_of_others(self, site: Site, recipe: Recipe) -> Recipe:
        """Return the recipe by which others are trained as this stage's architectures are, one stage after the other.

        Where the stage goes on with another, so do they, each with its own training: `continues` names the stage.

        Args:
            site: Place of the stage.
            recipe: Its resolved recipe.
        """
        changes: dict[str, Any] = {"continues": self.continues} if self.continues else {}
        if self.distil:
            changes["distil"] = dataclasses.replace(recipe.distil, teacher=str(site.checkpoint(self.distil)))
        return dataclasses.replace(recipe, **changes)

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        if self.continues is not None and self.continues in site.recipes:
            before = site.recipes[self.continues]
            refuse_other_schedule(before, site.recipe, f"stage {self.continues}", before.schedule.end)
        recipe = self._with_files(site, site.recipe, lambda value: value not in site.stages)
        for architecture in self._samples(site):
            try_out(recipe, architecture)

    def _samples(self, site: Site) -> list[Architecture]:
        """Return what it trains as far as it is known before the run, one architecture of the space for what is not."""
        if not self.is_of_supernet and any(value in site.stages for value in self.of):
            return self._architectures(site, ("random-1",))
        return self._architectures(site, self.of)

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        folder = site.folder
        return is_finished(folder) if self._is_single(site) else RunFolder(folder).is_finished()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        trainings = self._trainings(site)
        workers = site.recipe.resources.workers
        if not self._is_single(site):
            summaries = self._train_all(site, trainings)
            entries = self._entries(site, trainings, summaries)
            name = next(iter(entries[0].metrics), "mAP")
            RunFolder(site.folder).write_best(
                {
                    "evaluations": len(trainings),
                    "finished": True,
                    "ended_early": None,
                    "objectives": [{"name": name, "direction": "max"}],
                    "best": [entry.to_json() for entry in entries],
                }
            )
            return {"trainings": len(trainings), "workers": workers, "id": entries[0].id, **entries[0].metrics}
        summary = finish_training(self._recipe(site, trainings[0]), site.folder, trainings[0].architecture)
        best = {name: summary["best"][name] for name in FIGURES if name in summary["best"]}
        return {"iterations": summary["iterations"], "workers": workers, **best}

    def checkpoint(self, site: Site, architecture: str | None, repeat: int) -> Path:
        """See `Stage.checkpoint`."""
        if self._is_single(site):
            path = last_checkpoint(site.folder)
        else:
            trainings = self._trainings(site)
            fitting = [each for each in trainings if each.architecture.id == architecture] or trainings
            path = last_checkpoint(fitting[repeat % self.repeats].folder)
        if not path.is_file():
            raise NasrayError(f"stage {site.name} is not trained yet. `nasray resume {site.run.path}` continues it")
        return path

    def digest(self, site: Site, what: Output) -> str:
        """See `Stage.digest`."""
        if what == "checkpoint" and not self._is_single(site):
            files = [last_checkpoint(training.folder) for training in self._trainings(site)]
            return text_digest("\n".join(map(file_digest, files)))
        return super().digest(site, what)

    def entries(self, site: Site) -> list[Entry]:
        """See `Stage.entries`."""
        if self._is_single(site):
            training = self._trainings(site)[0]
            return self._entries(site, [training], [read_summary(training.folder)])
        return super().entries(site)

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        num, recipe = self._num_trainings(site), site.recipe
        gib = num * checkpoints_gib(recipe, self._samples(site)[0])
        schedule = recipe.schedule
        text = f"{recipe.task} by recipe {recipe.name}, {counted(schedule.epochs, 'epoch')}"
        if schedule.until is not None:
            text += f" of which it ends after {schedule.until:g}"
        if self.within:
            text += "; paths with " + ", ".join(f"{word} {'/'.join(map(str, to))}" for word, to in self.within.items())
        return Work(trainings=num, text=text, gib=gib)

    def effort(self, site: Site) -> Effort | None:
        """See `Stage.effort`."""
        if self.continues is not None and self.continues not in site.recipes:  # a file, of who knows how many epochs
            return None
        begin = site.recipes[self.continues].schedule.end if self.continues is not None else 0.0
        num, recipe = self._num_trainings(site), site.recipe
        group = Group(**vars(recipe.resources))
        beside = 1 if group.workers > 1 else min(num, num_places(group) or num)  # as many as run at a time
        what = f"{'supernet' if self.is_of_supernet else beside}{' and its teacher' if self.distil else ''}"
        total = num * (recipe.schedule.end - begin)
        return training_effort(recipe, total, training_folders(site.folder), what, begin)

    # ---- what is trained, and where ------------------------------------------------------------------------------

    def _num_trainings(self, site: Site) -> int:
        return self.repeats * sum(self._num(site, value) for value in self.of)

    def _num(self, site: Site, value: str) -> int:
        if value != SUPERNET and value in site.stages:
            return self.top
        match = RANDOM.fullmatch(value)
        return int(match[1]) if match else 1

    def _is_single(self, site: Site) -> bool:
        """Return whether its folder is that of its one training, known before the run."""
        return self._num_trainings(site) == 1

    def _trainings(self, site: Site) -> list[Training]:
        architectures = self._architectures(site, self.of)
        if self._is_single(site):
            return [Training(site.folder, architectures[0], 0)]
        found = []
        for index, architecture in enumerate(architectures, 1):
            folder = site.folder / f"{index}-{architecture.id}"
            folders = [folder] if self.repeats == 1 else [folder / f"seed-{n}" for n in range(self.repeats)]
            found += [Training(folder, architecture, repeat) for repeat, folder in enumerate(folders)]
        return found

    def _architectures(self, site: Site, values: tuple[str, ...]) -> list[Architecture]:
        """Return what options name, each once."""
        found: dict[str, Architecture] = {}
        for value in values:
            if value == SUPERNET:
                some = [supernet_architecture(self.parts.space, self.supernet)]
            elif value in site.stages:
                some = [entry.architecture for entry in site.entries(value)[: self.top]]
            elif match := RANDOM.fullmatch(value):
                # Others than a search with the same seed begins with.
                some = self.parts.random_architectures(int(match[1]), self.seed + 1)
            else:
                some = [self.parts.named(value)]
            found |= {architecture.id: architecture for architecture in some}
        return list(found.values())

    def names(self, stages: Container[str]) -> dict[str, str]:
        """Return what `of` calls single architectures, by their ids: not random ones, the supernet, or those of stages.

        A file that is not there any more is told of, and has no name.

        Args:
            stages: Names of the run's stages.
        """
        found = {}
        for value in self.of:
            if value == SUPERNET or value in stages or RANDOM.fullmatch(value):
                continue
            try:
                found[self.parts.named(value).id] = value
            except NasrayError as error:
                say(f"what was trained of {value} is taken for a random architecture: {error}")
        return found

    def _train_all(self, site: Site, trainings: list[Training]) -> list[dict[str, Any]]:
        """Train all to their ends, and return the content of summary.json of each."""
        jobs = [
            TrainingJob(str(each.folder.relative_to(site.folder)), self._recipe(site, each), each.architecture)
            for each in trainings
        ]
        return list(train_all(jobs, site.folder).values())

    def _recipe(self, site: Site, training: Training) -> Recipe:
        """Return the recipe of a training."""
        recipe = dataclasses.replace(site.recipe, seed=site.recipe.seed + training.repeat)
        if is_training(training.folder):  # one that is begun has them in its own recipe
            return recipe
        return self._with_files(site, recipe, lambda _: True, training)

    def _with_files(
        self, site: Site, recipe: Recipe, is_known: Callable[[str], bool], training: Training | None = None
    ) -> Recipe:
        """Return a recipe with the paths of what its options name.

        Args:
            site: Place of the stage.
            recipe: Recipe without them.
            is_known: Function that says of a stage's name or a path whether it is there.
            training: Training that they are for, where a stage has several.
        """
        changes: dict[str, Any] = {}
        which = (training.architecture.id, training.repeat) if training is not None else (None, 0)
        for name, value in (("weights", self.weights), ("continues", self.continues)):
            if value and is_known(value):
                changes[name] = str(site.checkpoint(value, *which))
        if self.distil and is_known(self.distil):
            changes["distil"] = dataclasses.replace(recipe.distil, teacher=str(site.checkpoint(self.distil)))
        if self.pruned and is_known(self.pruned):
            file, draw = str(site.file(self.pruned, "restriction")), self.draw or "genes"
            changes["paths"] = options_of(PATHS, "accepted", pruned=file, counted=self.counted, draw=draw)
        return dataclasses.replace(recipe, **changes)

    def _entries(self, site: Site, trainings: list[Training], summaries: list[dict[str, Any]]) -> list[Entry]:
        """Return each architecture with the mean of its trainings' best figures, best first."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for training, summary in zip(trainings, summaries, strict=True):
            groups.setdefault(training.architecture.id, []).append(summary["best"])
        by_id = {training.architecture.id: training.architecture for training in trainings}
        entries = []
        for number, (key, figures) in enumerate(groups.items()):
            names = [name for name in FIGURES if all(name in each for each in figures)]
            means = {name: sum(each[name] for each in figures) / len(figures) for name in names}
            entries.append(Entry(by_id[key], number, means, costs_of(by_id[key], self.parts.cost, self.parts.space)))
        first = next(iter(entries[0].metrics), "")
        return sorted(entries, key=lambda entry: -entry.metrics.get(first, 0.0))
