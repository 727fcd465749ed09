"""The stage that searches by gradient: a relaxed supernet of which weights and architecture parameters move in turn.

Several seeds are trainings beside each other, trials of Ray Tune, of which the better ones alone may go on at rungs. At
the end every seed has a derived architecture. The winner is the one whose soft detector, the mixture of all choices,
has the highest mAP on the images that are held out.

Differs from the released code of FAD: see `nasray.training.bilevel`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nasray.cluster import RunFolder
from nasray.cluster.halving import Halving, read_decisions, run_halving
from nasray.cluster.leaders import make_entry
from nasray.cluster.progress import counted
from nasray.cluster.recorder import describe_costs
from nasray.experiment import Experiment
from nasray.models.supernets import supernet_architecture
from nasray.parts import Parts
from nasray.recipe import Recipe
from nasray.recipe_options import AlphaOptions
from nasray.spaces import NasrayError
from nasray.spaces.ranges import Range
from nasray.spaces.references import From
from nasray.stages.base import Site, Stage, Work
from nasray.stages.outlook import Effort
from nasray.stages.trainings import checkpoints_gib, training_effort
from nasray.training import try_out
from nasray.training.folder import is_training, last_checkpoint
from nasray.training.jobs import TrainingJob, train_to

LEARNING_RATE = 3e-4
"""Of architecture parameters where nobody says another: that of FAD's released configuration."""
SEEDS = "seeds"
"""Folder of the trainings, one of each seed, within that of the stage."""


@dataclass(frozen=True)
class Outcome:
    """What a seed came to.

    Attributes:
        seed: Number of the seed, counted from 0.
        entry: Its derived architecture, as best.json holds it.
        mean_ap: mAP of its soft detector on the images that are held out.
        collapse: Why its search counts as collapsed; None if it does not.
        stopped_after: Epochs after which halving stopped it; None if it came to the end.
    """

    seed: int
    entry: dict[str, Any]
    mean_ap: float
    collapse: str | None
    stopped_after: float | None

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """The smaller the better: a collapsed one never wins over one that is not, nor a stopped one over the others.

        Among these the higher mAP wins; of equal ones the lower seed.
        """
        mean_ap = self.mean_ap if self.mean_ap == self.mean_ap else -1.0
        return self.collapse is not None, self.stopped_after is not None, -mean_ap, self.seed

    def to_json(self) -> dict[str, Any]:
        """Return the entry of best.json."""
        return {**self.entry, "seed": self.seed, "collapse": self.collapse, "stopped_after": self.stopped_after}


class GradientStage(Stage):
    """Search by gradient: train a relaxed supernet and its architecture parameters, and derive an architecture.

    Args:
        recipe: Recipe of the trainings; the experiment's if left out.
        seeds: Trainings, with seeds that count up from the experiment's; images are held out once for all.
        alpha: How the architecture parameters move; as the recipe says if left out, with a learning rate of 0.0003
            where it says none.
        weights: Stage or checkpoint from which weights are taken, instead of the recipe's.
        halving: Epochs after which seeds are compared, and the share of them that goes on; all come to the end if left
            out.
    """

    gives = frozenset({"architectures", "checkpoint"})
    leads = True
    is_of_supernet = True

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        recipe: str | None = None,
        seeds: Annotated[int, Range(1, 1000)] = 1,
        alpha: AlphaOptions | None = None,
        weights: Annotated[str, From("checkpoint")] | None = None,
        halving: Halving | None = None,
    ) -> None:
        self.recipe, self.seeds, self.alpha = recipe or experiment.recipe, seeds, alpha
        self.weights, self.halving = weights, halving
        self.parts, self.seed = parts, experiment.seed
        self.supernet = supernet_architecture(parts.space, experiment.supernet)
        if halving is not None and seeds == 1:
            raise NasrayError("halving compares seeds, and there is one. Set seeds, or leave halving out")

    def recipe_name(self) -> str:
        """See `Stage.recipe_name`.

        Raises:
            NasrayError: if neither stage nor experiment names one.
        """
        if self.recipe is None:
            raise NasrayError("a gradient search needs a recipe: set its `recipe`, or that of the experiment")
        return self.recipe

    def own_recipe(self, recipe: Recipe) -> Recipe:
        """See `Stage.own_recipe`."""
        if self.halving is not None:
            _check_rungs(self.halving, recipe)
        alpha = self.alpha or recipe.alpha
        if not alpha.is_searched:
            alpha = dataclasses.replace(alpha, learning_rate=LEARNING_RATE)
        return dataclasses.replace(recipe, alpha=alpha)

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        is_file = self.weights is not None and self.weights not in site.stages
        try_out(self._with_weights(site) if is_file else site.recipe, self.supernet)

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return RunFolder(site.folder).is_finished()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        if not self.is_done(site):
            labels = [f"{SEEDS}/{seed}" for seed in range(self.seeds)]
            run_halving(labels, self.halving, site.folder, lambda left, rung: self._train(site, left, rung))
            self._write_best(site)
        winner = RunFolder(site.folder).read_best()["best"][0]
        collapsed = {"collapsed": "yes"} if winner["collapse"] else {}
        return {"id": winner["id"], "mAP": winner["metrics"]["mAP"], "seed": winner["seed"], **collapsed}

    def checkpoint(self, site: Site, architecture: str | None, repeat: int) -> Path:
        """See `Stage.checkpoint`; that of the winning seed."""
        if not self.is_done(site):
            raise NasrayError(f"stage {site.name} is not finished. `nasray resume {site.run.path}` continues it")
        return last_checkpoint(seed_folder(site.folder, RunFolder(site.folder).read_best()["best"][0]["seed"]))

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        recipe = site.recipe
        text = f"gradient search by recipe {recipe.name}, {counted(recipe.schedule.epochs, 'epoch')}"
        if recipe.alpha.warm_up:
            text += f", the first {recipe.alpha.warm_up:g} of weights alone"
        if self.halving is not None:
            rungs = ", ".join(f"{rung:g}" for rung in self.halving.rungs)
            text += f"; after {rungs} the best {self.halving.keep:.0%} of the seeds go on"
        return Work(trainings=self.seeds, text=text, gib=self.seeds * checkpoints_gib(recipe, self.supernet))

    def effort(self, site: Site) -> Effort:
        """See `Stage.effort`."""
        end = site.recipe.schedule.end
        total = self.seeds * end if self.halving is None else self.halving.total_epochs(self.seeds, end)
        folders = [seed_folder(site.folder, seed) for seed in range(self.seeds)]
        return training_effort(site.recipe, total, folders, f"{self.seeds} seeds of a gradient search")

    # ---- the seeds -----------------------------------------------------------------------------------------------

    def _train(self, site: Site, labels: Any, rung: float | None) -> dict[str, float]:
        """Train seeds up to a rung, or to the end, and return the mAP of each by its label."""
        jobs = [
            TrainingJob(label, self._recipe(site, int(label.rpartition("/")[2])), self.supernet, rung)
            for label in labels
        ]
        found = train_to(jobs, site.folder)
        return {label: metrics.get("mAP", float("nan")) for label, metrics in found.items()}

    def _recipe(self, site: Site, seed: int) -> Recipe:
        is_begun = is_training(seed_folder(site.folder, seed))  # then it has them in its own recipe
        recipe = site.recipe if is_begun else self._with_weights(site)
        return dataclasses.replace(recipe, seed=recipe.seed + seed, holdout_seed=recipe.seed)

    def _with_weights(self, site: Site) -> Recipe:
        if self.weights is None:
            return site.recipe
        return dataclasses.replace(site.recipe, weights=str(site.checkpoint(self.weights)))

    # ---- what they came to ---------------------------------------------------------------------------------------

    def _write_best(self, site: Site) -> None:
        found = sorted((self._outcome(site, seed) for seed in range(self.seeds)), key=lambda outcome: outcome.rank)
        space, cost = self.parts.space, self.parts.cost
        RunFolder(site.folder).write_best(
            {
                "evaluations": self.seeds,
                "finished": True,
                "ended_early": None,
                "objectives": [{"name": "mAP", "direction": "max"}],
                "cost_scope": describe_costs(cost, space, list(found[0].entry["costs"])),
                "choices": [*(each.name for each in space.chosen), "none"],
                "best": [outcome.to_json() for outcome in found],
            }
        )

    def _outcome(self, site: Site, seed: int) -> Outcome:
        """Return what a seed came to, as its last checkpoint says."""
        from nasray.checkpoint import Checkpoint
        from nasray.training.bilevel import collapse, derived, entropy_and_none

        checkpoint = Checkpoint.load(last_checkpoint(seed_folder(site.folder, seed)), shared=True)
        row, shares = derived(checkpoint.network())
        space, mean_ap = self.parts.space, checkpoint.metrics.get("mAP", float("nan"))
        entropy, none = entropy_and_none(shares)
        costs = {name: float(value[0]) for name, value in self.parts.cost(row[None]).items()}
        metrics = {"mAP": mean_ap, "entropy": entropy, "none": none}
        entry = make_entry(space, row, seed, metrics, costs)
        return Outcome(
            seed=seed,
            entry={**entry.to_json(), "shares": shares},
            mean_ap=mean_ap,
            collapse=collapse(shares, chosen_on_edges(entry.architecture.spec)),
            stopped_after=stopped_after(site.folder, seed),
        )


def seed_folder(folder: Path, seed: int) -> Path:
    """Return the folder of a seed's training, within that of its stage."""
    return folder / SEEDS / str(seed)


def stopped_after(folder: Path, seed: int) -> float | None:
    """Return the epochs after which halving stopped a seed; None if it did not, so far."""
    label = f"{SEEDS}/{seed}"
    for decision in read_decisions(folder):
        if label in decision["scores"] and label not in decision["left"]:
            return float(decision["epochs"])
    return None


def chosen_on_edges(spec: Any) -> list[str]:
    """Return the names of what a derived head has on its edges."""
    return [name for group in spec["groups"].values() for node in group["nodes"] for _, name in node]


def _check_rungs(halving: Halving, recipe: Recipe) -> None:
    """Refuse rungs at which there is no validation, or that are not before the end.

    Raises:
        NasrayError: naming the first.
    """
    end, every = recipe.schedule.end, recipe.evaluate_every
    for rung in halving.rungs:
        if rung >= end:
            raise NasrayError(f"halving.rungs: {rung:g} is not before the end after {counted(end, 'epoch')}. Lower it")
        if abs(rung / every - round(rung / every)) > 1e-9:
            raise NasrayError(
                f"halving.rungs: there is no validation after {counted(rung, 'epoch')}; there is one every {every:g} "
                "of them (the recipe's evaluate_every). Take multiples of that"
            )
    if recipe.resources.workers > 1:
        raise NasrayError(
            f"halving is of trainings with one worker each, and recipe {recipe.name} has {recipe.resources.workers}. "
            "Set resources.workers to 1, or leave halving out"
        )
