"""The types of detectors' options, with their ranges."""

from __future__ import annotations

from typing import Annotated, Literal

from nasray.spaces.ranges import MAX_SIDE, MAX_WIDTH, Range

Channels = Annotated[int, Range(1, MAX_WIDTH)]
NumConvs = Annotated[int, Range(0, 64)]
NumDetections = Annotated[int, Range(1, 100_000)]
AnchorSize = Annotated[float, Range(maximum=MAX_SIDE, above=0)]
RegionSamples = Annotated[int, Range(1, 100_000)]
RegionSize = Annotated[float, Range(maximum=MAX_SIDE, above=0)]
FirstLevel = Annotated[int, Range(2, 3)]
Norm = Literal["batch", "group", "none"]
BoxHeadKind = Literal["2fc", "4conv1fc", "2conv1fc"]

# Defaults stand here where others need them too: signatures are read without importing PyTorch.
REGION_BASE = 224.0
"""Edge in pixels of a square of group 4 (Lin et al., FPN, section 4.2)."""
