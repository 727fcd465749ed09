"""The profile of a named space under a budget, from the options of a command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Annotated, Any

from pydantic import TypeAdapter

from nasray.configuration import overridden
from nasray.counting import CountedOptions, Scope, counted_cost
from nasray.experiment import SPACE, BudgetOptions
from nasray.options import make_part
from nasray.parts import make_budget
from nasray.spaces import Budget, NasrayError, Space
from nasray.spaces.budget import cost_scope
from nasray.spaces.profile import Profile, profile_space
from nasray.validation import checked
from nasray.values import Text


@checked
class BudgetedSpace:
    """A space and a budget, as an experiment has them.

    Attributes:
        space: Space to describe.
        costs: What is counted, as in an experiment.
        recipe: Recipe whose detector is counted.
        data: Data whose classes are counted.
        counted: Detector that is counted.
        budget: Bounds on costs.
    """

    space: Annotated[Any, SPACE] = field(default_factory=SPACE.make_default)
    costs: Scope | None = None
    recipe: Text | None = None
    data: Text | None = None
    counted: CountedOptions = field(default_factory=CountedOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)

    def __post_init__(self) -> None:
        if self.budget.latency_ms is not None:
            raise NasrayError("budget.latency_ms is measured by a search; a profile counts. Leave it out")


def profile_named_space(
    name: str, arguments: Sequence[str] = (), *, declared: Iterable[str] = ()
) -> tuple[Space, Budget, Profile, str]:
    """Return a space, a budget, the profile, and what its costs are of.

    Args:
        name: Name of the space.
        arguments: Options of the command line, such as `["--space.size", "large", "--budget.gmacs", "1.3"]`.
        declared: Further options of the command, for suggestions alone.

    Raises:
        NasrayError: for an unknown space or option, or a budget on a cost that the space does not have.
    """
    content = {"space": {"name": name}}
    if any(argument.partition("=")[0] == "--space.name" for argument in arguments):
        raise NasrayError(f"--space.name: the space is {name!r} already. Leave it out, or list another space")
    found = overridden(TypeAdapter(BudgetedSpace), BudgetedSpace, content, arguments, f"space {name}", declared)
    space, budget = make_part(found.space), make_budget(found.budget)
    cost, _ = counted_cost(found, space)
    return space, budget, profile_space(space, budget, cost=cost), cost_scope(cost, space)
