"""What constructors and docstrings say about the parameters of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from nasray.signatures import REQUIRED, attribute_texts, keywords, parameters
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from pathlib import Path


class Tool:
    """A tool.

    Args:
        size: Its size,
            in two lines.
        color: Its color.
        extra: See below.

    Attributes:
        used: How often it was used.

    Raises:
        ValueError: never.
    """

    def __init__(self, place: str, size: int, *, color: Literal["red", "blue"] = "red") -> None:
        self.place, self.size, self.color = place, size, color


class Drill(Tool):
    """A drill.

    Args:
        color: Color of the drill.
        bits: Bits in the box.
    """

    def __init__(self, place: str, *, bits: tuple[float, ...] = (1.0,), **options: Any) -> None:
        super().__init__(place, **options)
        self.bits = bits


class Closed(Tool):
    """A tool that hands nothing on."""

    def __init__(self, place: str, weight: float = 1.0) -> None:
        super().__init__(place, 2)
        self.weight = weight


def test_keywords_go_through_the_bases_as_far_as_options_are_handed_on():
    assert list(keywords(Tool)) == ["place", "size", "color"]
    drill = keywords(Drill, frozenset({"place"}))
    assert list(drill) == ["bits", "size", "color"]
    assert drill["size"].default is REQUIRED
    assert drill["size"].text == "Its size, in two lines."
    assert drill["color"].text == "Color of the drill."
    assert (drill["color"].kind, drill["color"].default) == (Literal["red", "blue"], "red")
    assert list(keywords(Closed, frozenset({"place"}))) == ["weight"]


def test_parameters_name_the_constructor_that_declares_them():
    assert {name: construct for name, (construct, _) in parameters(Drill).items()} == {
        "place": Drill.__init__,
        "bits": Drill.__init__,
        "size": Tool.__init__,
        "color": Tool.__init__,
    }


def test_texts_of_a_docstring():
    assert attribute_texts(Tool) == {
        "size": "Its size, in two lines.",
        "color": "Its color.",
        "extra": "See below.",
        "used": "How often it was used.",
    }
    assert attribute_texts(Closed) == {}


def test_a_type_that_is_not_known_at_run_time_is_named():
    class Untyped:
        def __init__(self, size=3): ...

    class Late:
        def __init__(self, path: Path): ...

    with pytest.raises(NasrayError, match=r"parameter 'size' of .*Untyped has no type"):
        keywords(Untyped)
    with pytest.raises(NasrayError, match=r"'path' of .*Late is not known at run time.*outside of TYPE_CHECKING"):
        keywords(Late)
