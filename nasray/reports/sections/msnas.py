"""Encoders whose blocks chose their strides: scale of every block, laterals, and which head reads which map.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021, Figures 1
and 2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nasray.architectures import checked_spec
from nasray.reports.figures import BLUE, INK, MUTED, ORANGE, Plot, label
from nasray.reports.pieces import numbers, table
from nasray.reports.section import Section, Subject
from nasray.spaces import Architecture
from nasray.spaces.msnas_paths import (
    NONE,
    NUM_GROUPS,
    SCALES,
    absolute_strides,
    dead,
    laterals,
    places_of,
    sources,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS = tuple(str(group) for group in range(1, NUM_GROUPS + 1))
"""Groups of objects as a reader counts them, the smallest first."""


class Encoder(NamedTuple):
    """An encoder as it is drawn and told.

    Attributes:
        strides: Stride of each block.
        scales: Absolute stride of each block's map.
        laterals: For each block the one whose map is added to its own; -1 for none.
        heads: Absolute stride that each group's head reads.
        reads: Block whose map each head reads.
        dead: Whether no head needs a block.
    """

    strides: list[float]
    scales: list[int]
    laterals: list[int]
    heads: list[int]
    reads: list[int]
    dead: list[bool]


def encoder_of(architecture: Architecture) -> Encoder:
    """Return what follows from the strides and heads of an architecture."""
    spec = checked_spec(architecture)
    strides, heads = [spec["strides"]], [spec["heads"]]
    return Encoder(
        spec["strides"],
        absolute_strides(strides)[0].tolist(),
        laterals(strides)[0].tolist(),
        spec["heads"],
        sources(strides, heads)[0].tolist(),
        dead(strides, heads)[0].tolist(),
    )


def describe(architecture: Architecture) -> str:
    """Return strides and heads in a line."""
    spec = checked_spec(architecture)
    return (
        f"{len(spec['strides'])} {spec['block']} blocks of {spec['width']} channels with strides "
        f"{_listed(spec['strides'])}; heads read strides {_listed(spec['heads'])}"
    )


def sections(subject: Subject) -> list[Section]:
    """Return the section on a run in a space of encoders."""
    return [encoders(subject)]


def encoders(subject: Subject) -> Section:
    """Return the winners, as many as a stage trains, each drawn."""
    run, space = subject.run, subject.space
    shown = run.leaders[: num_winners(subject)]
    architectures = [space.to_architecture(run.genes[index]) for index in shown]
    drawn = [encoder_of(architecture) for architecture in architectures]
    counted = _costs(subject, run.genes[shown])
    score = run.objectives[0].name
    columns = [numbers(values) for values in (run.column(score)[shown].tolist(), *counted.values())]
    rows = [
        [run.ids[index], _listed(encoder.strides), _listed(encoder.heads), *cells]
        for index, encoder, cells in zip(shown, drawn, zip(*columns, strict=True), strict=True)
    ]
    head = ["id", "strides of blocks", "heads read", label(score), f"{label('gmacs')}, all blocks", "live blocks alone"]
    drawings = tuple(
        Plot(
            f"encoder-{number}",
            f"Encoder of {run.ids[index]}: {describe(architecture)}",
            partial(draw_encoder, encoder=encoder),
            f"Number {number}, {run.ids[index]}.",
        )
        for number, (index, architecture, encoder) in enumerate(zip(shown, architectures, drawn, strict=True), start=1)
    )
    figures = {
        "encoders": [
            {
                "id": run.ids[index],
                **encoder._asdict(),
                "gmacs_all_blocks": counted["all"][place],
                "gmacs_live_blocks": counted["live"][place],
            }
            for place, (index, encoder) in enumerate(zip(shown, drawn, strict=True))
        ]
    }
    note = (
        "The line leads from block to block; gray ones are dead, no head needs them. A curve is a lateral: the map "
        "where it begins is added, through a 1x1 convolution, to the one where it ends. On the right the heads, of "
        "the smallest objects (1) to the largest (5), at the stride of the map that they read."
    )
    return Section("Encoders of the best", table(head, rows, text_columns=3), drawings, figures, note)


def num_winners(subject: Subject) -> int:
    """Return how many of the best a stage of the run trains; 1 where none does."""
    stages = subject.plan.experiment.stages if subject.plan else {}
    return max([getattr(stage, "top", None) or 1 for stage in stages.values()], default=1)


def _costs(subject: Subject, genes: Any) -> dict[str, list[float]]:
    """Return gmacs of all blocks and of the live ones."""
    space: Any = subject.space.whole
    return {counted: space.cost(genes, counted=counted)["gmacs"].tolist() for counted in ("all", "live")}


def _listed(values: list[Any]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def draw_encoder(axes: Axes, *, encoder: Encoder) -> None:
    """Draw the scale of every block over depth, finest at the top, with laterals and heads."""
    num = len(encoder.strides)
    depth, heights = np.arange(num + 1), np.array([0, *-places_of(encoder.scales)])
    alive = 1 + max(encoder.reads)
    axes.plot(depth[alive:], heights[alive:], "o-", color=MUTED, markersize=4, label="dead" if alive < num else None)
    axes.plot(depth[: alive + 1], heights[: alive + 1], "o-", color=BLUE, markersize=4, label="blocks")
    for block, source in enumerate(encoder.laterals):
        if source != NONE:
            _draw_lateral(axes, depth[source + 1], depth[block + 1], heights[block + 1], dead=encoder.dead[block])
    axes.plot([], [], color=ORANGE, linewidth=1.0, label="laterals")
    right = num + 1.5
    for scale in sorted(set(encoder.heads)):
        height = -places_of([scale])[0]
        groups = [group for group, read in zip(GROUPS, encoder.heads, strict=True) if read == scale]
        block = encoder.reads[encoder.heads.index(scale)]
        axes.plot([depth[block + 1], right - 0.4], [height] * 2, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
        name = "head " if len(groups) == 1 else "heads "
        axes.text(right - 0.3, height, name + ", ".join(groups), color=INK, va="center", fontsize=7.5)
    axes.set_yticks([-place for place in range(len(SCALES))], [str(scale) for scale in SCALES])
    axes.set_ylim(-len(SCALES) + 0.5, 0.6)
    axes.set_xlim(-0.5, right + 0.22 * num)
    step = max(num // 8, 1)
    axes.set_xticks([0, *range(step, num + 1, step)], ["stem", *map(str, range(step, num + 1, step))])
    axes.set_xlabel("block")
    axes.set_ylabel("stride to the image")
    axes.grid(False, axis="x")


def _draw_lateral(axes: Axes, left: float, right: float, height: float, *, dead: bool) -> None:
    """Draw a curve from the map that is added to the one that it is added to."""
    from matplotlib.patches import FancyArrowPatch

    bend = -0.3 if height < 0 else 0.3
    axes.add_patch(
        FancyArrowPatch(
            (left, height),
            (right, height),
            connectionstyle=f"arc3,rad={bend * min(1.0, 4 / (right - left + 1)):.3f}",
            arrowstyle="-|>,head_length=3,head_width=1.5",
            color=MUTED if dead else ORANGE,
            linewidth=1.0,
            shrinkA=2.5,
            shrinkB=2.5,
            zorder=1.5,
        )
    )
