"""The random numbers of evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasray.spaces import Architecture

if TYPE_CHECKING:
    import torch


def generator_of(seed: int, architecture: Architecture) -> torch.Generator:
    """Return the generator of an architecture's random numbers, on the CPU whatever the device.

    So every device computes with the same numbers; a GPU's own would depend on its number of multiprocessors.
    """
    import torch

    return torch.Generator().manual_seed((seed << 32 ^ int(architecture.id, 16)) % 2**63)
