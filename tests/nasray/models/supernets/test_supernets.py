"""What stands for a supernet in checkpoints, and is built from it again."""

import pytest

from nasray.architectures import ARCHITECTURES, compose
from nasray.models.supernets import from_spec, space_of_supernet, supernet_architecture, supernet_part
from nasray.spaces import BottleneckSpace, FADSpace, NasrayError, OFAResNetSpace

HEADS = FADSpace(channels=8, cells=1, operations="rf-5")


@pytest.mark.parametrize(
    "space", [HEADS, FADSpace(groups=1), OFAResNetSpace("tiny")], ids=["rf-5", "masks", "backbone"]
)
def test_a_supernet_comes_back_from_its_architecture(space):
    architecture = supernet_architecture(space)
    again = space_of_supernet(architecture)
    assert supernet_architecture(again) == architecture
    assert again.num_architectures == space.num_architectures
    assert supernet_part(architecture) == architecture


def test_a_supernet_of_a_head_is_built_for_the_levels_of_its_detector():
    head = from_spec(in_channels=16, num_levels=5, **supernet_architecture(HEADS).spec)
    assert head.out_channels == 16
    assert head.alphas["box"].shape == (9, 4 + 1)


def test_a_supernet_is_found_in_its_slot():
    backbone = ARCHITECTURES["basic-tiny"]
    assert supernet_part(compose({"backbone": backbone, "head": supernet_architecture(HEADS)})).spec["space"] == "fad"
    assert supernet_part(compose({"backbone": backbone, "head": ARCHITECTURES["fad-paper"]})) is None
    assert supernet_part(backbone) is None


def test_what_has_none_is_refused():
    with pytest.raises(NasrayError, match="there is no supernet of space 'bottleneck'; there are those of shufflenet"):
        supernet_architecture(BottleneckSpace())
    with pytest.raises(NasrayError, match="no supernet: "):
        space_of_supernet(ARCHITECTURES["resnet18"])
