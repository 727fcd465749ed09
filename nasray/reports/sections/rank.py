"""Does the supernet, or the score, rank as training does? What `nasray rank` measured."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.measured import SUPERNET, read_rank
from nasray.rank import too_few
from nasray.reports.figures import BLUE, MUTED, RED, Floats, Plot, label
from nasray.reports.pieces import paragraph
from nasray.reports.section import Section, Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rank_sections(subject: Subject) -> list[Section]:
    """Return how the supernet or the score ranks, if `nasray rank` has measured it."""
    result = read_rank(subject.folder)
    if result is None:
        return []
    spread, winner = result["random"], result.get("winner")
    text = (
        f"{spread['num']} random architectures within the budget, each trained by itself: mAP {spread['mean']:.4f}, "
        f"standard deviation {spread['sd']:.4f}."
    )
    if winner:
        text += f" The winner of the search, trained alike: {winner['mAP']:.4f}."
    if few := too_few(result):
        text += f" {few}."
    what = "supernet" if _own(result) == SUPERNET else "score"
    return [Section(f"Does the {what} rank as training does?", paragraph(text), rank_plots(result), {"rank": result})]


def rank_plots(result: dict[str, Any]) -> tuple[Plot, ...]:
    """Return the figures of a rank.json: `rank`, and `agreement` where it can be stated."""
    rows, winner, own = result["architectures"], result.get("winner"), _own(result)
    points = np.array([[row[own], row["mAP"]] for row in rows], dtype=np.float64)  # null is NaN
    mark = (winner[own], winner["mAP"]) if winner and own in winner else None
    what = "mAP as a path" if own == SUPERNET else own
    found, text = result["agreement"].get(own), f"mAP after training over {what}, {len(rows)} architectures"
    if found and _stated(found):
        text += f"; tau {found['kendall']['value']:.2f}"
    plots = [Plot("rank", text, partial(draw_rank, points=points, winner=mark, name=own))]
    if too_few(result) is None:
        text = "Kendall's tau of each predictor with mAP after training, with 95 % intervals"
        plots.append(Plot("agreement", text, partial(draw_agreement, agreement=result["agreement"], own=own)))
    return tuple(plots)


def _own(result: dict[str, Any]) -> str:
    """Return the name of the run's own score; earlier versions measured supernets alone."""
    name: str = result.get("measured", {}).get("score", SUPERNET)
    return name


def _stated(found: dict[str, Any]) -> bool:
    """Return whether an agreement could be stated: null in rank.json is read as NaN."""
    value = found["kendall"]["value"]
    return value is not None and math.isfinite(value)


def draw_rank(axes: Axes, *, points: Floats, winner: tuple[float, float] | None, name: str = SUPERNET) -> None:
    """Draw mAP after training by itself over the run's own score of a name, (N, 2), and the search's winner."""
    axes.scatter(points[:, 0], points[:, 1], s=22, color=BLUE, linewidths=0, label="random architectures")
    if winner is not None:
        axes.scatter(*winner, s=46, color=RED, marker="D", linewidths=0, label="winner of the search")
    axes.set_xlabel("mAP as a path of the supernet" if name == SUPERNET else f"score {name}, without training")
    axes.set_ylabel("mAP after training by itself")


def draw_agreement(axes: Axes, *, agreement: dict[str, Any], own: str = SUPERNET) -> None:
    """Draw Kendall's tau of each predictor, with its interval, as `rank_agreement` returns them; `own` stands out."""
    names = [name for name, found in agreement.items() if _stated(found)]
    for place, name in enumerate(reversed(names)):
        found = agreement[name]["kendall"]
        color = BLUE if name == own else MUTED
        axes.plot([found["low"], found["high"]], [place, place], color=color)
        axes.plot(found["value"], place, "o", markersize=5, color=color)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_yticks(range(len(names)), [label(name) for name in reversed(names)])
    axes.set_xlim(-1, 1)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("Kendall's tau with mAP after training (95 % interval)")
