"""The figures of a report: every one a single panel, as PNG on white and as SVG that takes its colors from the page.

Colors are Okabe and Ito's, which stay apart for color-blind readers ("Color universal design", 2008). In the SVG
they become CSS variables, so that one figure serves a light and a dark page.

Shapes: N evaluations, T points in time, L levels C1 to C5.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nasray.configuration import install_command
from nasray.report_data import LEVELS, Convergence, Floats, Ints
from nasray.searchers import Objective
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, PAPER = "#1c2126", "#66707a", "#dde1e6", "#fffffe"
BLUE, ORANGE, GREEN, PURPLE, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
LEVEL_COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED)
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", PURPLE: "purple", RED: "red",
}  # fmt: skip
"""Each color's CSS variable; the page defines them all."""

MID_BLUE = np.array([0x1E, 0x86, 0xCC]) / 255  # of images, which cannot follow the page: between light and dark
SIZE = 4.4, 3.2  # inches: text of 8.5 points is readable at the width of a phone
PNG_DPI = 220
MANY = 3000  # points above which a scatter becomes a density
LABELS = {
    "gmacs": "multiply-adds (G)",
    "params_m": "parameters (M)",
    "latency_ms": "latency (ms)",
    "layers": "layers",
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "text.color": INK, "svg.fonttype": "none",
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.linewidth": 0.6, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.major.size": 3, "ytick.major.size": 0, "xtick.major.width": 0.6, "lines.linewidth": 1.6,
    "legend.frameon": False, "legend.handlelength": 1.5, "legend.columnspacing": 1.2, "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.0, "axes.unicode_minus": True,
}  # fmt: skip


class Drawing(NamedTuple):
    """A figure: `svg` to put into a page, `png` to put beside it."""

    svg: str
    png: bytes


def require_matplotlib() -> None:
    """Refuse to go on without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NasrayError(f"a report's figures need matplotlib. Install it: {install_command('plot')}") from error


def label(name: str) -> str:
    """A metric's or cost's name with its unit."""
    return LABELS.get(name, name)


def draw(name: str, alternative: str, plot: Callable[[Axes], None]) -> Drawing:
    """Make a figure of one panel.

    Args:
        name: unique in its page.
        alternative: what is to be seen, for those who do not see it.
        plot: draws on the axes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=3)
        text, image = io.StringIO(), io.BytesIO()
        figure.savefig(text, format="svg", dpi=PNG_DPI, metadata={"Date": None})
        figure.set_layout_engine("none")  # laid out by now, and that takes longer than drawing
        figure.savefig(image, format="png", dpi=PNG_DPI, facecolor=PAPER, metadata={"Software": None})
    return Drawing(_for_page(text.getvalue(), name, alternative), image.getvalue())


def _for_page(svg: str, name: str, alternative: str) -> str:
    """The SVG that matplotlib made, without what a page has no use for, and with the page's colors and fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    # Other figures of the page have the same ids: those that are referred to get a name of their own, the others go.
    targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in targets else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans', sans-serif", "var(--sans)").replace("'DejaVu Sans'", "var(--sans)")
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    head = re.compile(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>')
    opening = f'<svg viewBox="{head.match(svg)[1]}" role="img" aria-label="{html.escape(alternative)}" id="{name}"'  # type: ignore[index]
    opening += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"\s*\n\s*", " ", head.sub(lambda _: opening, svg, count=1)).strip()


# ---- the figures -------------------------------------------------------------------------------------------------


def convergence(axes: Axes, objective: Objective, points: Convergence, fine_after: int | None) -> None:
    """The best so far, and every batch's mean with a band of one standard deviation."""
    told = points.evaluations
    axes.fill_between(told, points.mean - points.std, points.mean + points.std, color=ORANGE, alpha=0.25, linewidth=0)
    axes.plot(told, points.best, color=BLUE, drawstyle="steps-post", label="best so far", zorder=3)
    axes.plot(told, points.mean, color=ORANGE, label="batch mean ± std")
    _mark_switch(axes, fine_after)
    if fine_after:
        place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate("fine mutation", (fine_after, 0.0), (4, 5), color=MUTED, **place)
    _over_time(axes, told, label(objective.name))


def gap(axes: Axes, objective: Objective, points: Convergence, fine_after: int | None) -> None:
    """How far the best so far was from the final best, in its own units, logarithmic."""
    distance = np.abs(points.best - points.best[-1])
    axes.plot(points.evaluations, np.where(distance > 0, distance, np.nan), color=BLUE, drawstyle="steps-post")
    if (distance > 0).any():
        axes.set_yscale("log")
        axes.minorticks_off()
    _mark_switch(axes, fine_after)
    _over_time(axes, points.evaluations, f"{label(objective.name)}: gap to the final best")


def hypervolume(axes: Axes, told: Ints, shares: Floats, fine_after: int | None) -> None:
    """The share of the box between the worst and the best values that the front covers."""
    axes.plot(told, shares, color=BLUE, drawstyle="steps-post")
    _mark_switch(axes, fine_after)
    _over_time(axes, told, "hypervolume (share of the box)")


def scatter(
    axes: Axes,
    x: Floats,
    y: Floats,
    *,
    front: Ints,
    winner: int,
    names: tuple[str, str],
    sign: float,
    bounds: list[float],
) -> None:
    """All evaluations, or where they are many their density; the front, the winner and the budget.

    Args:
        axes: where to draw.
        x: (N,) a cost.
        y: (N,) an objective.
        front: indices of the Pareto front in order of `x`.
        winner: index of the best evaluation.
        names: of x and y.
        sign: -1 where a small x is better, 1 where a large one is.
        bounds: of the budget on x.
    """
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.sum() > MANY:
        _density(axes, x[finite], y[finite])
    else:
        axes.plot(x[finite], y[finite], "o", color=BLUE, alpha=0.35, markersize=3, markeredgewidth=0)
    for bound in bounds:
        axes.axvline(bound, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=f"budget {bound:,.6g}")
    axes.plot(
        x[front], y[front], color=RED, linewidth=1.2, marker="o" if len(front) <= 60 else "", markersize=2.5,
        drawstyle="steps-post" if sign < 0 else "steps-pre", label="Pareto front",
    )  # fmt: skip
    if finite[winner]:
        axes.plot(
            x[winner], y[winner], "*", color=INK, markersize=9, markeredgecolor=PAPER, markeredgewidth=0.6,
            label="best", zorder=5,
        )  # fmt: skip
    axes.set_xlabel(label(names[0]))
    axes.set_ylabel(label(names[1]))
    _ticks(axes.xaxis)
    _ticks(axes.yaxis)


def _density(axes: Axes, x: Floats, y: Floats) -> None:
    """Evaluations per cell as the opacity of one color, on a logarithmic scale."""
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=(88, 56))
    shade = np.log1p(counts.T) / np.log1p(counts.max())
    image = np.empty((*shade.shape, 4))
    image[..., :3] = MID_BLUE
    image[..., 3] = np.where(shade > 0, 0.12 + 0.8 * shade, 0.0)
    extent = (x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
    axes.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="nearest", zorder=1)
    axes.use_sticky_edges = False
    axes.margins(0.03)
    axes.autoscale(True)


def levels(axes: Axes, told: Ints, rows: Floats, unit: str, fine_after: int | None) -> None:
    """(L, T) one line for each level, named at its end."""
    _mark_switch(axes, fine_after)
    for line, color in zip(rows, LEVEL_COLORS, strict=True):
        axes.plot(told, line, color=color, drawstyle="steps-post")
    _over_time(axes, told, unit)
    axes.set_ylim(bottom=0)
    ends = rows[:, -1]
    heights = _apart(ends, axes.get_ylim()[1] / 17)
    right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    for level, end, height, color in zip(LEVELS, ends, heights, LEVEL_COLORS, strict=True):
        axes.plot([1.0, 1.035], [end, height], color=color, linewidth=0.8, **right)
        axes.plot(1.045, height, "o", color=color, markersize=4, **right)
        axes.text(1.07, height, f"C{level}", va="center_baseline", **right)


def level_bars(axes: Axes, gmacs: list[tuple[str, Floats]]) -> None:
    """Each named architecture's multiply-adds at the L levels."""
    width = 0.76 / len(gmacs)
    for number, ((name, values), color) in enumerate(zip(gmacs, (BLUE, MUTED), strict=False)):
        center = np.arange(len(LEVELS)) + (number - (len(gmacs) - 1) / 2) * width
        axes.bar(center, values, width * 0.94, color=color, label=name)
    axes.set_xticks(range(len(LEVELS)), [f"C{level}" for level in LEVELS])
    axes.set_ylabel(label("gmacs"))
    axes.grid(False, axis="x")
    _ticks(axes.yaxis)


def _apart(heights: Floats, least: float) -> Floats:
    """Heights in the same order, at least `least` apart and otherwise as near to the given ones as can be.

    Neighbors that are too near are pooled around their mean, as in isotonic regression, and none goes below zero.
    """
    order = np.argsort(heights, kind="stable")
    pools: list[list[float]] = []
    for height in heights[order]:
        pools.append([float(height)])
        while len(pools) > 1 and _low(pools[-1], least) < _low(pools[-2], least) + len(pools[-2]) * least:
            upper = pools.pop()
            pools[-1] += upper
    out = np.empty(len(heights))
    out[order] = [_low(pool, least) + number * least for pool in pools for number in range(len(pool))]
    return out


def _low(pool: list[float], least: float) -> float:
    """Where the lowest of a pool goes, so that they are spread around their mean."""
    return max(sum(pool) / len(pool) - (len(pool) - 1) / 2 * least, 0.0)


def _mark_switch(axes: Axes, fine_after: int | None, **options: Any) -> None:
    if fine_after:
        axes.axvline(fine_after, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)), **options)


def _over_time(axes: Axes, told: Ints, y_label: str) -> None:
    axes.set_xlabel("evaluations")
    axes.set_ylabel(y_label)
    axes.set_xlim(0, told[-1])
    _ticks(axes.xaxis)
    _ticks(axes.yaxis)


def _ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))


# ---- supernets ---------------------------------------------------------------------------------------------------


def rank_scatter(axes: Axes, *, points: Floats, winner: tuple[float, float] | None) -> None:
    """MAP after training by itself over mAP as a path, (N, 2), and the search's winner."""
    axes.scatter(points[:, 0], points[:, 1], s=22, color=BLUE, linewidths=0, label="random architectures")
    if winner is not None:
        axes.scatter(*winner, s=46, color=RED, marker="D", linewidths=0, label="winner of the search")
    axes.set_xlabel("mAP as a path of the supernet")
    axes.set_ylabel("mAP after training by itself")


def agreement_intervals(axes: Axes, *, agreement: dict[str, Any]) -> None:
    """Kendall's tau of each predictor, with its interval; as `nasray.scores.ranking.rank_agreement` returns them."""
    names = [name for name, found in agreement.items() if found["kendall"]["value"] is not None]
    for place, name in enumerate(reversed(names)):
        found = agreement[name]["kendall"]
        color = BLUE if name == "supernet" else MUTED
        axes.plot([found["low"], found["high"]], [place, place], color=color)
        axes.plot(found["value"], place, "o", markersize=5, color=color)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_yticks(range(len(names)), [label(name) for name in reversed(names)])
    axes.set_xlim(-1, 1)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("Kendall's tau with mAP after training (95 % interval)")
