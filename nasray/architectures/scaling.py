"""Networks scaled in width: what one would take for a budget without a search.

Reference: Howard et al., "MobileNets", 2017, section 3.3: one multiplier for the widths of all layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from nasray.architectures.staged import MID_KEYS
from nasray.spaces import Architecture, NasrayError

WIDTHS = ("width", "bottleneck")
"""Keys of a stem and of a stage that are numbers of channels."""
WIDEST = 4.0
"""Greatest factor."""


def scaled(architecture: Architecture, factor: float) -> Architecture:
    """Return a network of a stem and residual stages with all widths times a factor, rounded, at least 1.

    Args:
        architecture: Network to scale.
        factor: Multiplier, more than 0 and at most 4.

    Raises:
        NasrayError: for a network of another kind, or a factor out of range.
    """
    if not 0 < factor <= WIDEST:
        raise NasrayError(f"networks are scaled by a factor above 0 and up to {WIDEST:g}, got {factor:g}")
    if architecture.family not in MID_KEYS:
        raise NasrayError(
            f"a network of family {architecture.family} has no stem and residual stages whose widths are free, so it "
            "cannot be scaled. Name one that has, such as resnet18 or mobilenet-v2"
        )
    spec = copy.deepcopy(architecture.spec)
    for part in (spec["stem"], *spec["stages"]):
        part |= {key: max(int(part[key] * factor + 0.5), 1) for key in WIDTHS if key in part}
    return Architecture.create(architecture.family, spec)


def scaled_within(architecture: Architecture, bound: float, cost: Callable[[Architecture], float]) -> Architecture:
    """Return the widest scaling of a network whose cost is at most a bound.

    Args:
        architecture: Network to scale, by a factor of three decimals.
        bound: Largest cost allowed.
        cost: Function that returns the cost of a network, the greater the wider it is.

    Raises:
        NasrayError: if the narrowest scaling costs more, or the network cannot be scaled.
    """
    low, high = 1, int(1000 * WIDEST)
    if (least := cost(scaled(architecture, low / 1000))) > bound:
        raise NasrayError(f"the narrowest scaling costs {least:.4g}, more than {bound:.4g}. Loosen the budget")
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(scaled(architecture, middle / 1000)) <= bound else (low, middle - 1)
    return scaled(architecture, low / 1000)
