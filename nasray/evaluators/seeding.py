"""The random numbers of evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nasray.spaces import Architecture

if TYPE_CHECKING:
    import torch


def seed_of(seed: int, architecture: Architecture) -> int:
    """Return the seed of an architecture's random numbers, mixed: PyTorch's generator on CPUs reads its low 32 bits."""
    sequence = np.random.SeedSequence([seed, int(architecture.id, 16)])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def generator_of(seed: int, architecture: Architecture) -> torch.Generator:
    """Return the generator of an architecture's random numbers, on the CPU whatever the device.

    So every device computes with the same numbers; a GPU's own would depend on its number of multiprocessors.
    """
    import torch

    return torch.Generator().manual_seed(seed_of(seed, architecture))
