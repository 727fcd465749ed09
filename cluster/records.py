"""What nasray keeps in small JSON and YAML files beside the history, and the one gate through which it is read back.

A file can be cut short by a disk, edited, or of another program. Nothing of it is taken unless all of it has the shape
in which nasray writes it; the message names the file, what is wrong, and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from nasray.cluster.reading import parse_yaml, read_json, read_text, shown, to_yaml
from nasray.spaces import NasrayError

OPEN = ConfigDict(strict=True, extra="allow")
"""Types are not converted; keys that a later version adds are kept.

mypy knows no attributes of a TypedDict: therefore `ignore[misc]` wherever a record has it as `__pydantic_config__`.
"""

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""JSON has null for what is not a number."""

Numbers = dict[str, Number]


class BestEntry(TypedDict):
    """One of the best architectures of a run."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    id: str
    evaluation: int
    metrics: Numbers
    costs: Numbers
    architecture: ArchitectureEntry


class ArchitectureEntry(TypedDict):
    """An architecture as `Architecture.create` takes it."""

    family: str
    spec: dict[str, Any]


class ObjectiveEntry(TypedDict):
    """An objective as `Objective` takes it."""

    name: str
    direction: Literal["max", "min"]


class Best(TypedDict):
    """best.json."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    objectives: Annotated[list[ObjectiveEntry], Field(min_length=1)]
    evaluations: Annotated[int, Field(ge=1)]
    finished: bool
    best: Annotated[list[BestEntry], Field(min_length=1)]


class Trial(TypedDict):
    """A file of trials/."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    batch: Annotated[int, Field(ge=0)]
    started: float
    seconds: Annotated[float, Field(ge=0)]
    host: str
    process: int


class RunDescription(TypedDict):
    """experiment.yaml; what it says of the experiment, `nasray.experiment` reads."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: int
    experiment: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]
    git_revision: NotRequired[str | None]
    rank: NotRequired[RankOptions]


class RankOptions(TypedDict):
    """What a run of `nasray rank` was begun with."""

    run: str
    seed: int
    recipes: NotRequired[str]


class Summary(TypedDict):
    """summary.json of a training."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    iterations: Annotated[int, Field(ge=0)]
    epochs: float
    best: dict[str, Number]
    last: Numbers


class PixelRulesEntry(TypedDict):
    """Rules of reading images as `PixelRules.from_json` takes them."""

    orientation: Literal["upright", "stored"]
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | None


class TrainingDescription(TypedDict):
    """recipe.yaml of a training; what it says of the recipe, `nasray.recipe` reads."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: int
    recipe: dict[str, Any]
    architecture: ArchitectureEntry
    classes: list[str]
    category_ids: list[int]
    pixel_rules: NotRequired[PixelRulesEntry]


class StageRecord(TypedDict):
    """What a stage took and gave."""

    seconds: Annotated[float, Field(ge=0)]
    sessions: Annotated[int, Field(ge=0)]
    inputs: NotRequired[dict[str, str]]
    result: NotRequired[dict[str, str | int | Number]]


class RungEntry(TypedDict):
    """What was decided at a rung of a halving."""

    epochs: float
    scores: Numbers
    left: Annotated[list[str], Field(min_length=1)]


class Halved(TypedDict):
    """halving.json."""

    rungs: list[RungEntry]


class ReachedEntry(TypedDict):
    """What a training reached at a rung."""

    epochs: float
    metrics: Numbers


class Reached(TypedDict):
    """rungs.json of a training."""

    rungs: list[ReachedEntry]


class Told(TypedDict):
    """told.json of a search or a training."""

    told: Annotated[int, Field(ge=0)]


class Kept(TypedDict):
    """What a callback keeps in callbacks/ of a run."""

    id: str


class PrunedOperationEntry(TypedDict):
    """An operation as a pruning saw it."""

    operation: dict[str, int]
    score: float
    cost: float
    bucket: Annotated[int, Field(ge=0)]
    state: Literal["pruned", "kept", "spared"]


class PrunedRecord(TypedDict):
    """pruned.json."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: int
    space: dict[str, Any]
    filter: str
    cost: str
    edges: Annotated[list[float], Field(min_length=2)]
    thresholds: list[float | None]
    measured: dict[str, Any]
    operations: list[PrunedOperationEntry]


class Interval(TypedDict):
    """An estimate and its interval."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    value: Number
    low: Number
    high: Number


class Agreement(TypedDict):
    """How a predictor agrees with training: null where it cannot be stated."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    kendall: Interval
    spearman: Number | Interval  # with an interval in earlier versions
    num: NotRequired[int]


class RankRow(TypedDict):
    """An architecture of rank.json, with further metrics and costs."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    id: str
    mAP: Number
    supernet: NotRequired[Number]


class Spread(TypedDict):
    """Mean and deviation of random architectures."""

    mean: Number
    sd: Number
    num: int


class Measured(TypedDict):
    """What a rank.json is of."""

    run: str
    score: str
    space: dict[str, Any]
    budget: dict[str, float]
    scores: dict[str, dict[str, Any]]
    recipe: str
    data: str


class Rank(TypedDict):
    """rank.json."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    architectures: Annotated[list[RankRow], Field(min_length=1)]
    agreement: dict[str, Agreement]
    random: Spread
    winner: NotRequired[RankRow]
    measured: NotRequired[Measured]


def yaml_record(content: Any) -> bytes:
    """Return the content of a YAML file of ours; its first and last line tell whether it is whole."""
    return f"---\n{to_yaml(content)}...\n".encode()


def _read_yaml(path: Path) -> Any:
    """Read a file of `yaml_record`, or one of earlier versions, which begins without a mark."""
    text = read_text(path)
    if text.startswith("---\n") and not text.endswith(
        "\n...\n"
    ):  # what is left may be valid, with defaults for the rest
        raise NasrayError(f"{shown(path)} is cut short. Restore it")
    return parse_yaml(text, shown(path))


def read_record(path: Path, kind: Any, remedy: str) -> dict[str, Any]:
    """Return the content of a JSON or YAML file of ours.

    Args:
        path: The file.
        kind: What it holds: a type for pydantic.
        remedy: Sentence that says what to do where it holds something else.

    Raises:
        NasrayError: if it cannot be read, or does not hold what it should.
    """
    read: Callable[[Path], Any] = _read_yaml if path.suffix == ".yaml" else read_json
    try:
        content = read(path)
    except NasrayError as error:
        raise NasrayError(f"{str(error).rpartition('. ')[0] or error}. {remedy}") from error
    return check_record(content, kind, path, remedy)


def check_record(content: Any, kind: Any, path: Path, remedy: str) -> dict[str, Any]:
    """Return what a file holds; the arguments and errors are those of `read_record`."""
    try:
        record: dict[str, Any] = _adapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        raise NasrayError(f"{shown(path)} is not as nasray wrote it: {_first(error)}. {remedy}") from None
    return record


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first(error: ValidationError) -> str:
    item = error.errors(include_url=False)[0]
    where = ".".join(map(str, item["loc"]))
    more = error.error_count() - 1
    return f"{where + ': ' if where else ''}{item['msg']}" + (f" (and {more} more)" if more else "")
