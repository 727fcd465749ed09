"""The conformance suite of supernets accepts ours and a stranger's, and finds what is wrong with others."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nasray.models.supernets.testing import check_supernet
from nasray.spaces import FADSpace, OFAResNetSpace, ShuffleNetSpace
from tests.nasray.models.supernets.toy import ElasticConv2d, ToySpace, ToySupernet, register

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = ShuffleNetSpace(stem_width=4, widths=(8, 12, 16, 24), depths=(1, 2, 1, 1))


HEADS = {"channels": 8, "cells": 1}
RESOLVED = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))


@pytest.mark.parametrize("space", [NARROW, ToySpace(), RESOLVED], ids=["shufflenet", "toy", "resolutions"])
def test_supernets_conform(space, monkeypatch):
    register(monkeypatch)
    check_supernet(space)


@pytest.mark.parametrize(
    ("space", "options"),
    [
        (FADSpace(**HEADS), {"decouple": False}),
        pytest.param(FADSpace(**HEADS), {"shared": False}, marks=pytest.mark.slow),
        (FADSpace(groups=1, **HEADS), {"decouple": False}),
        (FADSpace(operations="darts", **HEADS), {}),
    ],
    ids=["boxes", "nothing shared", "masks", "darts"],
)
def test_relaxed_heads_conform(space, options):
    """With nothing in them that the derived heads lack; what is off a path stays as it is to the bit."""
    check_supernet(space, image_hw=(8, 10), num_paths=2, options=options)


class Copies(ToySupernet):
    def path_state(self, row):
        return {name: value.clone() for name, value in super().path_state(row).items()}


class Unpadded(ToySupernet):
    def forward(self, images):
        return self.network(images)


class Trailing(ToySupernet):
    """The last channels of a stage run, its network is cut from the first."""

    def __init__(self, space):
        super().__init__(space)
        for stage in self.network.stages:
            stage.conv.forward = lambda x, conv=stage.conv: F.conv2d(
                x, conv.weight[-conv.width :, : x.shape[1]], None, conv.stride, conv.padding
            )


class Touches(ToySupernet):
    """What is not on the path gets a gradient."""

    def forward(self, images):
        maps = super().forward(images)
        whole = sum(stage.conv.weight.mean() for stage in self.network.stages)
        maps["c5"] = maps["c5"] + 0 * whole + (whole - whole.detach())
        return maps


class Counts(ToySupernet):
    """Every pass changes a statistic that no path has."""

    def __init__(self, space):
        super().__init__(space)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        self.passes += 1
        return super().forward(images)


class Accepts(ToySupernet):
    def _checked(self, genes):
        return torch.as_tensor(genes).numpy()


class Remembers(ToySupernet):
    """Weights come with a path."""

    def load_state_dict(self, state, **options):
        result = super().load_state_dict(state, **options)
        self.set_path([4, 4, 4, 4])
        return result


class Promises(ToySupernet):
    """A parameter without gradient is named as one of every path."""

    def __init__(self, space):
        super().__init__(space)
        self.aside = nn.Parameter(torch.zeros(2))

    def path_parameters(self, genes):
        yield from super().path_parameters(genes)
        yield self.aside, (slice(0, 2),)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Copies, "copies"),
        (Unpadded, "not those of feature_info"),
        (Trailing, "differ in map c"),
        (Touches, "gradient off the path"),
        (Counts, "buffer passes is off the path"),
        (Accepts, "no architecture of the space, and extract"),
        (Promises, "aside is on the path .* and has no gradient"),
        (Remembers, "the path is a part of the state"),
    ],
)
def test_what_is_wrong_is_found(broken, message, monkeypatch):
    register(monkeypatch, broken)
    with pytest.raises(AssertionError, match=message):
        check_supernet(ToySpace())


def test_a_decayed_parameter_off_the_path_is_found(monkeypatch):
    class Zeros(ToySupernet):
        """A part that no path has gets gradients of 0, for which optimizers decay it."""

        def __init__(self, space):
            super().__init__(space)
            self.aside = nn.Linear(2, 2)

        def forward(self, images):
            maps = super().forward(images)
            maps["c5"] = maps["c5"] + 0 * self.aside.weight.sum()
            return maps

    register(monkeypatch, Zeros)
    with pytest.raises(AssertionError, match=r"aside\.weight is off the path .* and has moved"):
        check_supernet(ToySpace())


def test_a_region_is_found_in_any_layout():
    supernet = ToySupernet(ToySpace()).to(memory_format=torch.channels_last)
    regions = {id(parameter): region for parameter, region in supernet.path_parameters([4, 6, 8, 4])}
    convolutions = [module.weight for module in supernet.modules() if isinstance(module, ElasticConv2d)]
    assert [regions[id(weight)][:2] for weight in convolutions] == [
        (slice(0, 4), slice(0, 6)), (slice(0, 6), slice(0, 4)), (slice(0, 8), slice(0, 6)), (slice(0, 4), slice(0, 8))
    ]  # fmt: skip
