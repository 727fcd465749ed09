"""Once-for-all ResNets: blocks, widths and expansions of the best, stage by stage.

Reference: Cai et al., "Once-for-All", ICLR 2020.
"""

from __future__ import annotations

import numpy as np

from nasray.architectures import checked_spec
from nasray.reports.figures import label
from nasray.reports.pieces import numbers, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.leaders import MAX_ROWS
from nasray.reports.sections.levels import levels_section
from nasray.spaces import Architecture


def describe(architecture: Architecture) -> str:
    """Return the blocks of every stage in a line."""
    spec = checked_spec(architecture)
    stages = "; ".join(f"C{level} {text}" for level, text in enumerate(stage_texts(architecture), start=2))
    stem = spec["stem"]
    residual = "with" if stem["depth"] else "without"
    return (
        f"once-for-all ResNet, stages as blocks × width (expansions), in percent: {stages}; "
        f"stem {stem['mid']}, {stem['width']} {residual} a residual convolution"
    )


def stage_texts(architecture: Architecture) -> list[str]:
    """Return each stage as its number of blocks, its width and the expansion of each block in percent."""
    return [
        f"{len(stage['expand'])} × {stage['width']} ({', '.join(map(str, stage['expand']))})"
        for stage in checked_spec(architecture)["stages"]
    ]


def sections(subject: Subject) -> list[Section]:
    """Return the sections on a run in a space of once-for-all ResNets."""
    return [stages(subject), levels_section(subject)]


def stages(subject: Subject) -> Section:
    """Return the stages of the best of a run, those that cost least first."""
    run, space = subject.run, subject.space
    shown = run.leaders
    cost = next((name for name in ("gmacs", *run.costs) if name in run.costs), None)
    if cost is not None:
        shown = shown[np.argsort(run.costs[cost][shown], kind="stable")]
    if len(shown) > MAX_ROWS:
        shown = shown[np.linspace(0, len(shown) - 1, MAX_ROWS).round().astype(np.int64)]
    names = [name for name in (cost, run.objectives[0].name) if name is not None]
    columns = [numbers(run.column(name)[shown].tolist()) for name in dict.fromkeys(names)]
    texts = [stage_texts(space.to_architecture(run.genes[index])) for index in shown]
    rows = [
        [run.ids[index], *text, *figures]
        for index, text, figures in zip(shown, texts, zip(*columns, strict=True), strict=True)
    ]
    head = ["id", *(f"C{level}" for level in range(2, 2 + len(texts[0]))), *map(label, dict.fromkeys(names))]
    figures = {"stages_of_best": stage_texts(space.to_architecture(run.genes[subject.best]))}
    note = "Blocks × width (expansion of each block), widths and expansions in percent of the widest."
    return Section("Stages of the best", table(head, rows, text_columns=5), figures=figures, note=note)
