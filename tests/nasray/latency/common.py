from nasray.latency import (
    Setting,
)
from nasray.spaces import SPACES
from nasray.spaces.staged import StagedSpace

HW = (64, 64)


STAGED = [family for family, space in SPACES.items() if issubclass(space, StagedSpace)]


SETTING = Setting("cpu", "a processor", "float32", 1, 1, "0", HW)


def small_space(name="bottleneck", **options):
    options = {"max_mid": 32, **options} if name == "bottleneck" else options
    return SPACES[name](image_hw=HW, max_width=64, max_stem_width=32, max_depth=3, kernels=(3,), **options)


def synthetic(setting, block, in_channels, out_channels, estimate_ms=0.0):
    """A latency that grows with the work and is no power of it."""
    del setting, estimate_ms
    return 0.01 + 1e-6 * block.macs(in_channels, out_channels) ** 0.9
