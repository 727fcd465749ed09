"""Is the winner better than chance and than baselines? Every training of the run, group by group."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from nasray.reports.figures import BLUE, INK, MUTED, Plot, ticks
from nasray.reports.pieces import NONE, paragraph, table
from nasray.reports.section import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOTE = (
    "95 % intervals of a group's mean are Student's; of a difference Welch's, or with the pooled spread where a group "
    "has fewer than three values. A value is one architecture (the mean of its trainings), or one training where a "
    "group has one architecture. Intervals are not adjusted for the number of comparisons."
)


def comparison_section(result: dict[str, Any]) -> Section:
    """Return the section on a comparison.

    Args:
        result: What `nasray.comparison.compare` returned.
    """
    rows = []
    for group in result["groups"]:
        interval = "–" if group["low"] is None else f"{group['low']:.4f} to {group['high']:.4f}"
        trainings = str(len(group["trainings"]))
        rows.append([group["name"], str(group["architectures"]), trainings, f"{group['mean']:.4f}", interval])
    head = ["group", "architectures", "trainings", result["metric"], "95 % interval"]
    verdicts = [
        [f"{found['group']} against {found['with']}", *_interval(found), found["verdict"]]
        for found in result["comparisons"]
    ]
    second = ["comparison", "difference", "95 % interval", "could have been seen", "verdict"]
    notes = [paragraph(f"{note}.", "note") for note in result["notes"]]
    return Section(
        "Better than chance and baselines?",
        table(head, rows, text_columns=1) + table(second, verdicts, text_columns=1) + NONE.join(notes),
        comparison_plots(result),
        {"comparison": result},
        NOTE,
    )


def _interval(found: dict[str, Any]) -> list[str]:
    if found["low"] is None:
        return [f"{found['difference']:+.4f}", "–", "–"]
    interval = f"{found['low']:+.4f} to {found['high']:+.4f}"
    return [f"{found['difference']:+.4f}", interval, f"from {found['smallest']:.4f}, likely from {found['likely']:.4f}"]


def comparison_plots(result: dict[str, Any]) -> tuple[Plot, ...]:
    """Return the figure of a comparison."""
    text = "; ".join(f"{group['name']}: mean {group['mean']:.4f}" for group in result["groups"])
    return (Plot("compare", f"{result['metric']} of every training, {text}", partial(draw_groups, result=result)),)


def draw_groups(axes: Axes, *, result: dict[str, Any]) -> None:
    """Draw every training as a dot, and every group's mean with its interval."""
    groups = result["groups"][::-1]
    for place, group in enumerate(groups):
        color = BLUE if place == len(groups) - 1 else MUTED
        values = [training["value"] for training in group["trainings"]]
        axes.plot(values, [place - 0.16] * len(values), "o", color=color, markersize=3.5, alpha=0.55, markeredgewidth=0)
        if group["low"] is not None:
            axes.plot([group["low"], group["high"]], [place + 0.1] * 2, color=color)
        axes.plot(group["mean"], place + 0.1, "D", color=color, markersize=5, markeredgecolor=INK, markeredgewidth=0.4)
    axes.set_yticks(range(len(groups)), [group["name"] for group in groups])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlabel(f"{result['metric']} (dots: trainings; diamonds: means with 95 % intervals)")
    axes.grid(False, axis="y")
    ticks(axes.xaxis)
