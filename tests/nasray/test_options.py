"""Options follow from the signatures of parts: types, defaults, texts; and are checked when they are read."""

import copy
import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from pydantic import TypeAdapter

from nasray.evaluators import EVALUATORS
from nasray.experiment import describe_experiment, parse_description, parse_experiment
from nasray.loading import load_plan
from nasray.models.detectors import DETECTORS
from nasray.options import Chosen, make_part, options_of, options_type
from nasray.overrides import dotted_keys, option_texts, override, part_rows
from nasray.registry import REGISTRIES, SEARCHERS, SPACES, Registry
from nasray.spaces import NasrayError
from nasray.spaces.ranges import Range
from nasray.validation import checked, validate


@dataclass(frozen=True)
class Warming:
    """How a tool warms up.

    Attributes:
        steps: Steps of it.
        rate: First rate.
    """

    steps: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.steps > 100:
            raise ValueError(f"steps are at most 100, got {self.steps}")


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

    def __init__(self, place: Any, size: Annotated[int, Range(2, 9)], *, color: Literal["red", "blue"] = "red") -> None:
        self.place, self.size, self.color = place, size, color


class Drill(Tool):
    """A drill.

    Args:
        color: Color of the drill.
        bits: Bits in the box.
        warming: How it warms up.
    """

    def __init__(
        self, place: Any, *, bits: Sequence[Annotated[float, Range(above=0)]] = (1.0,), warming: Warming | None = None,
        label: str | None = None, is_loud: bool = True, image_hw: tuple[int, int] = (64, 64), **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(place, **options)
        self.bits, self.warming, self.label, self.is_loud, self.image_hw = bits, warming, label, is_loud, image_hw
        if len(bits) > 2:
            raise ValueError(f"at most two bits, got {bits}")


class Closed(Tool):
    """A tool that hands nothing on."""

    def __init__(self, place: Any, weight: float = 1.0) -> None:
        super().__init__(place, 3)
        self.weight = weight


TOOLS = Registry("tool", {"plain": Tool, "drill": Drill, "closed": Closed}, given=frozenset({"place"}))
del REGISTRIES["tool"]  # of this file alone


@checked
class Box:
    """A box.

    Attributes:
        tool: The tool in it.
    """

    tool: Annotated[Any, Chosen(TOOLS, default="closed")] = field(
        default_factory=Chosen(TOOLS, default="closed").make_default
    )


def read(_content=None, **tool):
    tool = _content or tool
    return validate(TypeAdapter(Box), Box, {"tool": tool}, "test").tool


def test_values_are_read_as_what_they_are():
    options = read(name="drill", size=3, bits=[1, 2.5], warming={"steps": 5}, image_hw="64x32", label="no")
    assert (options.size, options.bits, options.label, options.image_hw) == (3, (1.0, 2.5), "no", (64, 32))
    assert options.warming == Warming(5, 0.1)
    assert type(options.warming) is Warming
    tool = make_part(options, place="here")
    assert (tool.place, tool.size, tool.color, tool.warming) == ("here", 3, "red", Warming(5, 0.1))
    assert make_part(read(), place=None).weight == 1.0


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"name": "plain"}, "tool.size is missing"),
        ({"name": "plain", "size": 1}, "tool.size: Input should be greater than or equal to 2, got 1"),
        ({"name": "plain", "size": 3.0}, "tool.size: Input should be a valid integer, got 3.0"),
        ({"name": "plain", "size": "3"}, "tool.size: Input should be a valid integer, got '3'"),
        ({"name": "plain", "size": True}, "tool.size: Input should be a valid integer, got True"),
        (
            {"name": "plain", "size": 3, "color": "rde"},
            "tool.color: 'rde' is not one of red, blue; did you mean 'red'",
        ),
        (
            {"name": "plain", "size": 3, "colour": 1},
            "tool 'plain' has no option 'colour'; did you mean 'color'?",
        ),
        ({"name": "plain", "size": 3, "colour": None}, "tool 'plain' has no option 'colour'"),
        ({"name": "plain", "size": 3, "place": 1}, "tool 'plain' has no option 'place'"),
        ({"name": "plain", "size": 3, 4: 1}, "tool 'plain' has no option 4"),
        ({"name": "plian"}, "unknown tool 'plian'; did you mean 'plain'? There are: plain, drill, closed"),
        ({"name": ["plain"]}, "unknown tool ['plain']. There are"),
        ({"name": "drill", "size": 3, "bits": [0]}, "tool.bits.0: Input should be greater than 0, got 0"),
        ({"name": "drill", "size": 3, "bits": [float("nan")]}, "tool.bits.0: Input should be a finite number"),
        ({"name": "drill", "size": 3, "warming": 3}, "tool.warming is a mapping of keys to values; got 3"),
        ({"name": "drill", "size": 3, "warming": {}}, "tool.warming.steps is missing"),
        (
            {"name": "drill", "size": 3, "warming": {"step": 3}},
            "tool.warming has no option 'step'; did you",
        ),
        ({"name": "drill", "size": 3, "warming": {"steps": 101}}, "tool.warming: steps are at most 100, got 101"),
        ({"name": "drill", "size": 3, "is_loud": "yes"}, "tool.is_loud: Input should be a valid boolean, got 'yes'"),
        ({"name": "drill", "size": 3, "label": ""}, "tool.label is empty"),
        ({"name": "drill", "size": 3, "image_hw": [3, 4]}, "tool.image_hw: image size is height and width"),
    ],
)
def test_mistakes(tool, message):
    with pytest.raises(NasrayError) as refusal:
        read(tool)
    assert message in str(refusal.value)
    assert str(refusal.value).startswith("test: ")


def test_null_stands_for_the_default_where_it_is_no_value():
    assert read(name="plain", size=3, color=None).color == "red"
    assert read(name="drill", size=3, warming=None, label=None).label is None
    assert read(weight=None).weight == 1.0


def test_what_goes_together_is_the_parts_business():
    with pytest.raises(NasrayError, match="tool 'drill': at most two bits"):
        make_part(read(name="drill", size=3, bits=[1, 2, 3]), place=None)


def test_no_part_is_named_and_none_is_the_default():
    @checked
    class Shelf:
        """A shelf."""

        tool: Annotated[Any, Chosen(TOOLS)]

    with pytest.raises(NasrayError, match=r"tool needs the key name. There are: plain, drill, closed"):
        validate(TypeAdapter(Shelf), Shelf, {"tool": {"size": 3}}, "test")


def test_options_that_are_sections_have_dotted_keys():
    content, _ = override(
        {"tool": {"name": "drill", "warming": None}}, ["--tool.warming.steps", "7", "--tool.bits", "2", "3"], Box
    )
    assert content == {"tool": {"name": "drill", "warming": {"steps": 7}, "bits": [2, 3]}}
    with pytest.raises(NasrayError, match=r"--tool.warming is a section. Its options are --tool.warming.steps"):
        override({"tool": {"name": "drill"}}, ["--tool.warming", "3"], Box)
    assert "tool.warming.rate" in dotted_keys(Box, {"tool": {"name": "drill"}})
    assert [row.key for row in part_rows(TOOLS, "drill")][:3] == ["bits", "warming.steps", "warming.rate"]
    listed = option_texts(Box(tool=options_of(TOOLS, "drill", size=2, warming=Warming(3))))
    assert listed["--tool.warming.steps"] == (3, "Steps of it.")
    with pytest.raises(NasrayError, match=r"unrecognized option '--tool.warming.stesp'; did you mean '--tool.warm"):
        override({"tool": {"name": "drill"}}, ["--tool.warming.stesp", "3"], Box)


def test_a_part_without_types_is_refused_with_the_reason():
    class Untyped:
        """Untyped."""

        def __init__(self, size=3) -> None: ...

    class Strange:
        """Strange."""

        def __init__(self, tool: Tool | None = None) -> None: ...

    class Taken:
        """Taken."""

        def __init__(self, *, references: int = 3) -> None: ...

    parts = Registry("oddity", {"untyped": Untyped, "strange": Strange, "taken": Taken})
    del REGISTRIES["oddity"]
    with pytest.raises(NasrayError, match=r"parameter 'size' of .*Untyped has no type. Annotate it"):
        options_type(parts, "untyped")
    with pytest.raises(NasrayError, match="oddity 'strange' has an option that no YAML can hold"):
        options_type(parts, "strange")
    with pytest.raises(NasrayError, match="oddity 'taken' has an option 'references', a word of nasray's own"):
        options_type(parts, "taken")


@pytest.mark.parametrize("registry", [SPACES, SEARCHERS, EVALUATORS, DETECTORS], ids=lambda registry: registry.what)
def test_every_option_of_ours_has_a_text(registry):
    for name in registry:
        assert registry.text(name)
        assert [row.key for row in part_rows(registry, name) if not row.text] == []
        required = {row.key: "x" for row in part_rows(registry, name) if row.is_required}
        options = options_of(registry, name, **required)
        assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options
        assert dataclasses.replace(options) == options


def test_records_of_earlier_versions_are_read():
    """As format 1 wrote them: every key that any part had, null where it was not given, and former names."""
    description = describe_experiment(load_plan("maedet-tiny").experiment)
    record = description["experiment"]
    space, searcher, evaluator = record["space"], record["searcher"], record["evaluator"]
    record["space"] = {
        "name": "bottleneck", "image_size": [640, 480], "kernels": None, "max_width": None, "max_depth": 5,
        "parts": None, "size": None, "stem_width": None, "widths": None, "depths": None, "shuffle": None,
    }  # fmt: skip
    record["evaluator"] = {
        "name": "zen", "image_size": None, "weights": None, "size_factor": None, "residual": None, "repeats": None,
        "batch_size": 4, "device": None, "images": None, "cache_gib": None,
    }  # fmt: skip
    record["searcher"] = {"name": "random", "population_size": None, "keep": None}
    found = parse_description(description, "test")
    assert found.space == options_of(SPACES, "bottleneck", image_hw=(640, 480), max_depth=5)
    assert found.evaluator == options_of(EVALUATORS, "zen", batch_size=4)
    assert found.searcher == options_of(SEARCHERS, "random")
    record["searcher"] = {"name": "random", "keep": 3}
    with pytest.raises(NasrayError, match="searcher 'random' has no option 'keep'"):
        parse_description(description, "test")
    record |= {"space": space, "searcher": searcher, "evaluator": evaluator}
    assert parse_description(description, "test") == load_plan("maedet-tiny").experiment


def test_what_a_file_may_not_hold_a_record_may_not_either():
    with pytest.raises(NasrayError, match=r"space 'bottleneck' has no option 'image_size'; did you mean 'image_hw'?"):
        parse_experiment({"name": "x", "space": {"image_size": [640, 480]}}, "test")
