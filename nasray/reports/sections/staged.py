"""Staged networks: the winner's stages as a table, beside the reference's.

Reference: Sun et al., "MAE-DET", ICML 2022, Tables 10-15; but depth counts blocks (a "ResBlock" of the paper is two).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.architectures import checked_spec, layer_table
from nasray.architectures.staged import MID_KEYS
from nasray.reports.pieces import NONE, number, numbers, paragraph, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.levels import levels_section
from nasray.spaces import Architecture, LayerTable
from nasray.spaces.staged import StagedSpace


class Stage(NamedTuple):
    """One row of a stage table; `mid` is None where a block has none."""

    level: str
    block: str
    kernel: int
    in_channels: int
    out_channels: int
    stride: int
    mid: int | None
    depth: int
    gmacs: float


class StageTable(NamedTuple):
    """An architecture's stages, what their `mid` means, and the costs of the whole."""

    stages: list[Stage]
    mid_name: str | None
    costs: dict[str, float]


def describe(architecture: Architecture) -> str:
    """Return a staged architecture in a line: its stem, and of every stage blocks, kernel and width."""
    spec = checked_spec(architecture)
    stages = [
        f"{stage['depth']} × {stage['kernel']}×{stage['kernel']} to {stage['width']}"
        + (" (stride 2)" if stage["stride"] == 2 else "")
        for stage in spec["stages"]
    ]
    return f"{architecture.family} blocks: stem of {spec['stem']['width']} channels, then {', '.join(stages)}"


def sections(subject: Subject) -> list[Section]:
    """Return the sections on a run in a staged space."""
    return [levels_section(subject), stages(subject)]


def stages(subject: Subject) -> Section:
    """Return the stages of the winner, and of the reference."""
    space = cast(StagedSpace, subject.space)
    tables = [
        (f"Best of this run, {subject.run.ids[subject.best]}", winner_stages(space, subject.run.genes[subject.best]))
    ]
    if subject.reference is not None:
        title = f"Reference: {subject.reference_name}"
        tables.append((title, reference_stages(subject.reference, space.image_hw)))
    blocks = [
        Markup("<div><h3>{}</h3>{}</div>").format(title, _stage_table(stage_table)) for title, stage_table in tables
    ]
    height, width = space.image_hw
    note = (
        "Depth counts blocks; stride is that of the first one. Multiply-adds are those of convolutions, at "
        f"{height}×{width} pixels."
    )
    figures = {"stage_table": [stage._asdict() for stage in tables[0][1].stages]}
    html = Markup('<div class="grid">{}</div>').format(NONE.join(blocks))
    return Section("The best architecture", html, figures=figures, note=note)


def winner_stages(space: StagedSpace, genes: NDArray[np.int64]) -> StageTable:
    """Return the stage table of one (G,) row."""
    return _stages(space.to_architecture(genes), space.layers(genes[None]), space.mid_kind)


def reference_stages(architecture: Architecture, image_hw: tuple[int, int]) -> StageTable:
    """Return the stage table of a staged architecture, whether or not a space holds it."""
    return _stages(architecture, layer_table(architecture, image_hw), MID_KEYS[architecture.family])


def _stages(architecture: Architecture, layers: LayerTable, mid_name: str | None) -> StageTable:
    spec = architecture.spec
    # Block positions 2i + 1 and 2i + 2 are the first block and the others of part i; absent parts have no repeats.
    part = (layers.block + 1) // 2
    present = [int(index) for index in np.unique(part) if layers.repeats[part == index].any()]
    gmacs = [float(layers.macs[part == index].sum()) / 1e9 for index in present]
    names = [f"C{layers.level[part == index][0]}" for index in present]
    stem = spec["stem"]
    block, stride = ("conv + pool", 4) if stem.get("pool") else ("conv", 2)
    rows = [Stage(names[0], block, stem["kernel"], 3, stem["width"], stride, None, 1, gmacs[0])]
    for stage, level, cost in zip(spec["stages"], names[1:], gmacs[1:], strict=True):
        mid = stage[mid_name] if mid_name else None
        kernel, width, stride, depth = (stage[name] for name in ("kernel", "width", "stride", "depth"))
        before = rows[-1].out_channels
        rows.append(Stage(level, architecture.family, kernel, before, width, stride, mid, depth, cost))
    return StageTable(rows, mid_name, {name: float(value[0]) for name, value in layers.cost().items()})


def _stage_table(stage_table: StageTable) -> Markup:
    mid = [stage_table.mid_name] if stage_table.mid_name else []
    head = ["level", "block", "kernel", "in", "out", "stride", *mid, "depth", "G"]
    rows = []
    for stage, cost in zip(stage_table.stages, numbers([stage.gmacs for stage in stage_table.stages]), strict=True):
        own = ["–" if stage.mid is None else str(stage.mid)] if mid else []
        values = [stage.kernel, stage.in_channels, stage.out_channels, stage.stride]
        rows.append([stage.level, stage.block, *map(str, values), *own, str(stage.depth), cost])
    gmacs, params_m = (number(stage_table.costs[name]) for name in ("gmacs", "params_m"))
    foot = f"{gmacs} G multiply-adds, {params_m} M parameters, {stage_table.costs['layers']:.0f} layers"
    return table(head, rows, text_columns=2, kind="narrow") + paragraph(foot, "total")
