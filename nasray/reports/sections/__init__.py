"""The sections of a run's report; those of one family of architectures are found by its name."""

from __future__ import annotations

from nasray.comparison import WINNER, compare, groups_of_run
from nasray.reports.section import FamilyReport, Section, Subject
from nasray.reports.sections import fad, msnas, ofa_resnet, shufflenet, staged
from nasray.reports.sections.comparison import comparison_section
from nasray.reports.sections.convergence import convergence_section
from nasray.reports.sections.experiment import experiment_section
from nasray.reports.sections.leaders import leaders_section
from nasray.reports.sections.outcome import outcome_section
from nasray.reports.sections.rank import rank_sections
from nasray.reports.sections.score import score_sections
from nasray.reports.sections.stages import stage_sections
from nasray.reports.sections.trade_off import trade_off_sections
from nasray.spaces import Architecture

_STAGED = FamilyReport(staged.describe, staged.sections)

BY_FAMILY: dict[str, FamilyReport] = {
    "basic": _STAGED,
    "bottleneck": _STAGED,
    "fad": FamilyReport(fad.describe, fad.sections),
    "inverted": _STAGED,
    "inverted-se": _STAGED,
    "msnas": FamilyReport(msnas.describe, msnas.sections),
    "ofa-resnet": FamilyReport(ofa_resnet.describe, ofa_resnet.sections),
    "shufflenet": FamilyReport(shufflenet.describe, shufflenet.sections),
}
"""What is said of architectures, by their family; of others what `PLAIN` says."""


def _describe(architecture: Architecture) -> str:
    """Return an architecture's genes in a line."""
    text = ", ".join(f"{name} {value}" for name, value in architecture.spec.items())
    return f"{architecture.family}: {text if len(text) < 300 else text[:300] + ' ...'}"


PLAIN = FamilyReport(_describe, lambda subject: [])


def sections_of(subject: Subject) -> list[Section]:
    """Return the sections of a run's report, in their order."""
    family = BY_FAMILY.get(subject.space.family, PLAIN)
    groups = groups_of_run(subject.folder)
    compared = compare(groups) if groups and groups[0].name == WINNER else None
    return [
        outcome_section(subject, family.describe, compared),
        *score_sections(subject),
        *([comparison_section(compared)] if compared and len(groups) > 1 else []),
        *stage_sections(subject),
        *([] if subject.is_by_gradient else [convergence_section(subject), *trade_off_sections(subject)]),
        *family.sections(subject),
        *rank_sections(subject),
        leaders_section(subject),
        experiment_section(subject),
    ]


__all__ = ["BY_FAMILY", "PLAIN", "sections_of"]
