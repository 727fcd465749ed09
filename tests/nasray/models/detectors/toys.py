"""A head and pyramids of a stranger's package: what the contracts of slots ask, and nothing more."""

import pytest
import torch
from torch import nn

from nasray.architectures import FAMILIES, Family
from nasray.models.backbone import Backbone
from nasray.models.detectors.heads import TwinTowers
from nasray.models.detectors.necks import FPN
from nasray.spaces import Architecture
from tests.nasray.models.detectors.common import TINY

HEAD = Architecture.create("toy-head", {"width": 24})
TWIN = Architecture.create("toy-twin", {"num_convs": 1, "norm": "group"})
PYRAMID = Architecture.create("toy-pyramid", {"channels": 16})
FPN_PYRAMID = Architecture.create("toy-fpn", {"channels": 16})


class ToyHead(nn.Module):
    """Features of a width of its own, of levels and of pooled regions."""

    def __init__(self, width, *, in_channels, num_levels):
        super().__init__()
        self.out_channels, self.num_levels = width, num_levels
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, width, 3, padding=1) for _ in range(2))

    def towers(self, level, index):
        assert 0 <= index < self.num_levels
        return self.convs[0](level).relu(), self.convs[1](level).relu()

    def forward(self, pooled):
        return self.convs[0](pooled).relu() + self.convs[1](pooled).relu()


class TwinHead(TwinTowers):
    """The default head, as a stranger would bring it."""

    def __init__(self, num_convs, norm, *, in_channels, num_levels):
        super().__init__(in_channels, num_convs, norm, num_levels)


class ToyPyramid(nn.Module):
    """Five groups on three maps."""

    def __init__(self, channels):
        super().__init__()
        self.out_channels, self.num_groups, self.stride = channels, 5, 64
        self.strides = (8, 8, 16, 16, 64)
        self.stem = nn.Conv2d(3, channels, 8, stride=8)
        self.halves = nn.ModuleList(nn.Conv2d(channels, channels, stride, stride=stride) for stride in (2, 4))

    def forward(self, images):
        fine = self.stem(images).relu()
        middle = self.halves[0](fine).relu()
        return [fine, fine, middle, middle, self.halves[1](middle).relu()]


class FpnPyramid(nn.Module):
    """A backbone and a feature pyramid as one network."""

    def __init__(self, channels):
        super().__init__()
        self.out_channels, self.num_groups, self.stride, self.strides = channels, 5, 32, (4, 8, 16, 32, 64)
        spec = TINY.spec
        self.body = Backbone(TINY.family, spec["stem"], spec["stages"])
        self.fpn = FPN(self.body.out_channels, channels, "pool")

    def forward(self, images):
        return self.fpn(list(self.body(images).values()))


@pytest.fixture
def toys(monkeypatch):
    """The toys as families."""
    for architecture, slot, kind in (
        (HEAD, "head", ToyHead), (TWIN, "head", TwinHead), (PYRAMID, "pyramid", ToyPyramid),
        (FPN_PYRAMID, "pyramid", FpnPyramid),
    ):  # fmt: skip
        family = Family(slot, f"{__name__}:{kind.__name__}", dict)
        monkeypatch.setitem(FAMILIES, architecture.family, family)


def exported(module, images):
    """Outputs of PyTorch's exported program of a module."""
    with torch.no_grad():
        return torch.export.export(module.eval(), (images,), strict=False).module()(images)
