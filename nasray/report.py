"""The report of a run: one HTML page that needs neither network nor JavaScript, and its figures as PNG.

The figures on the search over time follow Sun et al., "MAE-DET", ICML 2022, Figures 8-10; the stage tables follow its
Tables 10-15, but depth counts blocks (a "ResBlock" of the paper is two).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from nasray import report_figures as figures
from nasray.architectures import ARCHITECTURES, layer_table
from nasray.cluster import RunFolder, write_atomic
from nasray.rank import drawings as rank_drawings
from nasray.rank import read_rank, too_few
from nasray.report_data import (
    LEVELS,
    MAX_POINTS,
    Floats,
    RunData,
    StageTable,
    level_costs,
    read_run,
    reference_stages,
    summarize,
    winner_stages,
)
from nasray.report_figures import Drawing, draw, label
from nasray.searchers import Objective, pareto_front
from nasray.spaces import Architecture, NasrayError, Space
from nasray.spaces.staged import StagedSpace
from nasray.stages import read_records, stage_rows

MAX_ROWS = 40
"""Rows of the table of a Pareto front; a longer one is thinned evenly."""


def report_summary(folder: RunFolder, space: Space) -> dict[str, Any]:
    """The figures of a run as a JSON-serializable dict.

    Keys: name, objectives, evaluations, ended_early (where and why, if it did), batches, not_finite (evaluations with
    an objective that is NaN or infinite), seconds, evaluations_per_second, sessions, workers, busy_share (see
    `report_data.Timing`), best (as in best.json), convergence (for each objective at most 200 points: evaluations,
    best, mean, std); with several objectives front, with two hypervolume; with a staged space levels (layers, gmacs,
    params_m of the best at C1 to C5). None stands
    for what is not known or not finite.

    Raises:
        NasrayError: if no batch is finished, or the history is corrupt.
    """
    return summarize(read_run(folder), space)


def write_report(
    folder: RunFolder, space: Space, *, objectives: Sequence[Objective], reference: Architecture | None = None
) -> Path:
    """Write <run>/report/report.html, with its figures as PNG beside it, and give its path.

    Args:
        folder: the run, finished or not.
        space: the run's space.
        objectives: the run's objectives; the first one ranks where a single winner is shown.
        reference: a published architecture to set the winner beside, in runs of staged spaces.

    Raises:
        NasrayError: if matplotlib is missing, no batch is finished, or the history is corrupt.
    """
    figures.require_matplotlib()
    run = read_run(folder, objectives)
    drawings: dict[str, Drawing] = {}
    sections = [_convergence(run, drawings), _trade_off(run, drawings)]
    if isinstance(space, StagedSpace):
        sections += [_levels(run, space, reference, drawings), _stages(run, space, reference)]
    sections += [_run_stages(folder), _rank(folder, drawings), _leaders(run), _description(run)]
    page = _PAGE.format(title=escape(run.name), style=_STYLE, head=_headline(run), body="\n".join(sections))
    target = folder.path / "report"
    try:
        target.mkdir(exist_ok=True)
    except OSError as error:
        raise NasrayError(f"cannot make {target}: {error.strerror}. The report goes into the run's folder") from error
    for name, drawing in drawings.items():
        write_atomic(target / f"{name}.png", drawing.png)
    write_atomic(target / "report.html", page.encode())
    return target / "report.html"


# ---- sections ----------------------------------------------------------------------------------------------------


def _headline(run: RunData) -> str:
    best, timing = int(run.leaders[0]), run.timing
    experiment = run.description.get("experiment", run.description)
    about = []
    for name in ("space", "searcher", "evaluator", "seed"):
        value = experiment.get(name) if isinstance(experiment, dict) else None
        value = value.get("name") if isinstance(value, dict) else value
        if value is not None:
            about.append(f"{name} <b>{escape(str(value))}</b>")
    facts = [("evaluations", f"{len(run.ids):,}")]
    if timing.seconds is not None:
        facts.append(("wall time", _duration(timing.seconds)))
    if timing.evaluations_per_second is not None:
        rate = timing.evaluations_per_second
        facts.append(("evaluations per second", f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"))
    if timing.busy_share is not None:
        plural = "s" if timing.workers > 1 else ""
        facts.append((f"busy time of {timing.workers} worker{plural}", f"{timing.busy_share:.0%}"))
    several = len(run.objectives) > 1
    if several:
        facts.append(("on the Pareto front", f"{len(run.leaders):,}"))
    shown = [run.objectives[0].name, *run.costs]
    for name in dict.fromkeys(shown):
        text = _format([float(run.column(name)[best])], digits=5)[0]
        facts.append((f"best {label(name)}" if name == shown[0] else f"its {label(name)}", text))
    tiles = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    unusable = int((~np.isfinite(run.values).all(axis=1)).sum())
    note = f'<p class="note">{unusable:,} evaluations have no finite value and are not drawn.</p>' if unusable else ""
    if run.ended_early:
        note = f'<p class="note">The search {escape(run.ended_early)}.</p>{note}'
    return (
        f"<h1>{escape(run.name)}</h1>\n<p class='about'>{' · '.join(about)}</p>\n"
        f'<dl class="facts" style="--columns: {5 if len(facts) > 8 else 4}">{tiles}</dl>\n{note}'
    )


def _convergence(run: RunData, drawings: dict[str, Drawing]) -> str:
    charts = []
    every = math.ceil(len(run.batch_ends) / MAX_POINTS)
    unit = "batch" if every == 1 else f"{every} batches"
    caption = f"Mean and band (one standard deviation) are over the evaluations of each {unit}."
    fine = run.fine_after
    if fine:
        caption += f" From {fine:,} evaluations on (dotted line), mutation is fine: kernels and widths, no depths."
    # A cost that is minimized beside a score has no story of its own: its best is where the space ends.
    measured = [objective for objective in run.objectives if objective.name in run.metrics] or run.objectives[:1]
    for objective in measured:
        points = run.convergence(objective)
        name = f"convergence-{_slug(objective.name)}"
        best = _format([float(points.best[-1])], digits=6)[0]
        drawings[name] = draw(
            name, f"{objective.name} over evaluations; the best ends at {best}",
            partial(figures.convergence, objective=objective, points=points, fine_after=fine),
        )  # fmt: skip
        charts.append((drawings[name], caption))
        if len(run.objectives) == 1:
            name = f"gap-{_slug(objective.name)}"
            drawings[name] = draw(
                name, f"distance of the best {objective.name} so far to the final best, over evaluations",
                partial(figures.gap, objective=objective, points=points, fine_after=fine),
            )  # fmt: skip
            charts.append((drawings[name], f"The final best, {best}, is evaluation {run.leaders[0]:,}."))
    if len(run.objectives) == 2:
        shares = run.hypervolume()
        drawings["hypervolume"] = draw(
            "hypervolume", "hypervolume of the Pareto front over evaluations",
            partial(figures.hypervolume, told=run.points, shares=shares, fine_after=fine),
        )  # fmt: skip
        text = "Share of the box between the run's worst and best values that the Pareto front covers."
        charts.append((drawings["hypervolume"], text))
    return _section("Convergence", _grid(charts))


def _trade_off(run: RunData, drawings: dict[str, Drawing]) -> str:
    first = run.objectives[0]
    signs = {name: -1.0 for name in ("gmacs", "params_m", "latency_ms", *run.costs) if name in run.costs}
    signs.pop("layers", None)
    signs = {**{o.name: o.sign for o in run.objectives[1:]}, **signs}
    signs.pop(first.name, None)
    charts = []
    y = run.column(first.name)
    for name, sign in list(signs.items())[:4]:
        x = run.column(name)
        usable = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if not len(usable):
            continue
        front = usable[pareto_front(np.stack([x[usable] * sign, y[usable] * first.sign], axis=1))]
        front = front[np.argsort(x[front], kind="stable")]
        key = f"{_slug(first.name)}-{_slug(name)}"
        drawings[key] = draw(
            key, f"{first.name} against {name}, with the Pareto front of {len(front)} architectures",
            partial(
                figures.scatter, x=x, y=y, front=front, winner=int(run.leaders[0]), names=(name, first.name), sign=sign,
                bounds=run.budget.get(name, []),
            ),
        )  # fmt: skip
        what = "The stronger the color, the more evaluations (logarithmic)." if len(usable) > figures.MANY else ""
        charts.append((drawings[key], what))
    return _section(f"{first.name.capitalize()} against cost", _grid(charts)) if charts else ""


def _levels(run: RunData, space: StagedSpace, reference: Architecture | None, drawings: dict[str, Drawing]) -> str:
    fine = run.fine_after
    best = run.best_so_far[run.points - 1]
    costs = level_costs(space.layers(run.genes[best]))
    height, width = space.image_hw
    charts = []
    for name, rows, unit in (
        ("level-layers", costs.layers, "main-branch layers"),
        ("level-gmacs", costs.gmacs, label("gmacs")),
        ("level-params", costs.params_m, label("params_m")),
    ):
        ends = ", ".join(f"C{level} {value:.3g}" for level, value in zip(LEVELS, rows[:, -1], strict=True))
        drawings[name] = draw(
            name, f"{unit} of each level of the best so far, at the end: {ends}",
            partial(figures.levels, told=run.points, rows=rows, unit=unit, fine_after=fine),
        )  # fmt: skip
        charts.append((drawings[name], ""))
    bars: list[tuple[str, Floats]] = [("best", costs.gmacs[:, -1])]
    if reference is not None:
        table = layer_table(reference, space.image_hw)
        bars.append((_reference_name(reference), level_costs(table).gmacs[:, 0]))
    drawings["level-winner"] = draw(
        "level-winner", "multiply-adds of each level: " + " and ".join(name for name, _ in bars),
        partial(figures.level_bars, gmacs=bars),
    )  # fmt: skip
    charts.append((drawings["level-winner"], ""))
    text = (
        f"The best architecture so far by {escape(run.objectives[0].name)}, level by level (C1 has stride 2, C5 stride "
        f"32). Layers are those of the main branch; costs are the backbone's at {height}×{width} pixels."
    )
    return _section("Where the depth and the computation go", f"<p>{text}</p>{_grid(charts)}")


def _stages(run: RunData, space: StagedSpace, reference: Architecture | None) -> str:
    winner = int(run.leaders[0])
    tables = [(f"Best of this run, {run.ids[winner]}", winner_stages(space, run.genes[winner]))]
    if reference is not None:
        tables.append((f"Reference: {_reference_name(reference)}", reference_stages(reference, space.image_hw)))
    blocks = "".join(f"<div><h3>{escape(title)}</h3>{_stage_table(table)}</div>" for title, table in tables)
    height, width = space.image_hw
    note = (
        "Depth counts blocks; stride is that of the first one. Multiply-adds are those of convolutions, at "
        f"{height}×{width} pixels."
    )
    return _section("The best architecture", f'<div class="grid">{blocks}</div><p class="note">{note}</p>')


def _stage_table(table: StageTable) -> str:
    mid = [table.mid_name] if table.mid_name else []
    head = ["level", "block", "kernel", "in", "out", "stride", *mid, "depth", "G"]
    rows = []
    for stage, cost in zip(table.stages, _format([stage.gmacs for stage in table.stages]), strict=True):
        own = ["–" if stage.mid is None else str(stage.mid)] if mid else []
        numbers = [stage.kernel, stage.in_channels, stage.out_channels, stage.stride]
        rows.append([stage.level, stage.block, *map(str, numbers), *own, str(stage.depth), cost])
    gmacs, params_m = (_format([table.costs[name]])[0] for name in ("gmacs", "params_m"))
    foot = f"{gmacs} G multiply-adds, {params_m} M parameters, {table.costs['layers']:.0f} layers"
    return f'<div class="narrow">{_table(head, rows, text_columns=2)}</div><p class="total">{foot}</p>'


def _run_stages(folder: RunFolder) -> str:
    """What was trained before and after the search; nothing for a run without stages."""
    content = read_records(folder)
    if not content:
        return ""
    rows = stage_rows(content, _duration)
    note = (
        "Wall time of all sessions. A training's figures are those of its best validation; the "
        "search's are of its winner as a path of the supernet."
    )
    table = _table(["stage", "wall time", "result"], rows, text_columns=3)
    return _section("Stages", f'{table}<p class="note">{note}</p>')


def _rank(folder: RunFolder, drawings: dict[str, Drawing]) -> str:
    """How the supernet ranks, if `nasray rank` has measured it."""
    result = read_rank(folder)
    if result is None:
        return ""
    figures_of_rank = rank_drawings(result)
    drawings.update(figures_of_rank)
    spread, winner = result["random"], result.get("winner")
    text = (
        f"{spread['num']} random architectures within the budget, each trained by itself: mAP {spread['mean']:.4f}, "
        f"standard deviation {spread['sd']:.4f}."
    )
    if winner:
        text += f" The winner of the search, trained alike: {winner['mAP']:.4f}."
    if few := too_few(result):
        text += f" {few}."
    return _section("Does the supernet rank as training does?", f"<p>{escape(text)}</p>" + _grid([
        (drawing, "") for drawing in figures_of_rank.values()
    ]))  # fmt: skip


def _leaders(run: RunData) -> str:
    leaders, many = run.leaders, len(run.objectives) > 1
    if len(leaders) > MAX_ROWS:
        leaders = leaders[np.linspace(0, len(leaders) - 1, MAX_ROWS).round().astype(np.int64)]
    columns = {**run.metrics, **run.costs}
    cells = [[f"{index:,}" for index in leaders]]
    cells += [_format(values[leaders].tolist(), digits=6) for values in columns.values()]
    rows = [[run.ids[index], *row] for index, row in zip(leaders, zip(*cells, strict=True), strict=True)]
    head = ["id", "evaluation", *(label(name) for name in columns)]
    title = "Pareto front" if many else f"The {len(leaders)} best"
    note = "Evaluations count from 0. All architectures are in full in <code>best.json</code>."
    if len(leaders) < len(run.leaders):
        note = f"{len(leaders)} of the front's {len(run.leaders):,} architectures, evenly. " + note
    return _section(title, f'<div class="narrow">{_table(head, rows, text_columns=1)}</div><p class="note">{note}</p>')


def _description(run: RunData) -> str:
    description = dict(run.description)
    experiment = description.pop("experiment", None)
    description = {**experiment, **description} if isinstance(experiment, dict) else run.description
    rows = [[key, _text(value)] for key, value in _flat(description) if value not in (None, "", [], {})]
    half = (len(rows) + 1) // 2
    parts = "".join(_table([], part, text_columns=2) for part in (rows[:half], rows[half:]) if part)
    return _section("Experiment", f'<div class="grid wrapped">{parts}</div>')


# ---- pieces of HTML ----------------------------------------------------------------------------------------------


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _grid(charts: list[tuple[Drawing, str]]) -> str:
    figure = "<figure>{}{}</figure>"
    parts = [
        figure.format(drawing.svg, f"<figcaption>{escape(text)}</figcaption>" if text else "")
        for drawing, text in charts
    ]
    return '<div class="grid">' + "\n".join(parts) + "</div>"


def _table(head: list[str], rows: list[list[str]], *, text_columns: int) -> str:
    """A table whose first `text_columns` columns are text, to the left, and the others numbers, to the right."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class='text'" if column < text_columns else "" for column in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for c, k in zip(cells, kinds, strict=True)) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def _format(values: Sequence[float], *, digits: int = 4) -> list[str]:
    """Numbers with as many decimals as give the largest one `digits` digits, so that their points align."""
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


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, hours = int(seconds // 60) % 60, int(seconds // 3600)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds % 60:02.0f} s"


def _flat(value: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{before}{key}.")
        else:
            yield f"{before}{key}", item


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _slug(name: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in name.lower()).strip("-") or "metric"


def _reference_name(reference: Architecture) -> str:
    return next((name for name, known in ARCHITECTURES.items() if known == reference), reference.id)


_STYLE = """
:root { color-scheme: light dark; --sans: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  --paper: #ffffff; --ink: #1c2126; --muted: #5d6771; --grid: #dde1e6;
  --blue: #0072b2; --orange: #e69f00; --green: #009e73; --purple: #cc79a7; --red: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e4e8ec; --muted: #98a2ad; --grid: #2d343b;
  --blue: #56b4e9; --orange: #e69f00; --green: #2fbf95; --purple: #cc79a7; --red: #f0803c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 var(--sans); }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 48px 0 12px; padding-top: 16px; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 0 0 8px; }
p { margin: 0 0 16px; max-width: 72ch; }
.about { color: var(--muted); margin: 4px 0 24px; }
.about b { color: var(--ink); font-weight: 600; }
.note, figcaption { color: var(--muted); font-size: .875rem; }
.note { margin-top: 12px; }
.facts { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 20px 24px; margin: 0; }
.facts div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
dt { color: var(--muted); font-size: .875rem; line-height: 1.3; }
dd { margin: 0; font-size: 1.5rem; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 32px 40px; }
@media (max-width: 760px) { .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .grid { grid-template-columns: minmax(0, 1fr); } main { padding: 20px 16px 48px; } }
figure { margin: 0; max-width: 560px; }
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-top: 8px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
.grid table { width: 100%; font-size: .8125rem; }
th, td { padding: 6px 8px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
.grid th, .grid td { padding: 6px 5px; }
.wrapped td { white-space: normal; overflow-wrap: anywhere; }
.wrapped td:first-child { overflow-wrap: normal; padding-right: 12px; }
table th:first-child, table td:first-child { padding-left: 0; }
table th:last-child, table td:last-child { padding-right: 0; }
.text { text-align: left; }
.total { font-size: .8125rem; font-weight: 600; margin: 8px 0 0; }
@media (max-width: 480px) { table { font-size: .8125rem; } table th { white-space: normal; }
  table th, table td, .grid th, .grid td { padding: 6px 3px; } .narrow :is(th, td):nth-child(2) { display: none; } }
code { font-size: .9em; }
@media print { section { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
{head}
</header>
{body}
</main>
</body>
</html>
"""
