"""What stands for a supernet in checkpoints, with options of its own, and is built from it again."""

import pytest

from nasray.architectures import ARCHITECTURES, compose
from nasray.models import build
from nasray.models.supernets import from_spec, space_of_supernet, supernet_architecture, supernet_part
from nasray.spaces import Architecture, BottleneckSpace, FADSpace, NasrayError, OFAResNetSpace

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


def streams(network):
    return {type(stream).__name__ for stream in network.cells["box"].edges[0].mixture.streams.values()}


def test_options_of_a_supernet_are_part_of_what_stands_for_it_unless_they_are_defaults():
    plain = supernet_architecture(HEADS)
    assert "supernet" not in plain.spec
    assert supernet_architecture(HEADS, {"shared": True, "decouple": True}) == plain
    separate = supernet_architecture(HEADS, {"shared": False})
    assert separate.spec == {**plain.spec, "supernet": {"shared": False}}
    assert streams(from_spec(in_channels=16, num_levels=5, **plain.spec)) == {"SharedStream"}
    assert streams(from_spec(in_channels=16, num_levels=5, **separate.spec)) == {"SeparateStream"}
    assert space_of_supernet(separate).network_options() == HEADS.network_options()
    assert build(supernet_architecture(OFAResNetSpace("tiny"), {"momentum": 0.5})).momentum == 0.5


def test_what_has_none_is_refused():
    with pytest.raises(NasrayError, match=r"supernet 'fad' has no option 'momentum'. It has: name, shared, decouple"):
        supernet_architecture(HEADS, {"momentum": 0.5})
    with pytest.raises(NasrayError, match="no supernet can be built of this spec: "):
        space_of_supernet(Architecture.create("supernet", {"space": "fad", "grups": 1}))
    with pytest.raises(NasrayError, match="there is no supernet of space 'bottleneck'; there are those of shufflenet"):
        supernet_architecture(BottleneckSpace())
    with pytest.raises(NasrayError, match="no supernet: "):
        space_of_supernet(ARCHITECTURES["resnet18"])
