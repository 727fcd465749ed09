"""Budgets: bounds on costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Costs, Mask, Population, Space
from nasray.spaces.errors import NasrayError
from nasray.spaces.ranges import check_finite

CostFunction = Callable[[Population], Costs]
"""Exact costs of a population, each an (N,) float array. What they are of is its attribute `scope`, if it has one."""


def cost_scope(cost: CostFunction, space: Space) -> str:
    """Return what costs are of, in a few words: as the function says, or else the space."""
    scope: str = getattr(cost, "scope", space.cost_scope)
    return f"{scope}, each at its own resolution" if space.resolutions else scope


@dataclass(frozen=True)
class Budget:
    """Upper and lower bounds on costs, both inclusive.

    Attributes:
        upper: Largest value allowed, by name of cost.
        lower: Smallest value allowed, by name of cost.

    Raises:
        NasrayError: if a bound is not a finite number, or a lower one is above its upper one.
    """

    upper: Mapping[str, float] = field(default_factory=dict)
    lower: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bound in [*self.upper.items(), *self.lower.items()]:
            check_finite(f"budget on {name}", bound)
        for name in self.upper:
            if name in self.lower and self.lower[name] > self.upper[name]:
                raise NasrayError(
                    f"budget on {name}: the lower bound {self.lower[name]:g} is above the upper bound "
                    f"{self.upper[name]:g}. Exchange them, or leave one out"
                )

    @property
    def names(self) -> list[str]:
        """The costs that are bounded, in a fixed order."""
        return list(dict.fromkeys([*self.upper, *self.lower]))

    def joined(self, other: Budget) -> Budget | None:
        """Return the bounds of both, on each cost the tighter ones; None where no cost meets them."""
        upper, lower = dict(self.upper), dict(self.lower)
        for name, bound in other.upper.items():
            upper[name] = min(bound, upper.get(name, bound))
        for name, bound in other.lower.items():
            lower[name] = max(bound, lower.get(name, bound))
        return None if any(lower[name] > upper[name] for name in lower if name in upper) else Budget(upper, lower)

    def violations(self, costs: Costs) -> NDArray[np.float64]:
        """Return (N, B) how far each bound is overstepped, relative to the bound; 0 where it is met.

        The columns are the upper bounds, then the lower bounds, in the order they were given. A NaN cost violates
        its bounds infinitely.
        """
        columns = [(costs[name] - bound) / max(abs(bound), 1e-12) for name, bound in self.upper.items()]
        columns += [(bound - costs[name]) / max(abs(bound), 1e-12) for name, bound in self.lower.items()]
        if not columns:
            return np.zeros((len(next(iter(costs.values()), ())), 0))
        return np.nan_to_num(np.maximum(np.stack(columns, axis=1), 0.0), nan=np.inf, posinf=np.inf)

    def admits(self, costs: Costs, num: int) -> Mask:
        """Return (num,) whether all bounds are met by each of `num` architectures with these costs."""
        admitted = np.ones(num, dtype=bool)
        for name, bound in self.upper.items():
            admitted &= costs[name] <= bound
        for name, bound in self.lower.items():
            admitted &= costs[name] >= bound
        return admitted

    def __str__(self) -> str:
        parts = [f"{name} <= {bound:g}" for name, bound in self.upper.items()]
        parts += [f"{name} >= {bound:g}" for name, bound in self.lower.items()]
        return ", ".join(parts) or "none"
