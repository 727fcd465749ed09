import torch

from nasray.spaces import SPACES, Architecture
from nasray.spaces.staged import StagedSpace

HW = (384, 384)


STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(family, *, width=16, **changes):
    """A small network of `family` that has all kinds of shortcuts."""
    mid = {"bottleneck": {"bottleneck": width // 2}, "basic": {}}.get(family, {"expansion": 3})
    stages = [{"kernel": 3, "width": width, "depth": 2, "stride": 2, **mid} for _ in range(4)]
    stages.insert(3, {"kernel": 5, "width": width + 8, "depth": 2, "stride": 1, **mid, **changes})
    return Architecture.create(family, {"stem": {"kernel": 3, "width": 16}, "stages": stages})
