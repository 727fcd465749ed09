"""What a gradient search came to: its seeds, and the shares of choices over time.

Shapes: L lines of a training's log.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import RunFolder
from nasray.cluster.halving import read_decisions
from nasray.cluster.progress import counted
from nasray.reports.data import finite_or_none
from nasray.reports.figures import COLORS, INK, MID_BLUE, MUTED, Plot, over_iterations
from nasray.reports.pieces import number, paragraph, table
from nasray.reports.section import Section, Subject
from nasray.stages.gradient import seed_folder
from nasray.training.bilevel import entropy_and_none
from nasray.training.folder import TrainingLog, read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
NONE = "none"


def gradient_section(subject: Subject, stage: str) -> list[Section]:
    """Return the section on the seeds of a gradient search; none before it is finished."""
    run = RunFolder(subject.folder.path if stage == "search" else subject.folder.path / stage)
    if not run.is_finished():
        return []
    best = run.read_best()
    seeds, names = best["best"], best["choices"]
    logs = {entry["seed"]: read_log(seed_folder(run.path, entry["seed"])) for entry in seeds}
    winner = seeds[0]
    drawings = [
        Plot(f"{stage}-{key}", f"{text} over iterations, of every seed", partial(draw_seeds, logs=logs, key=key), text)
        for key, text in SERIES.items()
    ]
    for group in winner["shares"]:
        drawings += _of_group(stage, group, winner, logs[winner["seed"]], names)
    figures = {
        "seeds": [_figures(entry) for entry in seeds],
        "halving": read_decisions(run.path),
        "shares": {"choices": names, **winner["shares"]},
        "over_time": {str(seed): _series(log) for seed, log in logs.items()},
    }
    html = paragraph(_text(seeds)) + table(
        ["seed", "architecture", "end", "collapsed", "held-out mAP", "entropy", "share of none"],
        [_row(entry) for entry in seeds],
        text_columns=4,
    )
    note = (
        "mAP is of the soft detector, the mixture of all choices, on the images that are held out, from which the "
        "shares were learned too. Entropy is in nats, the mean of all edges; "
        f"{np.log(len(names)):.2f} where all {len(names)} choices have the same share."
    )
    return [Section(f"Gradient search of stage {stage}", html, tuple(drawings), {f"{stage}.gradient": figures}, note)]


def _of_group(stage: str, group: str, winner: dict[str, Any], log: TrainingLog, names: list[str]) -> list[Plot]:
    """Return the figures of a group of cells of the winning seed: shares over time, and those of each edge at the end.

    Args:
        stage: Name of the stage.
        group: Name of the group.
        winner: Entry of best.json.
        log: Log of its training.
        names: Names of the choices.
    """
    edges = np.array(winner["shares"][group])
    top = names[int(edges.mean(axis=0).argmax())]
    return [
        Plot(
            f"{stage}-{group}-shares",
            f"share of every choice over iterations, mean of the {group} cell's edges; {top} ends highest",
            partial(draw_shares, log=log, group=group, names=names),
            f"Seed {winner['seed']}, cell of group {group}: mean share of each choice over the edges. In color those "
            "that end highest, dashed none.",
        ),
        Plot(
            f"{stage}-{group}-edges",
            f"share of every choice on each edge of the {group} cell at the end",
            partial(draw_edges, edges=edges, names=names),
            f"Seed {winner['seed']}, cell of group {group}, at the end: the darker, the larger the share. An edge goes "
            "from a state (0 and 1 are the cell's inputs) to a node.",
        ),
    ]


SERIES = {
    "map": "mAP on held-out images",
    "entropy": "entropy of the shares (nats)",
    "none": "share of none",
}
"""What is drawn of every seed over time."""


def _series(log: TrainingLog) -> dict[str, list[list[float | None]]]:
    """Return what a seed's log holds of `SERIES`, each as pairs of an iteration and a value."""
    found: dict[str, list[list[float | None]]] = {
        "map": [[line["iteration"], finite_or_none(line["metrics"].get("mAP"))] for line in log.validations],
        "entropy": [],
        "none": [],
    }
    for line in log.steps:
        if line.get("shares"):
            entropy, none = entropy_and_none(line["shares"])
            found["entropy"].append([line["iteration"], entropy])
            found["none"].append([line["iteration"], none])
    return found


def _figures(entry: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: finite_or_none(value) for name, value in entry["metrics"].items()}
    return {**{key: entry[key] for key in ("seed", "id", "collapse", "stopped_after")}, **metrics}


def _row(entry: dict[str, Any]) -> list[str]:
    metrics, stopped = entry["metrics"], entry["stopped_after"]
    end = "trained" if stopped is None else f"stopped after {counted(stopped, 'epoch')}"
    figures = [number(metrics["mAP"]), number(metrics["entropy"], digits=3), number(metrics["none"], digits=3)]
    return [str(entry["seed"]), entry["id"], end, entry["collapse"] or "no", *figures]


def _text(seeds: list[dict[str, Any]]) -> str:
    winner, num = seeds[0], sum(entry["collapse"] is not None for entry in seeds)
    text = f"Seed {winner['seed']} of {len(seeds)} wins, with the head {winner['id']}."
    if winner["collapse"]:
        return f"{text} Every seed has collapsed, this one since {winner['collapse']}: take its head with care."
    return f"{text} {num} collapsed." if num else text


# ---- drawing -----------------------------------------------------------------------------------------------------


def draw_seeds(axes: Axes, *, logs: dict[int, TrainingLog], key: str) -> None:
    """Draw a figure of every seed over iterations."""
    last = 0.0
    for number_, seed in enumerate(sorted(logs)):
        points = np.array(_series(logs[seed])[key], dtype=np.float64).reshape(-1, 2)
        last = max(last, *points[:, 0]) if len(points) else last
        color = COLORS[number_] if number_ < len(COLORS) else MUTED
        marker = "o-" if key == "map" else "-"
        axes.plot(points[:, 0], points[:, 1], marker, color=color, markersize=3, label=f"seed {seed}")
    over_iterations(axes, last, SERIES[key])


def draw_shares(axes: Axes, *, log: TrainingLog, group: str, names: list[str]) -> None:
    """Draw the mean share of every choice over the edges of a group, over iterations."""
    lines = [line for line in log.steps if line.get("shares")]
    iterations = [line["iteration"] for line in lines]
    shares = np.array([np.mean(line["shares"][group], axis=0) for line in lines]).reshape(-1, len(names))
    order = [int(place) for place in np.argsort(-shares[-1], kind="stable")] if len(lines) else []
    colors = dict(zip([place for place in order if names[place] != NONE], COLORS, strict=False))
    for place in order:
        if names[place] == NONE:
            axes.plot(iterations, shares[:, place], "--", color=INK, linewidth=1.2, label=NONE, zorder=3)
        elif place in colors:
            axes.plot(iterations, shares[:, place], color=colors[place], label=names[place], zorder=3)
        else:
            axes.plot(iterations, shares[:, place], color=MUTED, linewidth=0.7, zorder=2)
    over_iterations(axes, max(iterations, default=0), "mean share")


def draw_edges(axes: Axes, *, edges: Floats, names: list[str]) -> None:
    """Draw (E, T + 1) shares of edges as a map, a row an edge."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("shares", [(*MID_BLUE, 0.0), (*MID_BLUE, 1.0)])
    axes.imshow(edges, aspect="auto", cmap=colors, vmin=0.0, vmax=float(edges.max()), interpolation="nearest")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)
    rows = [f"{state} → {node + 2}" for node in range(len(edges)) for state in range(node + 2)][: len(edges)]
    axes.set_yticks(range(len(edges)), rows)
    axes.grid(visible=False)
