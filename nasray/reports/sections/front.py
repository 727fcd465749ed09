"""Fronts: the best architectures of a run as `nasray front` draws them, and what a search gained over chance.

Reference: Oyama et al., "DetOFA", section 3.1: architectures are set beside others of the same range of costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.cluster import RunFolder
from nasray.cluster.leaders import Entry
from nasray.reports.data import Floats, box_shares, finite_or_none
from nasray.reports.figures import BLUE, GREEN, MUTED, RED, Plot, label, ticks
from nasray.reports.pieces import number, numbers, paragraph, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.bands import bucket_names, buckets_of, draw_bands
from nasray.searchers import Objective
from nasray.spaces.buckets import Buckets
from nasray.stages import SEARCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nasray.beside import Trained
    from nasray.latency.front import FrontLatency


def front_plots(
    entries: Sequence[Entry],
    objectives: Sequence[Objective],
    chosen: Entry | None = None,
    latency: FrontLatency | None = None,
    fast: NDArray[np.bool_] | None = None,
    beside: Sequence[Trained] = (),
) -> tuple[Plot, ...]:
    """Return the first objective over each other one, or of a single objective over the first cost.

    Args:
        entries: Entries of best.json.
        objectives: Objectives of the run.
        chosen: The one that is marked.
        latency: Measured latency of them, or of the chosen one, over which the objective is drawn too.
        fast: (N,) whether an entry is on the front of latency.
        beside: Detectors that were trained by themselves, drawn over costs.
    """
    first, is_front = objectives[0], len(objectives) > 1
    names = [objective.name for objective in objectives[1:]] or list(entries[0].costs)[:1]
    plots = [
        Plot(
            "front" if len(names) == 1 else f"front-{name}",
            f"{first.name} over {name} of the {len(entries)} best architectures",
            partial(draw_front, entries=entries, x=name, y=first.name, is_front=is_front, chosen=chosen, beside=beside),
        )
        for name in names
    ]
    if latency is not None and fast is not None and chosen is None:
        text = f"{first.name} over measured latency of the {len(entries)} best architectures"
        drawn = partial(draw_latency, entries=entries, y=first.name, is_front=is_front, latency=latency, fast=fast)
        plots.append(Plot("front-latency", text, drawn))
    return tuple(plots)


def draw_front(
    axes: Axes,
    *,
    entries: Sequence[Entry],
    x: str,
    y: str,
    is_front: bool,
    chosen: Entry | None,
    beside: Sequence[Trained] = (),
) -> None:
    """Draw entries as dots, those of a front with a line, the chosen one, and detectors trained by themselves."""
    points = sorted((entry.figures[x], entry.figures[y]) for entry in entries)
    name = "Pareto front" if is_front else "the best"
    axes.plot(
        *zip(*points, strict=True), "o-" if is_front else "o", color=BLUE, markersize=3.5, linewidth=1, label=name
    )
    if chosen is not None:
        axes.plot(chosen.figures[x], chosen.figures[y], "D", color=RED, markersize=6, label="best within the budget")
    known = [each for each in beside if x in each.figures]
    if known:
        _draw_beside(axes, known, x, y)
    _finish(axes, label(x), label(y))


def _draw_beside(axes: Axes, known: Sequence[Trained], x: str, y: str) -> None:
    points = [(each.figures[x], each.figures[y]) for each in known]
    axes.plot(*zip(*points, strict=True), "s", color=GREEN, markersize=5, label="trained by itself")
    middle = sum(axes.get_xlim()) / 2
    for each, point in zip(known, points, strict=True):
        is_left = point[0] < middle  # names are written towards the middle, where there is room
        where: dict[str, Any] = {"xytext": (5 if is_left else -5, -2.5), "ha": "left" if is_left else "right"}
        axes.annotate(Path(each.name).stem, point, textcoords="offset points", fontsize=7, **where)


def draw_latency(
    axes: Axes, *, entries: Sequence[Entry], y: str, is_front: bool, latency: FrontLatency, fast: NDArray[np.bool_]
) -> None:
    """Draw entries over their latency, each with half of its spread to both sides; those with a line that are ahead."""
    values = np.array([entry.figures[y] for entry in entries])
    median, spread = (
        np.array([latency.rows[entry.id][name] for entry in entries]) for name in ("median_ms", "spread_ms")
    )
    name = "Pareto front" if is_front else "the best"
    axes.errorbar(median, values, xerr=spread / 2, fmt="o", color=BLUE, markersize=3.5, elinewidth=0.8, label=name)
    order = np.flatnonzero(fast)[np.argsort(median[fast], kind="stable")]
    axes.plot(median[order], values[order], "o-", color=RED, markersize=3.5, linewidth=1, label="front of latency")
    _finish(axes, f"latency of the {latency.what} (ms)", label(y))


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    ticks(axes.xaxis)
    ticks(axes.yaxis)


# ---- in a report -------------------------------------------------------------------------------------------------

RANDOM_SEARCHERS = ("random", "buckets")
"""Searchers that draw architectures by chance."""


def front_section(subject: Subject, stage: str) -> list[Section]:
    """Return the front of a run beside random architectures that another stage evaluated alike, bucket by bucket.

    None for other stages than the one whose best is the run's, for runs of one objective, and where there are neither
    buckets nor random architectures.
    """
    run = subject.run
    costs = [one.name for one in run.objectives[1:] if one.direction == "min" and one.name in run.costs]
    if stage != SEARCH or not costs:
        return []
    score, cost = run.objectives[0], costs[0]
    buckets, chance = buckets_of(subject, cost), random_points(subject, cost, score.name)
    if buckets is None and not len(chance):
        return []
    points = _finite_rows(run.column(cost), run.column(score.name))
    front = np.array([[entry.figures[cost], entry.figures[score.name]] for entry in _front(subject)])
    shares = _shares(points, chance, score) if len(chance) else None
    parts = []
    if shares:
        text = (
            f"The front of the {len(points):,} architectures that the search evaluated covers "
            f"{number(shares[0], digits=3)} of the box between the worst and the best {score.name} and {label(cost)} "
            f"of both; that of {len(chance):,} random ones, evaluated alike, {number(shares[1], digits=3)}."
        )
        parts.append(
            paragraph(text if len(points) == len(chance) else f"{text} The larger set covers more by chance alone.")
        )
    rows = bucket_rows(buckets, points, front, chance, score) if buckets else []
    if buckets and rows:
        parts.append(_bucket_table(buckets, rows, score.name, len(chance) > 0))
    names = (cost, score.name)
    plot = Plot(
        "front-buckets",
        f"{score.name} over {cost}: the front, what the search evaluated, and random architectures",
        partial(draw_against_chance, points=points, front=front, chance=chance, names=names, buckets=buckets),
        "Bands are buckets." if buckets else "",
    )
    figures = {
        "cost": cost,
        "edges": list(buckets.edges) if buckets else None,
        "evaluated": len(points),
        "random": len(chance),
        "hypervolume": None if shares is None else {"search": shares[0], "random": shares[1]},
        "buckets": rows,
    }
    return [Section("The front and chance", Markup("").join(parts), (plot,), {"front_against_chance": figures})]


def _front(subject: Subject) -> list[Entry]:
    return [Entry.from_json(subject.run.entry(int(index), subject.space)) for index in subject.run.leaders]


def _finite_rows(x: Floats, y: Floats) -> Floats:
    """Return (N, 2) pairs of which both are finite."""
    pairs = np.stack([x, y], axis=1).astype(np.float64)
    return pairs[np.isfinite(pairs).all(axis=1)]


def random_points(subject: Subject, cost: str, score: str) -> Floats:
    """Return (N, 2) costs and scores of the random architectures of stages whose evaluator is that of the search."""
    plan = subject.plan
    found = [np.empty((0, 2))]
    for name, stage in plan.stages.items() if plan else ():
        own = getattr(stage, "experiment", None)
        if plan is None or own is None or name == SEARCH or own.searcher.name not in RANDOM_SEARCHERS:
            continue
        folder = RunFolder(subject.folder.path / name)
        if own.evaluator != plan.search.experiment.evaluator or not any(folder.history.glob("*.parquet")):
            continue
        history = folder.read_history()
        if cost in history.costs and score in history.metrics:
            found.append(_finite_rows(history.costs[cost], history.metrics[score]))
    return np.concatenate(found)


def _shares(points: Floats, chance: Floats, score: Objective) -> tuple[float, float]:
    """Return the share of the box around two sets that the front of each covers."""
    values = [np.stack([part[:, 1] * score.sign, -part[:, 0]], axis=1) for part in (points, chance)]
    both = np.concatenate(values)
    low, high = both.min(axis=0), both.max(axis=0)
    ours, theirs = (float(box_shares(part, [len(part)], low, high)[0]) for part in values)
    return ours, theirs


def bucket_rows(
    buckets: Buckets, points: Floats, front: Floats, chance: Floats, score: Objective
) -> list[dict[str, Any]]:
    """Return for each bucket how many the search evaluated, how many are on the front, and the scores of both kinds.

    Args:
        buckets: Buckets of the cost.
        points: (N, 2) costs and scores of what the search evaluated.
        front: (F, 2) those of the front.
        chance: (M, 2) those of random architectures.
        score: Objective that the scores are of.

    Returns:
        Rows of `bucket`, `evaluated`, `on_front`, `best`, `random`, `random_mean`, `random_sd`, `random_best`; None for
        what is not known.
    """
    rows = []
    for bucket in range(len(buckets)):
        ours, theirs = (part[buckets.of(part[:, 0]) == bucket, 1] for part in (points, chance))
        rows.append(
            {
                "bucket": bucket,
                "evaluated": len(ours),
                "on_front": int((buckets.of(front[:, 0]) == bucket).sum()),
                "best": _best(ours, score),
                "random": len(theirs),
                "random_mean": float(theirs.mean()) if len(theirs) else None,
                "random_sd": finite_or_none(float(theirs.std(ddof=1))) if len(theirs) > 1 else None,
                "random_best": _best(theirs, score),
            }
        )
    return rows


def _best(values: Floats, score: Objective) -> float | None:
    return float((values * score.sign).max() * score.sign) if len(values) else None


def _bucket_table(buckets: Buckets, rows: Sequence[dict[str, Any]], score: str, with_chance: bool) -> Markup:
    known = ["best", *(["random_mean", "random_sd", "random_best"] if with_chance else [])]
    columns = {name: numbers([np.nan if row[name] is None else row[name] for row in rows]) for name in known}
    names = bucket_names(buckets)
    cells = [[names[row["bucket"]], f"{row['evaluated']:,}", f"{row['on_front']:,}"] for row in rows]
    head = [label(buckets.cost), "evaluated", "on the front", f"best {score}"]
    for place, row in enumerate(cells):
        row.append(columns["best"][place])
        if with_chance:
            row += [f"{rows[place]['random']:,}", *(columns[name][place] for name in known[1:])]
    if with_chance:
        head += ["random ones", "their mean", "sd", "their best"]
    return table(head, cells, text_columns=1)


def draw_against_chance(
    axes: Axes, *, points: Floats, front: Floats, chance: Floats, names: tuple[str, str], buckets: Buckets | None
) -> None:
    """Draw (M, 2) random architectures, (N, 2) those of the search, and their front, over the buckets of the cost."""
    if len(chance):
        style: dict[str, Any] = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.6}
        axes.plot(*chance.T, "o", color=MUTED, label="random", **style)
    axes.plot(*points.T, "o", color=BLUE, alpha=0.5, markersize=3, markeredgewidth=0, label="evaluated")
    order = np.lexsort((front[:, 1], front[:, 0]))
    axes.plot(*front[order].T, "o-", color=RED, markersize=3.5, linewidth=1.2, label="Pareto front")
    _finish(axes, label(names[0]), label(names[1]))
    if buckets is not None:
        draw_bands(axes, buckets)
