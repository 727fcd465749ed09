"""What a report is made of: sections, and what each of them is told about a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from nasray.architectures import ARCHITECTURES
from nasray.cluster import RunFolder
from nasray.loading import known_plan
from nasray.reports.data import RunData
from nasray.reports.figures import Plot
from nasray.spaces import Architecture, CostFunction, Space
from nasray.stages import Plan, winner_stages

if TYPE_CHECKING:
    from nasray.cluster.trial import Evaluator


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Heading; none for what belongs to the part before.
        html: Text and tables, above the drawings.
        drawings: Figures.
        figures: What `nasray report --json` prints of this section, JSON-serializable; no key is another section's.
        note: Small print below the drawings.
    """

    title: str
    html: Markup = field(default_factory=Markup)
    drawings: tuple[Plot, ...] = ()
    figures: dict[str, Any] = field(default_factory=dict)
    note: str | Markup = ""


@dataclass(frozen=True)
class Subject:
    """The run that a report is on.

    Attributes:
        folder: The run's folder.
        run: What is in it.
        space: The run's space.
        evaluator: The run's evaluator; None where it is not known.
        reference: Published architecture to set the winner beside.
        measured: Another run, in which `nasray rank` measured this one's score; the run itself where it is None.
    """

    folder: RunFolder
    run: RunData
    space: Space
    evaluator: Evaluator | None = None
    reference: Architecture | None = None
    measured: RunFolder | None = None

    @property
    def best(self) -> int:
        """The evaluation of the winner, or of the front's best by the first objective."""
        return int(self.run.leaders[0])

    @cached_property
    def plan(self) -> Plan | None:
        """The plan of the run; None where it was begun from Python with parts of its own."""
        return known_plan(self.folder) if self.folder.is_run() else None

    @property
    def is_by_gradient(self) -> bool:
        """Whether the run's architectures are derived from seeds of a gradient search, not evaluated one by one."""
        return self.run.ranked is not None

    @cached_property
    def cost(self) -> CostFunction:
        """Cost function of what the run counts; measured costs are left out."""
        return self.plan.parts.cost if self.plan else self.space.cost

    def kind_of(self, stage: str) -> str:
        """Return the kind of one of the run's stages; `train` where the run does not say."""
        stages = self.plan.experiment.stages if self.plan else {}
        kind: str = stages[stage].kind if stage in stages else "train"
        return kind

    @property
    def winner_training(self) -> Path:
        """Folder of the winner's training, whether there is one or not."""
        trained = winner_stages(self.plan) if self.plan else []
        return self.folder.path / (trained[-1] if trained else "train")

    @property
    def reference_name(self) -> str:
        """The name of the reference."""
        assert self.reference is not None
        return next((name for name, known in ARCHITECTURES.items() if known == self.reference), self.reference.id)


class FamilyReport(NamedTuple):
    """What a report says of the architectures of one family.

    Attributes:
        describe: Function that returns an architecture in a line of text.
        sections: Function that returns sections on a run in a space of the family.
    """

    describe: Callable[[Architecture], str]
    sections: Callable[[Subject], list[Section]]
