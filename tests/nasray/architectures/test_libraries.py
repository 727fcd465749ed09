import sys

import pytest

from nasray.architectures import checked_spec, named_architecture, slot_of
from nasray.finding import find_architecture
from nasray.spaces import Architecture, NasrayError


def test_names():
    found = find_architecture("torchvision:resnet50")
    assert found == Architecture.create("torchvision", {"name": "resnet50"})
    assert named_architecture("torchvision:resnet50") == found
    assert slot_of(found) == "backbone"
    assert named_architecture("resnet50") != found
    assert named_architecture("elsewhere:resnet50") is None


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NasrayError, match=r"models of timm need it.*Install it: .*nasray\[timm\]|\.\[timm\]"):
        find_architecture("timm:convnext_tiny")


@pytest.mark.parametrize("spec", [{}, {"name": 3}, {"name": "../x"}, {"name": "resnet50", "weights": "x"}])
def test_a_bad_spec_is_refused(spec):
    with pytest.raises(NasrayError, match="spec"):
        checked_spec(Architecture.create("torchvision", spec))


def test_an_unknown_name_says_what_else_there_is():
    with pytest.raises(NasrayError, match="any model of torchvision that is installed, such as torchvision:resnet50"):
        find_architecture("resnet51")
