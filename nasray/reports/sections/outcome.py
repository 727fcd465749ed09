"""What a user asks first: what did I get, is it better, what does it cost, how far did it go, what next."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from nasray.architectures import slots
from nasray.comparison import part_ids, verdict_sentence
from nasray.counting import costs_of
from nasray.evaluation.statistics import share_interval
from nasray.reports.data import finite_or_none
from nasray.reports.figures import Floats, label
from nasray.reports.pieces import NONE, answers, commands, cost, duration, facts, number, paragraph, shortest_path
from nasray.reports.section import Section, Subject
from nasray.searchers import RandomSearch
from nasray.spaces import NasrayError
from nasray.stages import read_records
from nasray.training.folder import is_finished, read_summary

NUM_RANDOM = 100
"""Random architectures that the winner's score is set beside, where scoring them takes a moment."""

MIN_RANDOM = 8
"""Fewest random architectures of the run itself that say anything."""

SOFT = "It is of the mixture of all choices, on the images that were held out."
"""What the figure of a gradient search's winner is, for a reader."""


def outcome_section(subject: Subject, describe: Any, comparison: dict[str, Any] | None) -> Section:
    """Return the opening of a run's page.

    Args:
        subject: The run.
        describe: Function that returns an architecture in a line of text.
        comparison: What `nasray.comparison.compare` says of the run; None where nothing was trained.
    """
    trained, chance = trained_figures(subject), random_scores(subject)
    reference = reference_figures(subject)
    rows: list[tuple[str, str | Markup]] = [
        ("What did I get?", _winner(subject, describe, trained)),
        ("Is it better?", _better(subject, comparison, chance, reference)),
        ("What does it cost?", _cost(subject)),
        ("How far did it go?", _progress(subject)),
        ("What next?", _next(subject, trained, comparison)),
    ]
    run = subject.run
    figures: dict[str, Any] = {
        "name": run.name,
        "objectives": [{"name": o.name, "direction": o.direction} for o in run.objectives],
        "evaluations": len(run.ids),
        "asked": run.asked,
        "finished": run.finished,
        "ended_early": run.ended_early,
        "batches": len(run.batch_ends),
        "not_finite": _num_unusable(subject),
        **run.timing._asdict(),
        "cost_scope": run.cost_scope,
        "best": run.entry(subject.best, subject.space),
        "trained": trained,
        "random_scores": chance,
        "reference": reference,
    }
    return Section("", facts(_facts(subject, trained)) + answers(rows), figures=figures)


# ---- figures -----------------------------------------------------------------------------------------------------


def trained_figures(subject: Subject) -> dict[str, float | None] | None:
    """Return the figures of the winner's own training; None where it was not trained."""
    folder = subject.winner_training
    if not is_finished(folder) or subject.run.ids[subject.best] not in part_ids(folder):
        return None
    return {name: finite_or_none(value) for name, value in read_summary(folder)["best"].items()}


def random_scores(subject: Subject) -> dict[str, Any] | None:
    """Return how the winner's score stands to those of random architectures within the budget.

    Where the evaluator computes in closed form, `NUM_RANDOM` are drawn and scored now; otherwise the run's own random
    ones are taken, those of its first sample. None where there is neither, or with several objectives.
    """
    run, objective = subject.run, subject.run.objectives[0]
    if len(run.objectives) > 1:
        return None
    values = _drawn_scores(subject) if getattr(subject.evaluator, "closed_form", False) else _own_random(subject)
    if values is None or len(values) < MIN_RANDOM:
        return None
    best = float(run.column(objective.name)[subject.best])
    beaten = int((values * objective.sign < best * objective.sign).sum())
    low, high = share_interval(len(values) - beaten, len(values))
    return {
        "num": len(values),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "best": float((values * objective.sign).max() * objective.sign),
        "beaten": beaten,
        "as_good": {"share": 1 - beaten / len(values), "low": low, "high": high},
    }


def _drawn_scores(subject: Subject) -> Floats | None:
    run = subject.run
    if any(name not in subject.cost(run.genes[:0]) for name in run.budget.names):
        return None  # a measured cost: it would have to be measured again
    try:
        genes = RandomSearch(subject.space, budget=run.budget, cost=subject.cost, seed=0).ask(NUM_RANDOM).genes
    except NasrayError:
        return None
    assert subject.evaluator is not None
    values = np.asarray(subject.evaluator(genes)[run.objectives[0].name], dtype=np.float64)
    return values[np.isfinite(values)]


def _own_random(subject: Subject) -> Floats | None:
    run = subject.run
    searcher = run.description.get("experiment", {}).get("searcher", {})
    is_sampled = isinstance(searcher, dict) and (searcher.get("name") == "random" or (searcher.get("initial") or 0) > 0)
    if run.parents is None or not is_sampled:
        return None
    values = run.column(run.objectives[0].name)[(run.parents < 0).all(axis=1)]
    return values[np.isfinite(values)]


def reference_figures(subject: Subject) -> dict[str, Any] | None:
    """Return costs and score of the reference, and of the run's best that costs no more.

    None without a reference whose costs are known. The score is None where the space does not hold the reference, or
    it is not known in closed form; the rival where nothing in the run costs as little.
    """
    if subject.reference is None:
        return None
    run, objective = subject.run, subject.run.objectives[0]
    costs = costs_of(subject.reference, subject.cost, subject.space)
    if not costs:
        return None
    found: dict[str, Any] = {"name": subject.reference_name, "costs": costs, "score": None, "rival": None}
    bounded = [name for name in run.budget.names if name in costs] or ["gmacs"]
    within = np.ones(len(run.ids), dtype=bool)
    for name in bounded:
        within &= run.column(name) <= costs[name]
    if within.any():
        rival = int(np.flatnonzero(within)[np.argmax(run.values[within, 0])])
        found["rival"] = {**run.entry(rival, subject.space), "no_more": bounded}
    if getattr(subject.evaluator, "closed_form", False):
        try:
            genes = subject.space.from_architecture(subject.reference)
        except ValueError:
            return found
        assert subject.evaluator is not None
        found["score"] = finite_or_none(float(subject.evaluator(genes[None])[objective.name][0]))
    return found


def _num_unusable(subject: Subject) -> int:
    return int((~np.isfinite(subject.run.values).all(axis=1)).sum())


# ---- as text -----------------------------------------------------------------------------------------------------


def _facts(subject: Subject, trained: dict[str, float | None] | None) -> list[tuple[str, str]]:
    run, best = subject.run, trained or {}
    found = {name: best[name] for name in ("mAP", "top1") if best.get(name) is not None}
    rows = [(f"{name} of the winner, trained", f"{value:.4f}") for name, value in found.items()]
    shown = list(dict.fromkeys([run.objectives[0].name, *run.costs]))
    for name in shown:
        what = f"best {label(name)}" if name == shown[0] else label(name)
        rows.append((what, number(float(run.column(name)[subject.best]), digits=5)))
    if len(run.objectives) > 1:
        rows.append(("on the Pareto front", f"{len(run.leaders):,}"))
    asked = f" of {run.asked:,}" if run.asked and run.asked != len(run.ids) else ""
    rows.append(("evaluations", f"{len(run.ids):,}{asked}"))
    if (seconds := _seconds(subject)) is not None:
        what = "time of all stages" if len(read_records(subject.folder)) > 1 else "time of the search"
        rows.append((what, duration(seconds)))
    return rows


def _seconds(subject: Subject) -> float | None:
    """Return the run's time: that of its stages, or where none are recorded from the first batch to the last."""
    records = read_records(subject.folder)
    return sum(entry["seconds"] for entry in records.values()) if records else subject.run.timing.seconds


def _winner(subject: Subject, describe: Any, trained: dict[str, float | None] | None) -> Markup:
    run, best = subject.run, subject.best
    architecture = subject.space.to_architecture(run.genes[best])
    many = len(run.objectives) > 1
    what = f"A Pareto front of {len(run.leaders):,} architectures; the best by {run.objectives[0].name} is"
    text = Markup("{} <code>{}</code>, evaluation {:,}: {}.").format(
        what if many else "Architecture", run.ids[best], best, describe(architecture)
    )
    parts = [paragraph(text)]
    if trained:
        names = ("mAP", "AP50", "AP75", "top1", "top5")
        shown = [f"{name} {trained[name]:.4f}" for name in names if trained.get(name) is not None]
        parts.append(paragraph(f"Trained by itself it reaches {', '.join(shown)} on the split val."))
    score = run.objectives[0].name
    value = number(float(run.column(score)[best]), digits=6)
    meaning = SOFT if subject.is_by_gradient else getattr(subject.evaluator, "meaning", "")
    parts.append(paragraph(f"Its {score} is {value}. {meaning}"))
    return NONE.join(parts)


def _better(
    subject: Subject,
    comparison: dict[str, Any] | None,
    chance: dict[str, Any] | None,
    reference: dict[str, Any] | None,
) -> Markup:
    parts = []
    if comparison and comparison["comparisons"]:
        parts += [paragraph(f"{verdict_sentence(comparison, found)}.") for found in comparison["comparisons"]]
    else:
        parts.append(
            paragraph("As a detector: not known yet. Nothing else was trained that it could be compared with.")
        )
    score = subject.run.objectives[0].name
    if chance:
        spread = ", ".join(
            f"{name} {number(chance[key])}"
            for name, key in (("mean", "mean"), ("standard deviation", "sd"), ("best", "best"))
        )
        text = f"better than {chance['beaten']} of {chance['num']} random architectures within the budget ({spread})"
        as_good = chance["as_good"]
        share = f"as good or better are {as_good['low']:.1%} to {as_good['high']:.1%} of all (95 % interval)"
        after = "Whether the largest of many scores makes a better detector, training says."
        if chance["beaten"] < chance["num"]:
            after = (
                f"Among {len(subject.run.ids):,} random ones, as many as were evaluated, a better one would be likely: "
                "search longer, or with another searcher."
            )
        parts.append(paragraph(f"By {score}: {text}; {share}. {after}"))
    if reference:
        parts.append(paragraph(_reference(subject, reference)))
    return NONE.join(parts)


def _reference(subject: Subject, reference: dict[str, Any]) -> str:
    objective = subject.run.objectives[0]
    score = objective.name
    costs = ", ".join(cost(name, value) for name, value in reference["costs"].items())
    known = reference["score"]
    text = f"The reference {reference['name']} costs {costs}; "
    text += "its score is not known" if known is None else f"its {score} is {number(known, digits=6)}"
    rival = reference["rival"]
    if rival is None:
        return f"{text}. Nothing in this run costs as little."
    value = rival["metrics"].get(score)
    mine = "–" if value is None else number(value, digits=6)
    costs = ", ".join(cost(name, rival["costs"][name]) for name in rival["no_more"])
    text += f". The best of this run that costs no more ({costs}): {mine}"
    if known is not None and value is not None:
        is_better = value * objective.sign > known * objective.sign
        text += ", which is better" if is_better else ", which is not better"
    return f"{text}."


def _cost(subject: Subject) -> Markup:
    run = subject.run
    if not run.costs:
        return paragraph("This space counts no costs.")
    costs = ", ".join(cost(name, float(values[subject.best])) for name, values in run.costs.items())
    scope = run.cost_scope
    where = ""
    if scope:
        size = "×".join(str(side) for side in scope.get("image_hw") or ())
        where = f", counted for the {scope.get('scope', 'architecture')}" + (f" at {size} pixels" if size else "")
    parts = [paragraph(f"{costs}{where}.")]
    shares = [
        f"{float(run.column(name)[subject.best]) / bound:.1%} of the bound {number(bound)} on {name}"
        for name, bound in run.budget.upper.items()
        if bound > 0 and name in run.costs
    ]
    if shares:
        parts.append(paragraph(f"That is {', '.join(shares)}."))
    return NONE.join(parts)


def _progress(subject: Subject) -> Markup:
    run, timing = subject.run, subject.run.timing
    done = f"{len(run.ids):,} evaluations"
    text = f"{done} of the {run.asked:,} that were asked for." if run.asked else f"{done}."
    if run.ended_early:
        text = f"{text} The search {run.ended_early}."
    elif not run.finished:
        text = f"{text} The search is not finished."
    if unusable := _num_unusable(subject):
        text += f" {unusable:,} of them have no finite value and are not drawn."
    parts = [paragraph(text)]
    if timing.seconds is not None:
        workers = f"{timing.workers} worker{'s' * (timing.workers != 1)}"
        busy = "" if timing.busy_share is None else f", busy {timing.busy_share:.0%} of it"
        again = "" if timing.sessions < 2 else f", in {timing.sessions} sessions"
        rate = timing.evaluations_per_second
        speed = "" if rate is None else f" ({number(rate, digits=3)} a second)"
        where = f"on {workers}{busy}{again}{speed}."
        took = f"The search took {duration(timing.seconds)} from its first batch to its last, "
        parts.append(paragraph(f"It evaluated {where}" if read_records(subject.folder) else took + where))
    return NONE.join(parts)


def _next(subject: Subject, trained: dict[str, float | None] | None, comparison: dict[str, Any] | None) -> Markup:
    run = str(shortest_path(subject.folder.path))
    lines: list[tuple[list[str], str]] = []
    if not subject.run.finished:
        lines.append((["nasray", "resume", run], "finish the search"))
    if len(subject.run.objectives) > 1:
        lines.append((["nasray", "front", run], "or the best within a budget"))
    if trained is None:
        lines.append((["nasray", "train", run], "train the winner"))
    else:
        lines.append((["nasray", "evaluate", run], "every class"))
    if not (comparison and comparison["comparisons"]):
        lines.append((["nasray", "compare", run, "--random", "5"], "is it better than chance?"))
    elif any(found["verdict"] != "better" for found in comparison["comparisons"]):
        lines.append((["nasray", "compare", run, "--random", "10", "--repeats", "3"], "with more trainings"))
    if hasattr(subject.evaluator, "supernet"):
        lines.append((["nasray", "front", run, "--latency"], "each as it would be exported, on this device"))
        how = "as it is in the supernet" if trained is None else "as it was trained"
        lines.append((["nasray", "export", run, "--to", "model.onnx"], how))
    (slot,) = slots(subject.space.to_architecture(subject.run.genes[subject.best]))
    if slot != "pyramid":
        lines.append((["nasray", "export", run, "--to", f"{slot}.py"], "plain PyTorch"))
    return commands(lines)
