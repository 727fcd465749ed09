"""What a run did, stage by stage, and how its detector was trained."""

from __future__ import annotations

from collections.abc import Callable

from nasray.reports.pieces import duration, shortest_path, table
from nasray.reports.section import Section, Subject
from nasray.reports.sections.curves import curves
from nasray.reports.sections.filter import filter_section
from nasray.reports.sections.front import front_section
from nasray.reports.sections.gradient import gradient_section
from nasray.reports.sections.pruning import pruning_section
from nasray.stages import read_records, stage_rows
from nasray.training.folder import read_log


def stage_sections(subject: Subject) -> list[Section]:
    """Return every stage with its time and result, then what its kind has to show; nothing for a run without stages."""
    content = read_records(subject.folder)
    if len(content) < 2 and not subject.is_by_gradient:
        return []
    note = (
        "Wall time of all sessions, waiting for Ray included. A training's figures are those of its best validation; "
        "the search's are of its winner, as a path of the supernet or as the mixture of all choices."
    )
    html = table(["stage", "wall time", "result"], stage_rows(content, duration), text_columns=3)
    sections = [Section("Stages", html, figures={"stages": content}, note=note)]
    for stage in content:
        for section in BY_KIND.get(subject.kind_of(stage), ()):
            sections += section(subject, stage)
    return sections


def trained(subject: Subject, stage: str) -> list[Section]:
    """Return the curves of the winner's training as a detector."""
    folder = subject.folder.path / stage
    if folder != subject.winner_training:
        return []
    plots = curves(read_log(folder), f"{stage}-")
    more = "classes, sizes, precision and recall, detections beside the truth"
    note = f"nasray report {shortest_path(folder)} has more: {more}."
    return [Section("The winner's training", drawings=plots, note=note)] if plots else []


BY_KIND: dict[str, tuple[Callable[[Subject, str], list[Section]], ...]] = {
    "train": (trained,),
    "search": (front_section,),
    "gradient": (gradient_section,),
    "fit-filter": (filter_section,),
    "prune": (pruning_section,),
}
"""Sections on a stage, by its kind."""
