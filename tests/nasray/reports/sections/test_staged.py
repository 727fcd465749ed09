from __future__ import annotations

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.reports.sections.staged import describe, winner_stages
from nasray.spaces import BottleneckSpace


def test_the_stage_table_follows_the_papers_table_12() -> None:
    architecture = ARCHITECTURES["maedet-m"]
    space = BottleneckSpace()
    table = winner_stages(space, space.from_architecture(architecture))
    assert [stage[:8] for stage in table.stages] == [
        ("C1", "conv", 3, 3, 64, 2, None, 1),
        ("C2", "bottleneck", 3, 64, 120, 2, 64, 2),
        ("C3", "bottleneck", 5, 120, 512, 2, 72, 10),
        ("C4", "bottleneck", 5, 512, 1632, 2, 112, 10),
        ("C5", "bottleneck", 5, 1632, 2048, 2, 184, 8),
    ]
    assert sum(stage.gmacs for stage in table.stages) == pytest.approx(table.costs["gmacs"])


def test_an_architecture_in_a_line():
    assert describe(ARCHITECTURES["maedet-m"]) == (
        "bottleneck blocks: stem of 64 channels, then 2 × 3×3 to 120 (stride 2), 10 × 5×5 to 512 (stride 2), "
        "10 × 5×5 to 1632 (stride 2), 8 × 5×5 to 2048 (stride 2)"
    )
