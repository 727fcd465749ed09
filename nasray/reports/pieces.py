"""Pieces of a report's page: tables, numbers, durations. Whatever is text is escaped by `Markup`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nasray.reports.figures import label

NONE = Markup("")


def paragraph(text: str | Markup, kind: str = "") -> Markup:
    """Return a paragraph, of a CSS class where one is given."""
    start = Markup('<p class="{}">').format(kind) if kind else Markup("<p>")
    return start + Markup("{}</p>").format(text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int, kind: str = "") -> Markup:
    """Return a table whose first columns are text, to the left, and the others numbers, to the right.

    Args:
        head: Names of the columns; none for a table without a head.
        rows: Cells.
        text_columns: Number of columns of text.
        kind: CSS class of what is around it.
    """

    def line(cells: Sequence[str], tag: str) -> Markup:
        text, plain = Markup(f"<{tag} class='text'>{{}}</{tag}>"), Markup(f"<{tag}>{{}}</{tag}>")
        parts = [(text if place < text_columns else plain).format(cell) for place, cell in enumerate(cells)]
        return Markup("<tr>{}</tr>").format(NONE.join(parts))

    top = Markup("<thead>{}</thead>").format(line(head, "th")) if head else NONE
    body = Markup("\n").join(line(row, "td") for row in rows)
    inner = Markup('<div class="scroll"><table>{}<tbody>{}</tbody></table></div>').format(top, body)
    return Markup('<div class="{}">{}</div>').format(kind, inner) if kind else inner


def answers(rows: Sequence[tuple[str, str | Markup]]) -> Markup:
    """Return questions with their answers beside them."""
    parts = [Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(question, answer) for question, answer in rows]
    return Markup('<dl class="answers">{}</dl>').format(Markup("\n").join(parts))


def facts(rows: Sequence[tuple[str, str]]) -> Markup:
    """Return figures as tiles: a name and what it is."""
    parts = [Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in rows]
    return Markup('<dl class="facts">{}</dl>').format(NONE.join(parts))


def commands(lines: Sequence[tuple[list[str], str]]) -> Markup:
    """Return commands as a user types them, each with a remark."""
    width = max((len(shlex.join(words)) for words, _ in lines), default=0)
    text = "\n".join(f"{shlex.join(words):{width}}  # {remark}" for words, remark in lines)
    return Markup("<pre>{}</pre>").format(text)


def shortest_path(path: Path) -> Path:
    """Return a path as a user in the present folder would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) and path != Path.cwd() else path


def numbers(values: Sequence[float], *, digits: int = 4) -> list[str]:
    """Return numbers with as many decimals as give the largest one `digits` digits, so that their points align."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=0.0)
    whole = all(value == int(value) for value in finite)
    decimals = 0 if whole else max(0, digits - 1 - (math.floor(math.log10(largest)) if largest > 0 else 0))
    style = f",.{decimals}f" if decimals < 9 else f".{digits - 1}e"

    def text(value: float) -> str:
        if math.isfinite(value):
            return f"{value:{style}}".replace("-", "−")
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"

    return [text(value) for value in values]


def number(value: float, *, digits: int = 4) -> str:
    """Return a number with `digits` digits."""
    return numbers([value], digits=digits)[0]


def cost(name: str, value: float) -> str:
    """Return a cost with its unit, such as "89.32 G multiply-adds"."""
    unit = label(name)
    if unit.endswith(")") and " (" in unit:
        what, _, sign = unit.rstrip(")").rpartition(" (")
        return f"{number(value)} {sign} {what}"
    return f"{number(value)} {unit}"


def duration(seconds: float) -> str:
    """Return a time in the units that suit it."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of nested dicts, with dots between them, and their values."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{before}{key}.")
        else:
            yield f"{before}{key}", item


def slug(name: str) -> str:
    """Return a name for a file."""
    return "".join(sign if sign.isalnum() else "-" for sign in name.lower()).strip("-") or "metric"
