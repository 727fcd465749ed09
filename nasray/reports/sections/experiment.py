"""What the run was begun with."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from nasray.reports.pieces import NONE, flat, table
from nasray.reports.section import Section, Subject


def experiment_section(subject: Subject) -> Section:
    """Return the content of experiment.yaml as a table."""
    whole = subject.run.description
    description = dict(whole)
    inner = description.pop("experiment", None)
    description = {**inner, **description} if isinstance(inner, dict) else whole
    rows = [[key, _text(value)] for key, value in flat(description) if value not in (None, "", [], {})]
    half = (len(rows) + 1) // 2
    parts = [table([], part, text_columns=2) for part in (rows[:half], rows[half:]) if part]
    return Section("Experiment", Markup('<div class="grid wrapped">{}</div>').format(NONE.join(parts)))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
