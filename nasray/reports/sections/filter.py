"""Path filters of a run: how well each ranks the architectures of a bucket that it has not learned from.

Reference: Oyama et al., "DetOFA", section 4.2, Table 2; the order by multiply-adds or parameters alone is what a filter
has to beat.

Shapes: K buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from nasray.filters.pruned import FILTER
from nasray.reports.data import finite_or_none
from nasray.reports.figures import BLUE, GREEN, INK, MUTED, ORANGE, Plot, label, ticks
from nasray.reports.pieces import paragraph, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.bands import bucket_names, edge_texts
from nasray.scores.ranking import MIN_NUM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nasray.filters.filter import PathFilter

Row = Mapping[str, Any]
SHARES = ("precision", "recall")


def filter_section(subject: Subject, stage: str) -> list[Section]:
    """Return the section on the path filter that a stage fitted; none before it has."""
    path = subject.folder.path / stage / FILTER
    if not path.is_file():
        return []
    from nasray.filters.filter import PathFilter

    path_filter = PathFilter.load(path, subject.space, cost=subject.cost)
    measured, rows = path_filter.measured, path_filter.measured.get("buckets", [])
    edges = edge_texts(path_filter.buckets.edges)
    parts = [paragraph(_summary(measured))] if measured.get("num") else []
    drawings: list[Plot] = []
    if rows:
        parts.append(_table(path_filter, rows, bucket_names(path_filter.buckets)))
        worst = f"{100 * measured.get('worst', 0.25):g} %"
        x = f"{label(path_filter.buckets.cost)}, by bucket"
        if any(row["kendall"] and row["kendall"]["value"] is not None for row in rows):
            drawings.append(
                Plot(
                    f"{stage}-kendall",
                    f"Kendall's tau of the path filter {stage} and of costs, for each bucket",
                    partial(draw_kendall, rows=rows, edges=edges, x=x),
                    "Of architectures that were held out; bars are 95 % intervals. A filter that is no better than a "
                    "cost by itself is of no use in that bucket.",
                )
            )
        drawings.append(
            Plot(
                f"{stage}-worst",
                f"precision and recall of the path filter {stage} for the worst {worst}, for each bucket",
                partial(draw_worst, rows=rows, edges=edges, x=x),
                f"Of the worst {worst} of a bucket. Dashes are their share: the precision of chance.",
            )
        )
    if history := measured.get("history"):
        drawings.append(
            Plot(
                f"{stage}-fit",
                f"loss of the path filter {stage} over epochs",
                partial(draw_fit, history=history, epoch=measured.get("epoch")),
                "Mean squared hinge over pairs; the dotted epoch is kept.",
            )
        )
    figures = {
        "cost": path_filter.buckets.cost,
        "edges": list(path_filter.buckets.edges),
        **{name: value for name, value in measured.items() if name not in ("buckets", "history")},
        "buckets": [_finite(row) for row in rows],
    }
    html = Markup("").join(parts)
    return [Section(f"Path filter of stage {stage}", html, tuple(drawings), {f"{stage}.filter": figures})]


def _summary(measured: Mapping[str, Any]) -> str:
    text = f"Fitted to the {measured.get('metric', 'score')} of {measured['num']:,} architectures"
    if held := measured.get("held"):
        text += f", of which {held:,} were held out: by them the best epoch"
        text += f" ({measured['epoch']:,})" if measured.get("epoch") else ""
        text += " was chosen, so these figures flatter a little"
    if left_out := measured.get("left_out"):
        text += f"; {left_out:,} more had no finite value"
    few = f"Kendall's tau is stated from {MIN_NUM} held out in a bucket on."
    return f"{text}. Scores of different buckets do not compare. {few}"


def _table(path_filter: PathFilter, rows: Sequence[Row], names: Sequence[str]) -> Markup:
    costs = _rivals(rows)
    head = ["bucket", label(path_filter.buckets.cost), "held out", "tau (95 %)"]
    head += [f"of {name}" for name in costs]
    head += [*SHARES, "base rate"]
    cells = [
        [
            str(row["bucket"]),
            names[row["bucket"]],
            f"{row['num']:,}",
            interval_text(row["kendall"]),
            *(interval_text(row["costs"][name], short=True) for name in costs),
            *(interval_text(row[name]) for name in SHARES),
            "–" if row["base_rate"] is None else f"{row['base_rate']:.2f}",
        ]
        for row in rows
    ]
    return table(head, cells, text_columns=2)


def _rivals(rows: Sequence[Row]) -> list[str]:
    """Return the costs whose order is set beside that of the filter."""
    return [name for name in ("gmacs", "params_m") if name in rows[0].get("costs", {})]


def interval_text(found: Mapping[str, float | None] | None, *, short: bool = False) -> str:
    """Return an estimate with its interval; a dash where there is none."""
    value = None if found is None else found["value"]
    if found is None or value is None or not np.isfinite(value):
        return "–"
    low, high = found["low"], found["high"]
    text = f"{value:.2f}"
    if not short and low is not None and high is not None and np.isfinite([low, high]).all():
        text += f" ({low:.2f} to {high:.2f})"
    return text.replace("-", "−")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return finite_or_none(value) if isinstance(value, float) else value


# ---- drawings ----------------------------------------------------------------------------------------------------


def draw_kendall(axes: Axes, *, rows: Sequence[Row], edges: Sequence[str], x: str) -> None:
    """Draw tau of the filter with its interval in each bucket, and that of every cost beside it."""
    costs = _rivals(rows)
    series = [("path filter", [row["kendall"] for row in rows])]
    series += [(label(name), [row["costs"][name] for row in rows]) for name in costs]
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    _draw_intervals(axes, series, (BLUE, ORANGE, GREEN))
    _finish(axes, edges, x, "Kendall's tau")


def draw_worst(axes: Axes, *, rows: Sequence[Row], edges: Sequence[str], x: str) -> None:
    """Draw precision and recall with their intervals in each bucket, and the base rate."""
    _draw_intervals(axes, [(name, [row[name] for row in rows]) for name in SHARES], (BLUE, ORANGE))
    rates = [np.nan if row["base_rate"] is None else row["base_rate"] for row in rows]
    places = np.arange(len(rows))
    axes.hlines(rates, places - 0.4, places + 0.4, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label="base rate")
    axes.set_ylim(0.0, 1.02)
    _finish(axes, edges, x, "share")


def _draw_intervals(
    axes: Axes, series: Sequence[tuple[str, Sequence[Mapping[str, float | None] | None]]], colors: Sequence[str]
) -> None:
    width = 0.6 / max(len(series), 1)
    for number_of, ((name, column), color) in enumerate(zip(series, colors, strict=False)):
        values, lows, highs = (
            np.array([np.nan if one is None or one[key] is None else one[key] for one in column], dtype=np.float64)
            for key in ("value", "low", "high")
        )
        places = np.arange(len(values)) + (number_of - (len(series) - 1) / 2) * width
        errors = np.nan_to_num(np.stack([values - lows, highs - values]).clip(min=0.0))
        axes.errorbar(
            places, values, yerr=errors, fmt="o", color=color, markersize=4, elinewidth=1.2, label=name, zorder=3
        )


def _finish(axes: Axes, edges: Sequence[str], x: str, y: str) -> None:
    step = -(-len(edges) // 8)
    axes.set_xticks(np.arange(0, len(edges), step) - 0.5, edges[::step])
    axes.set_xlim(-0.5, len(edges) - 1.5)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def draw_fit(axes: Axes, *, history: Sequence[Mapping[str, float]], epoch: int | None) -> None:
    """Draw the losses of each epoch, and which was kept."""
    epochs = np.arange(1, len(history) + 1)
    axes.plot(epochs, [one["loss"] for one in history], color=ORANGE, label="learned from")
    axes.plot(epochs, [one["holdout_loss"] for one in history], color=BLUE, label="held out")
    if epoch:
        axes.axvline(epoch, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
    axes.set_xlim(0, len(history))
    axes.set_xlabel("epochs")
    axes.set_ylabel("loss")
    ticks(axes.xaxis)
    ticks(axes.yaxis)
