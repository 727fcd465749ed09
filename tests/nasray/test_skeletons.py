"""Signatures from source are those of the classes, and cost no import of PyTorch."""

import subprocess
import sys

import pytest

from nasray.models.detectors import DETECTORS
from nasray.signatures import keywords
from nasray.skeletons import skeleton


@pytest.mark.parametrize("name", DETECTORS)
def test_a_skeleton_has_the_keywords_of_its_class(name):
    made, real = DETECTORS.signed(name), DETECTORS.part(name)
    assert made is not real
    ours, wanted = keywords(made, DETECTORS.given), keywords(real, DETECTORS.given)
    assert list(ours.items()) == list(wanted.items())
    assert (made.__name__, made.__module__, made.__doc__) == (real.__name__, real.__module__, real.__doc__)


def test_what_has_no_source_or_no_such_class_has_no_skeleton():
    assert skeleton("math:Absent", frozenset()) is None
    assert skeleton("nasray.models.detectors.fcos:Absent", frozenset()) is None


def test_a_part_that_a_process_registers_stands_for_itself(monkeypatch):
    class Own(DETECTORS["yolof"]):
        pass

    monkeypatch.setitem(DETECTORS, "yolof", Own)
    assert DETECTORS.signed("yolof") is Own


def test_options_that_a_subclass_hands_on_are_those_of_its_base(tmp_path, monkeypatch):
    (tmp_path / "handing_on.py").write_text(
        '''
from __future__ import annotations

from typing import Annotated

from nasray.spaces.ranges import Range

LEAST = 2
Size = Annotated[int, Range(LEAST, 9)]


class Base:
    """Base.

    Args:
        size: Size of it.
    """

    def __init__(self, *, size: Size = LEAST) -> None:
        raise RuntimeError


class Derived(Base):
    """Derived."""

    def __init__(self, number: Unknown, *, flag: bool = False, **options: object) -> None:
        raise RuntimeError
'''
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = keywords(skeleton("handing_on:Derived", frozenset({"number"})), frozenset({"number"}))
    assert list(found) == ["flag", "size"]
    assert (found["size"].default, found["size"].text) == (2, "Size of it.")
    assert "handing_on" not in sys.modules


def test_a_recipe_is_read_without_torch():
    code = """
import sys
from nasray.recipe import load_recipe
found = [load_recipe(name).detector.name for name in ("maedet-fcos-3x", "detofa-centernet-voc", "msnas-4x-tiny")]
print(found, sorted({"torch", "torchvision"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['fcos', 'centernet', 'faster-rcnn'] []\n"
