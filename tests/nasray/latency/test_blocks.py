import pytest

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.latency import (
    Setting,
    block_latency,
)
from nasray.latency.table import _needed


@pytest.mark.parametrize("family", ["bottleneck", "basic"])
def test_every_block_of_resnets_can_be_measured(monkeypatch, family):
    monkeypatch.setattr("nasray.latency.blocks.ENTRY_SECONDS", 0.001)
    name = {"bottleneck": "resnet50", "basic": "resnet18"}[family]
    layers = layer_table(ARCHITECTURES[name], (32, 32))
    setting = Setting.here((32, 32), device="cpu")
    for block in {entry[0] for entry in _needed(layers)}:
        in_channels = 1 if block.kind == "add" else 8
        assert block_latency(setting, block, in_channels, 8) > 0
