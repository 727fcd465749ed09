"""What is known of how a score ranks architectures as their training does: what `nasray rank` left in a run's folder.

A measurement holds for the space whose architectures were trained, for the score with its options, and for the data
that they were trained on; so all of these stand in rank.json, and another run may be held against it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from nasray.cluster import RunFolder
from nasray.cluster.files import to_json
from nasray.cluster.reading import parse_json
from nasray.cluster.records import Rank, read_record
from nasray.evaluators import EVALUATORS, PathEvaluator
from nasray.options import options_of
from nasray.parts import why_unfit
from nasray.recipe import Recipe
from nasray.scores.ranking import MIN_NUM
from nasray.spaces import NasrayError, Space
from nasray.spaces.ranges import shortened
from nasray.stages import Plan

FOLDER = "rank"
"""Folder within a run for what `nasray rank` measures and trains."""

SUPERNET = "supernet"
"""What the mAP as a path of a supernet is called among the scores."""

PROXIES = ("entropy", "zen", "naswot", "synflow", "swap", "aznas")
"""Scores without training that are measured beside a run's own, each where it goes with the space."""

WITHOUT_EFFECT = ("device", "threads")
"""Options of a score that change no more than its last digits."""


class Agreement(NamedTuple):
    """How a score ranked architectures that were trained.

    Attributes:
        run: Run that measured it.
        found: Agreement of the score with mAP, as `rank_agreement` returns it; its figures are None where there are
            too few architectures.
        free: The same of multiply-adds, which need no score; None where they were not counted.
        recipe: Recipe of the trainings.
        data: Data of the trainings.
        budget: Bounds on the costs of the architectures.
    """

    run: RunFolder
    found: dict[str, Any]
    free: dict[str, Any] | None
    recipe: str
    data: str
    budget: dict[str, float]

    @property
    def is_stated(self) -> bool:
        """Whether there are enough architectures to say anything."""
        num, tau = self.found.get("num", 0), self.found["kendall"]["value"]
        return num >= MIN_NUM and tau is not None and tau == tau  # null is read as NaN


def chance_of_better(tau: float) -> float:
    """Return the probability, from 0 to 1, that of two architectures the better scored one is the better trained one.

    Of pairs without ties tau is the share that agrees less the share that does not.
    """
    return (1 + tau) / 2


def read_rank(run: RunFolder) -> dict[str, Any] | None:
    """Return what `nasray rank` found of a run; None if it was not measured."""
    path = run.path / FOLDER / "rank.json"
    return read_record(path, Rank, f"`nasray rank {run.path}` writes it anew") if path.is_file() else None


def known_agreement(plan: Plan, measured: RunFolder, *, named: bool = False) -> Agreement | None:
    """Return what a measurement says of the score that a run searches by.

    Args:
        plan: Plan of the run.
        measured: Run whose `nasray rank` measured it: the same run, or another one of the same space.
        named: Whether a user named it, who is told what is missing.

    Returns:
        The agreement; None where nothing is known, and nobody named the measurement.

    Raises:
        NasrayError: if the measurement was named and does not hold for this run; or if it is damaged.
    """
    result = read_rank(measured)
    reason = _why_foreign(plan, result)
    if result is None or reason:
        if named:
            raise NasrayError(f"{measured.path} {reason}")
        return None
    about, agreement = result["measured"], result["agreement"]
    return Agreement(
        measured,
        agreement[own_name(plan)],
        agreement.get("gmacs"),
        about["recipe"],
        about["data"],
        about["budget"],
    )


def _why_foreign(plan: Plan, result: dict[str, Any] | None) -> str:
    """Return why a rank.json says nothing of a run's score; nothing if it does."""
    if result is None:
        return "holds no measurement. `nasray rank` makes one"
    about, name = result.get("measured"), own_name(plan)
    if about is None:
        return (
            "was measured by an earlier version. The same `nasray rank` again adds what is missing, and trains nothing"
        )
    space = _plain(dataclasses.asdict(plan.experiment.space))
    if about["space"] != space:
        return f"measured another space: {_difference(about['space'], space)}. Name a run of the same space"
    if name not in about["scores"] or name not in result["agreement"]:
        return f"did not measure {name!r}, but {', '.join(about['scores'])}. Name a run that searched by it"
    options = score_options(plan)
    if about["scores"][name] != options:
        return f"measured {name!r} with other options: {_difference(about['scores'][name], options)}"
    return ""


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return in which options two parts differ."""
    keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    return ", ".join(f"{key} {shortened(theirs.get(key))} there, {shortened(ours.get(key))} here" for key in keys)


# ---- what is measured --------------------------------------------------------------------------------------------


def own_name(plan: Plan) -> str:
    """Return what the score of a run's search is called among the others: its evaluator's name, or `supernet`.

    Raises:
        NasrayError: if it is neither a zero-shot score nor the mAP of paths.
    """
    evaluator, options = plan.search.parts.evaluator, plan.search.experiment.evaluator
    assert options is not None
    name: str = options.part_name
    if isinstance(evaluator, PathEvaluator):
        return SUPERNET
    if not getattr(evaluator, "zero_shot", False):
        raise NasrayError(
            f"{plan.experiment.name} searches by evaluator {name!r}. Whether a score ranks as training does is "
            "measured of 'path', and of scores without training, such as entropy, zen and naswot"
        )
    return name


def proxy_options(space: Space) -> dict[str, dict[str, Any]]:
    """Return the scores of `PROXIES` that go with a space, and the options that are not their defaults.

    Images are of the size of the costs, but at most 224 pixels, which the scores were made for.
    """
    height, width = space.image_hw or (224, 224)
    sized = {"image_hw": (min(height, 224), min(width, 224))}
    fitting = [name for name in PROXIES if why_unfit(EVALUATORS.part(name), space) is None]
    return {name: {} if name == "entropy" else sized for name in fitting}


def describe_measured(plan: Plan, run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Return what `nasray rank` measures of a run, for itself and for others.

    Args:
        plan: Plan of the run.
        run: Its folder.
        recipe: Recipe of the last training of each architecture.

    Returns:
        JSON-serializable: `run`; `score`, the name of its own; `space` and `budget`; `scores`, the options of each
        zero-shot score by its name; `recipe` and `data`.
    """
    name = own_name(plan)
    scores = {
        other: _measuring(options_of(EVALUATORS, other, **options))
        for other, options in proxy_options(plan.parts.space).items()
        if other != "aznas"  # its sum of ranks is measured, which is no search's score
    }
    if name != SUPERNET:
        scores[name] = score_options(plan)
    bounds = vars(plan.search.experiment.budget)
    return {
        "run": run.path.name,
        "score": name,
        "space": _plain(dataclasses.asdict(plan.experiment.space)),
        "budget": {cost: bound for cost, bound in bounds.items() if bound is not None},
        "scores": scores,
        "recipe": recipe.name,
        "data": recipe.data,
    }


def score_options(plan: Plan) -> dict[str, Any]:
    """Return the name and the options of a search's evaluator, without those that do not change what it measures."""
    return _measuring(plan.search.experiment.evaluator)


def _measuring(options: Any) -> dict[str, Any]:
    plain = _plain(dataclasses.asdict(options))
    return {name: value for name, value in plain.items() if name not in WITHOUT_EFFECT}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as a file holds them: lists in place of tuples."""
    found: dict[str, Any] = parse_json(to_json(options), "options")
    return found
