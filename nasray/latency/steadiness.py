"""Whether a machine stayed the same while latencies were measured on it.

Latencies that are to be compared are measured one after the other. In between a reference, a small network that is
always the same, is timed (a look). Where looks differ by more than they vary, the machine became slower or faster:
its processor was throttled, or others computed on it. Where they vary much, others computed all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

MIN_CHANGE, MAX_NOISE = 0.05, 0.10
"""Changes below are of no account; variation above makes latencies of one moment unreliable."""


class Look(NamedTuple):
    """Passes of the reference at one moment, in ms.

    Attributes:
        low: That of which a tenth of the passes is faster.
        median: Median.
        high: That of which a tenth of the passes is slower.
    """

    low: float
    median: float
    high: float


class Steadiness(NamedTuple):
    """What looks at the reference say of the machine.

    Attributes:
        looks: Looks in the order of time.
        change: Last look against the first, relative; above 0 where the machine became slower, 0 where both overlap.
        spread: Slowest look against the fastest, relative; 0 where both overlap.
        noise: How much passes of one look vary, relative: half of the distance of its tenths, the median of all looks.
    """

    looks: tuple[Look, ...]
    change: float
    spread: float
    noise: float

    @property
    def warning(self) -> str | None:
        """What a user must know, one line; None where the machine was steady."""
        found = []
        if self.change:
            direction = "slower" if self.change > 0 else "faster"
            found.append(f"the machine was {abs(self.change):.0%} {direction} at the end than at the beginning")
        elif self.spread:
            found.append(f"the machine was {self.spread:.0%} slower at one time than at another")
        if self.noise > MAX_NOISE:
            found.append(f"passes of the same network vary by {self.noise:.0%}")
        if not found:
            return None
        return f"{', and '.join(found)}: others compute on it, or it is throttled. Measure again when it is idle"

    def figures(self) -> dict[str, Any]:
        """Return all of it, JSON-serializable."""
        return {
            "reference_ms": [list(look) for look in self.looks],
            "change_percent": 100 * self.change,
            "noise_percent": 100 * self.noise,
            "steady": self.warning is None,
        }


def judge(looks: Sequence[Look]) -> Steadiness:
    """Return what looks in the order of time say; at least one.

    Two looks differ if nine tenths of the passes of one are slower than nine tenths of the other's, and the medians
    differ by at least `MIN_CHANGE`. So neither single slow passes count, nor a difference that is within what passes
    vary by.
    """
    order = sorted(looks, key=lambda look: look.median)
    noise = sorted((look.high - look.low) / (2 * look.median) for look in looks)[len(looks) // 2]
    return Steadiness(tuple(looks), _change(looks[0], looks[-1]), _change(order[0], order[-1]), noise)


def _change(before: Look, after: Look) -> float:
    change = after.median / before.median - 1
    overlap = before.low <= after.high and after.low <= before.high
    return 0.0 if overlap or abs(change) < MIN_CHANGE else change
