"""How a report draws: every figure a single panel, as PNG on white and as SVG that takes its colors from the page.

Colors are Okabe and Ito's, which stay apart for color-blind readers ("Color universal design", 2008). In the SVG
they become CSS variables, so that one figure serves a light and a dark page.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.configuration import install_command
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INK, MUTED, GRID, PAPER = "#1c2126", "#66707a", "#dde1e6", "#fffffe"
BLUE, ORANGE, GREEN, PURPLE, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED)
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    RED: "red",
}
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
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.0,
    "axes.unicode_minus": True,
}


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
    """Return a metric's or cost's name with its unit."""
    return LABELS.get(name, name)


class Plot(NamedTuple):
    """A figure that is not drawn yet.

    Attributes:
        name: Name of its file, unique in its page.
        alternative: What is to be seen, for those who do not see it.
        plot: Function that draws on the axes.
        caption: Text below it.
    """

    name: str
    alternative: str
    plot: Callable[[Axes], None]
    caption: str = ""


def draw(figure_of: Plot) -> Drawing:
    """Draw a figure of one panel."""
    name, alternative, plot, _ = figure_of
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
    """Return the SVG that matplotlib made, without what a page has no use for, and with the page's colors and fonts."""
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


# ---- parts of figures --------------------------------------------------------------------------------------------


def apart(heights: Floats, least: float) -> Floats:
    """Return heights in the same order, at least `least` apart and otherwise as near to the given ones as can be.

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
    """Return where the lowest of a pool goes, so that they are spread around their mean."""
    return max(sum(pool) / len(pool) - (len(pool) - 1) / 2 * least, 0.0)


def mark_switch(axes: Axes, fine_after: int | None, **options: Any) -> None:
    """Mark the evaluation from which mutation is fine."""
    if fine_after:
        axes.axvline(fine_after, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)), **options)


def over_time(axes: Axes, told: Ints, y_label: str) -> None:
    """Label axes whose horizontal one is evaluations."""
    axes.set_xlabel("evaluations")
    axes.set_ylabel(y_label)
    axes.set_xlim(0, told[-1])
    ticks(axes.xaxis)
    ticks(axes.yaxis)


def over_iterations(axes: Axes, last: float, y_label: str) -> None:
    """Label axes whose horizontal one is iterations, up to the last one."""
    axes.set_xlabel("iteration")
    axes.set_ylabel(y_label)
    axes.set_xlim(0, 1.02 * max(last, 1))
    ticks(axes.xaxis)
    ticks(axes.yaxis)


def ticks(axis: Any) -> None:
    """Put a few round ticks with plain numbers on an axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if axis.get_scale() == "linear":
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace("-", "−")))
