"""Families, names and slots."""

import dataclasses

import pytest

from nasray.architectures import (
    ARCHITECTURES,
    FAMILIES,
    Family,
    checked_spec,
    compose,
    is_supernet,
    layer_table,
    named_architecture,
    read_architecture,
    slot_of,
    slots,
)
from nasray.models.supernets import supernet_architecture
from nasray.spaces import SPACES, Architecture, NasrayError, ShuffleNetSpace

BACKBONE = ARCHITECTURES["resnet18"]
HEAD = Architecture.create("toy-head", {"width": 8})
PYRAMID = Architecture.create("toy-pyramid", {})
SUPERNET = supernet_architecture(ShuffleNetSpace("small"))


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    for architecture, slot in ((HEAD, "head"), (PYRAMID, "pyramid")):
        monkeypatch.setitem(FAMILIES, architecture.family, Family(slot, "nowhere:Toy", dict))


def test_every_space_has_a_family_and_every_name_is_of_one():
    assert set(SPACES) <= set(FAMILIES)
    for name, architecture in ARCHITECTURES.items():
        assert FAMILIES[architecture.family].named[name] == architecture
        assert named_architecture(name) == architecture
        assert checked_spec(architecture)
    assert named_architecture("resnet19") is None


# SHA-256 of canonical JSON: they are in users' histories and checkpoints.
@pytest.mark.parametrize(
    ("name", "digits"),
    [("maedet-m", "353ff5964d4863c7"), ("resnet50", "124bf7effbeea38d"), ("detnas-coco-fpn", "4a8adb6e4dc7ab99")],
)
def test_ids_stay(name, digits):
    assert ARCHITECTURES[name].id == digits


def test_one_part_is_itself_and_several_are_a_composite():
    assert compose({"backbone": BACKBONE}) is BACKBONE
    assert compose({"head": HEAD}) is HEAD
    both = compose({"head": HEAD, "backbone": BACKBONE})
    assert both.family == "composite"
    assert both == compose({"backbone": BACKBONE, "head": HEAD})
    assert list(slots(both).items()) == [("backbone", BACKBONE), ("head", HEAD)]
    for architecture in (BACKBONE, HEAD, PYRAMID, both, SUPERNET):
        assert compose(slots(architecture)) == architecture
        assert Architecture.from_json(architecture.text) == architecture


def test_a_part_in_the_wrong_slot_is_refused():
    with pytest.raises(NasrayError, match=r"toy-head [0-9a-f]{16} is a head, not a backbone"):
        compose({"backbone": HEAD})
    with pytest.raises(NasrayError, match="a pyramid stands where a backbone and its neck do"):
        compose({"backbone": BACKBONE, "pyramid": PYRAMID})


def test_a_supernet_fills_the_slot_of_its_space(monkeypatch):
    assert slot_of(SUPERNET) == "backbone"
    assert is_supernet(SUPERNET)
    assert is_supernet(compose({"backbone": SUPERNET, "head": HEAD}))
    assert not is_supernet(compose({"backbone": BACKBONE, "head": HEAD}))
    monkeypatch.setitem(FAMILIES, "shufflenet", dataclasses.replace(FAMILIES["shufflenet"], slot="pyramid"))
    assert slot_of(SUPERNET) == "pyramid"


def test_a_composite_is_not_one_network():
    both = compose({"backbone": BACKBONE, "head": HEAD})
    with pytest.raises(NasrayError, match="fills several slots: backbone, head"):
        layer_table(both, (64, 64))
    with pytest.raises(NasrayError, match="spec of a composite has the slots backbone, pyramid, head; got 'neck'"):
        slots(Architecture.create("composite", {"neck": {}}))
    with pytest.raises(NasrayError, match="spec of a composite: an architecture is a JSON object"):
        slots(Architecture.create("composite", {"head": {"spec": {}}}))


def test_families_without_a_table_name_those_with_one():
    with pytest.raises(NasrayError, match="family 'toy-head' has no layer table; those that have: bottleneck, basic"):
        layer_table(HEAD, (64, 64))
    with pytest.raises(NasrayError, match=r"unknown family 'basik' of architectures; did you mean 'basic'\?"):
        layer_table(Architecture.create("basik", {}), (64, 64))


def test_parts_of_a_composite_in_a_file_are_checked(tmp_path):
    path = tmp_path / "a.json"
    both = compose({"backbone": BACKBONE, "head": HEAD})
    path.write_text(both.text)
    assert read_architecture(path) == both
    path.write_text(both.text.replace('"depth":2', '"depth":2.5', 1))
    with pytest.raises(NasrayError, match=r"a.json: spec.stages\[0\].depth is a whole number"):
        read_architecture(path)
