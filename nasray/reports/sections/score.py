"""What is known of a zero-shot score: whether it ranks architectures as their training does, on data of which kind."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from nasray.cluster.progress import counted
from nasray.measured import Agreement, chance_of_better, known_agreement, own_name
from nasray.reports.data import finite_or_none
from nasray.reports.pieces import NONE, commands, number, paragraph, shortest_path
from nasray.reports.section import Section, Subject
from nasray.stages import winner_stages
from nasray.training.folder import is_training, read_description

NUM = 12
"""Architectures of the command that measures; `nasray rank` has as many by default."""

TITLE = "Does the score choose what trains well?"


def score_sections(subject: Subject) -> list[Section]:
    """Return what is known of the score of a run that searches without training; nothing for other runs.

    Raises:
        NasrayError: if a measurement was named that does not hold for this run.
    """
    if subject.plan is None or not getattr(subject.evaluator, "zero_shot", False):
        return []
    name = own_name(subject.plan)
    measured = subject.measured or subject.folder
    known = known_agreement(subject.plan, measured, named=subject.measured is not None)
    if known is None:
        return [Section(TITLE, _unknown(subject, name), figures={"score_agreement": {"score": name, "known": False}})]
    return [Section(TITLE, _known(subject, name, known), figures={"score_agreement": _figures(name, known)})]


def _figures(name: str, known: Agreement) -> dict[str, Any]:
    tau = known.found["kendall"] if known.is_stated else None
    return {
        "score": name,
        "known": known.is_stated,
        "num": known.found.get("num"),
        "kendall": tau,
        "chance_of_better": tau and {key: chance_of_better(value) for key, value in tau.items()},
        "gmacs": _stated(known.free),
        "recipe": known.recipe,
        "data": known.data,
        "budget": known.budget,
        "measured_in": str(known.run.path),
    }


# ---- what is not known -------------------------------------------------------------------------------------------


def _unknown(subject: Subject, name: str) -> Markup:
    """Return that nothing is known, and the commands that measure it."""
    text = (
        f"Nothing is known of whether {name} ranks the architectures of this space as their training does, on data of "
        "your kind or any other: it was not measured. The winner is the best by its score, and may be no better a "
        "detector than a random architecture within the same budget. This measures it, and can be interrupted:"
    )
    run = str(shortest_path(subject.folder.path))
    lines = [
        (["nasray", "rank", run, "--architectures", str(NUM)], f"train {NUM} random ones as the winner is trained")
    ]
    assert subject.plan is not None
    if not winner_stages(subject.plan) and not is_training(subject.winner_training):
        train = ["nasray", "train", run, "--recipe", "cpu-scratch", "--data", "DATA"]
        lines.insert(0, (train, "the recipe and the data that all are trained by; `nasray list recipes`"))
    lines.append((["nasray", "report", run, "--measured", "RUN"], "if it was measured in another run of this space"))
    return paragraph(text) + commands(lines)


# ---- what is known -----------------------------------------------------------------------------------------------


def _known(subject: Subject, name: str, known: Agreement) -> Markup:
    num = known.found.get("num", 0)
    where = "" if known.run is subject.folder else f" by `nasray rank` in {shortest_path(known.run.path)}"
    begin = (
        f"Measured{where} on {counted(num, 'random architecture')} of this space within {_bounds(known.budget)}, each "
        f"trained once by recipe {known.recipe} on {known.data}"
    )
    more = commands([(_rank_command(known, num), "with more architectures")])
    if not known.is_stated:
        text = f"{begin}: too few, or too much alike, to say how {name} agrees with training."
        return NONE.join([paragraph(text), more])
    tau = known.found["kendall"]
    parts = [
        f"{begin}: Kendall\u2019s tau of {name} with mAP is {_interval(tau)}.",
        f"So of two such architectures the better scored one is the better trained one with a chance of "
        f"{_chances(tau)}; a coin has 50 %. {_verdict(name, tau)}",
        _free(known, tau),
        "Random architectures differ more than the best of a search do, among which a score tells less.",
        *_other_data(subject, known),
        *_other_budget(subject, known),
    ]
    html = NONE.join(paragraph(part) for part in parts if part)
    return html if tau["low"] > 0 or tau["high"] < 0 else html + more


def _verdict(name: str, tau: dict[str, float]) -> str:
    """Return what the interval means for choosing."""
    if tau["low"] > 0:
        return f"Choosing by {name} is better than choosing at random here."
    if tau["high"] < 0:
        return f"Choosing by {name} is worse than choosing at random here: take another score."
    return (
        f"That cannot be told from a coin: whether choosing by {name} is better than choosing at random is not known."
    )


def _free(known: Agreement, tau: dict[str, float]) -> str:
    """Return how multiply-adds do, which cost nothing."""
    free = _stated(known.free)
    if free is None:
        return ""
    more = ", no less than the score\u2019s" if free["value"] >= tau["value"] else ""
    return f"Multiply-adds, which need no score, have a tau of {_interval(free)}{more}."


def _stated(found: dict[str, Any] | None) -> dict[str, float] | None:
    """Return tau and its interval; None where they are not stated."""
    tau: dict[str, float] | None = found and found["kendall"]
    return None if tau is None or finite_or_none(tau["value"]) is None else tau


def _other_data(subject: Subject, known: Agreement) -> list[str]:
    """Return that the winner was trained on other data, if it was trained."""
    if not is_training(subject.winner_training):
        return []
    data = read_description(subject.winner_training).recipe.data
    if data == known.data:
        return []
    return [f"The winner was trained on {data}, which may be data of another kind."]


def _other_budget(subject: Subject, known: Agreement) -> list[str]:
    """Return that this run searches within another budget, if it does."""
    assert subject.plan is not None
    bounds = vars(subject.plan.search.experiment.budget)
    own = {cost: bound for cost, bound in bounds.items() if bound is not None}
    if own == known.budget:
        return []
    return [f"This run searches within {_bounds(own)}; how well any score ranks depends on how much they differ."]


def _bounds(budget: dict[str, float]) -> str:
    """Return bounds on costs as a text."""
    texts = [
        f"{cost.removeprefix('min_')} {'from' if cost.startswith('min_') else 'up to'} {number(bound)}"
        for cost, bound in budget.items()
    ]
    return f"the budget ({', '.join(texts)})" if texts else "no budget"


def _interval(tau: dict[str, float]) -> str:
    value, low, high = (f"{tau[key]:.2f}".replace("-", "\u2212") for key in ("value", "low", "high"))
    return f"{value} (95 % interval {low} to {high})"


def _chances(tau: dict[str, float]) -> str:
    value, low, high = (f"{chance_of_better(tau[key]):.0%}".replace("%", " %") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _rank_command(known: Agreement, num: int) -> list[str]:
    return ["nasray", "rank", str(shortest_path(known.run.path)), "--architectures", str(max(2 * num, 2 * NUM))]
