"""Networks of ShuffleNetV2 blocks: which block the winner has where, beside the reference.

Reference: Chen et al., "DetNAS", NeurIPS 2019, Figure 4.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nasray.architectures import checked_spec
from nasray.reports.figures import COLORS, INK, Plot
from nasray.reports.pieces import paragraph, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.levels import levels_section
from nasray.spaces import Architecture
from nasray.spaces.shufflenet import CHOICES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def describe(architecture: Architecture) -> str:
    """Return the blocks of every stage in a line."""
    stages = checked_spec(architecture)["stages"]
    return "ShuffleNetV2 blocks: " + "; ".join(
        f"C{level} {', '.join(stage['blocks'])}" for level, stage in enumerate(stages, start=2)
    )


def sections(subject: Subject) -> list[Section]:
    """Return the sections on a run in a space of ShuffleNetV2 blocks."""
    return [blocks(subject), levels_section(subject)]


def blocks(subject: Subject) -> Section:
    """Return the blocks of the winner, and what the best of the run have in common."""
    space, run = subject.space, subject.run
    winner = space.to_architecture(run.genes[subject.best])
    named = [("best", winner)]
    if subject.reference is not None and subject.reference.family == winner.family:
        named.append((subject.reference_name, subject.reference))
    rows = []
    for name, architecture in named:
        for level, stage in enumerate(checked_spec(architecture)["stages"], start=2):
            counted = Counter(stage["blocks"])
            num = [str(counted[choice]) for choice in CHOICES]
            rows.append([name, f"C{level}", ", ".join(stage["blocks"]), str(stage["width"]), *num])
    html = table(["architecture", "level", "blocks", "width", *CHOICES], rows, text_columns=3)
    top = run.genes[run.leaders]
    text = f"Share of each kind among the {len(top)} best, block by block."
    shares = np.stack([(top == choice).mean(axis=0) for choice in range(len(CHOICES))])
    names = [gene.name for gene in space.genes]
    plot = Plot(
        "blocks",
        "kind of every block: the winner's, and the shares among the best of the run",
        partial(draw_blocks, shares=shares, winner=run.genes[subject.best], names=names),
        "A dot marks the winner's.",
    )
    figures = {"blocks": [stage["blocks"] for stage in checked_spec(winner)["stages"]]}
    return Section("The best architecture", html + paragraph(text, "note"), (plot,), figures)


def draw_blocks(axes: Axes, *, shares: np.ndarray, winner: np.ndarray, names: list[str]) -> None:
    """Draw the share of each choice, (choices, G), as bars on top of each other, and a dot on the winner's."""
    places = np.arange(shares.shape[1])
    bottom = np.zeros(len(places))
    for choice, (name, row) in enumerate(zip(CHOICES, shares, strict=True)):
        axes.bar(places, row, 0.86, bottom=bottom, color=COLORS[choice], label=name)
        mine = winner == choice
        axes.plot(places[mine], (bottom + row / 2)[mine], "o", color=INK, markersize=3.5)
        bottom += row
    step = max(len(places) // 10, 1)
    axes.set_xticks(places[::step], names[::step])
    axes.set_ylim(0, 1)
    axes.set_xlabel("block")
    axes.set_ylabel("share of the best")
    axes.grid(False, axis="x")
