"""The best architectures as a table."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from nasray.reports.figures import label
from nasray.reports.pieces import numbers, table
from nasray.reports.section import Section, Subject

MAX_ROWS = 40
"""Rows of the table of a Pareto front; a longer one is thinned evenly."""


def leaders_section(subject: Subject) -> Section:
    """Return the ten best, or the Pareto front."""
    run = subject.run
    shown, many = run.leaders, len(run.objectives) > 1
    if len(shown) > MAX_ROWS:
        shown = shown[np.linspace(0, len(shown) - 1, MAX_ROWS).round().astype(np.int64)]
    columns = {**run.metrics, **run.costs}
    cells = [[f"{index:,}" for index in shown]]
    cells += [numbers(values[shown].tolist(), digits=6) for values in columns.values()]
    rows = [[run.ids[index], *row] for index, row in zip(shown, zip(*cells, strict=True), strict=True)]
    head = ["id", "evaluation", *(label(name) for name in columns)]
    note = Markup("Evaluations count from 0. All architectures are in full in <code>best.json</code>.")
    if len(shown) < len(run.leaders):
        note = Markup("{} of the front's {:,} architectures, evenly. ").format(len(shown), len(run.leaders)) + note
    entries = [run.entry(int(index), subject.space) for index in run.leaders]
    return Section(
        "Pareto front" if many else f"The {len(shown)} best",
        table(head, rows, text_columns=1, kind="narrow"),
        figures={"front" if many else "leaders": entries},
        note=note,
    )
