"""Reports: of a run, and of a training. One HTML page of sections; the same sections give what `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.cluster import RunFolder
from nasray.reports.data import read_run
from nasray.reports.figures import require_matplotlib
from nasray.reports.page import joined_figures, write_page
from nasray.reports.section import Section, Subject
from nasray.reports.sections import sections_of
from nasray.searchers import Objective
from nasray.spaces import Architecture, Space

if TYPE_CHECKING:
    from nasray.cluster.trial import Evaluator


def report_figures(
    folder: RunFolder,
    space: Space,
    *,
    evaluator: Evaluator | None = None,
    reference: Architecture | None = None,
    measured: RunFolder | None = None,
) -> dict[str, Any]:
    """Return the figures of a run's report as a JSON-serializable dict; None stands for what is not known or finite.

    Args:
        folder: The run, finished or not.
        space: The run's space.
        evaluator: The run's evaluator; without it nothing is scored for the report.
        reference: A published architecture to set the winner beside.
        measured: Another run, in which `nasray rank` measured this one's score.

    Raises:
        NasrayError: if no batch is finished, the history is corrupt, or `measured` does not hold for this run.
    """
    subject = Subject(folder, read_run(folder, space=space), space, evaluator, reference, measured)
    return joined_figures(sections_of(subject))


def write_report(
    folder: RunFolder,
    space: Space,
    *,
    objectives: Sequence[Objective] | None = None,
    evaluator: Evaluator | None = None,
    reference: Architecture | None = None,
    measured: RunFolder | None = None,
) -> Path:
    """Write <run>/report/report.html, with its figures as PNG beside it, and return its path.

    Args:
        folder: The run, finished or not.
        space: The run's space.
        objectives: The run's objectives; those of its best.json by default.
        evaluator: The run's evaluator; without it nothing is scored for the report.
        reference: A published architecture to set the winner beside.
        measured: Another run, in which `nasray rank` measured this one's score.

    Raises:
        NasrayError: if matplotlib is missing, no batch is finished, the history is corrupt, or `measured` does not
            hold for this run.
    """
    require_matplotlib()
    run = read_run(folder, objectives, space)
    about = []
    experiment = run.description.get("experiment", run.description)
    for name in ("space", "searcher", "evaluator", "seed"):
        value = experiment.get(name) if isinstance(experiment, dict) else None
        value = value.get("name") if isinstance(value, dict) else value
        if value is not None:
            about.append((name, str(value)))
    sections = sections_of(Subject(folder, run, space, evaluator, reference, measured))
    return write_page(folder.path / "report", run.name, about, sections)


__all__ = ["Section", "Subject", "report_figures", "write_report"]
