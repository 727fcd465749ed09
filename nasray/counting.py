"""What budgets count: what a space says of itself, or a whole detector around its backbones.

What is counted is settled when a run begins, and kept in its experiment.yaml, so that a run that is continued counts
the same, whatever has become of recipe and data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from nasray.architectures import has_layers, is_supernet, layer_table, resolution_of
from nasray.models.detectors import DETECTORS
from nasray.options import Chosen
from nasray.spaces import Architecture, CostFunction, NasrayError, Space
from nasray.spaces.ranges import shortened
from nasray.validation import checked
from nasray.values import whole

if TYPE_CHECKING:
    from nasray.models.detector_cost import DetectorCost
    from nasray.recipe import Recipe

Scope = Literal["backbone", "detector"]
NUM_CLASSES = {"detection": 80, "classification": 1000}
"""Classes that networks are counted with where no data say otherwise: those of COCO and of ImageNet."""


@checked
class CountedOptions:
    """The detector that `costs: detector` counts; a run writes all of it down when it begins.

    Attributes:
        detector: Name and options of the detector; what `recipe` says if left out.
        head: Architecture in its slot for a head, as in a JSON file; what `recipe` says if left out.
        classes: Number of its classes; those of the data, if they are there when the run begins, else the 80 of COCO.
    """

    detector: Annotated[Any, Chosen(DETECTORS)] | None = None
    head: dict[str, Any] | None = None
    classes: Annotated[int, whole(1, 100_000)] | None = None


class Counting(Protocol):
    """A configuration that says what is counted."""

    @property
    def costs(self) -> Scope | None: ...  # noqa: D102
    @property
    def counted(self) -> CountedOptions: ...  # noqa: D102
    @property
    def recipe(self) -> str | None: ...  # noqa: D102
    @property
    def data(self) -> str | None: ...  # noqa: D102


def counted_cost(content: Counting, space: Space) -> tuple[CostFunction, CountedOptions]:
    """Return what a configuration counts of its space, and the detector that it counts, written out.

    Raises:
        NasrayError: for what is not of this space, a recipe without a detector, or data that cannot be read.
    """
    if content.costs == "detector":
        counted = _settled(content)
        return _detector_cost(counted, content.recipe, space), counted
    if content.costs is not None and content.costs != space.cost_scope:
        raise NasrayError(
            f"costs: {content.costs}, but space {space.family!r} counts the {space.cost_scope}. Leave costs out"
        )
    if content.counted != CountedOptions():
        raise NasrayError("counted is the detector of costs: detector. Set costs to detector, or leave counted out")
    return space.cost, content.counted


def cost_of_detector(counted: CountedOptions, space: Space) -> CostFunction:
    """Return the costs of a space's backbones within a detector that is settled; as `counted_cost` with one.

    Raises:
        NasrayError: for an unknown detector, or one that does not go with the space.
    """
    if counted.detector is None or counted.classes is None:
        raise NasrayError("counted needs detector and classes, as the experiment.yaml of a run has them")
    return _detector_cost(counted, None, space)


def costs_of(
    architecture: Architecture, cost: CostFunction, space: Space, image_hw: tuple[int, int] | None = None
) -> dict[str, float]:
    """Return the costs of one architecture, in a space or not, as they are counted there; {} where that is not known.

    Args:
        architecture: Architecture.
        cost: What is counted, as `counted_cost` returns it.
        space: Space at whose image size it is counted, unless the architecture has its own resolution.
        image_hw: Height and width to count it at instead of both.
    """
    if space.image_hw is None or is_supernet(architecture):
        return {}
    size = image_hw or resolution_of(architecture) or space.image_hw
    whole = getattr(cost, "of", None)
    try:
        if whole is not None:
            found: dict[str, float] = whole(architecture, size)
            return found
        if has_layers(architecture):
            counted = layer_table(architecture, size).cost()
        else:  # as a head
            counted = cost(space.from_architecture(architecture)[None])
        return {name: float(value[0]) for name, value in counted.items()}
    except ValueError:  # neither of the space nor of a family that describes layers, or it does not fit the detector
        return {}


def _detector_cost(counted: CountedOptions, recipe: str | None, space: Space) -> DetectorCost:
    from nasray.models.detector_cost import DetectorCost

    assert counted.detector is not None
    assert counted.classes is not None
    options = dict(vars(counted.detector))
    try:
        head = Architecture.from_dict(counted.head) if counted.head is not None else None
    except ValueError as error:
        raise NasrayError(f"counted.head: {error}") from None
    source = f"recipe {recipe}" if recipe else ""
    return DetectorCost(space, options.pop("name"), num_classes=counted.classes, head=head, source=source, **options)


def _settled(content: Counting) -> CountedOptions:
    """Return what is counted, nothing left out but a head that there is not."""
    counted = content.counted
    if counted.detector is not None and counted.classes is not None:
        return counted
    recipe = _recipe(content) if content.recipe is not None or counted.detector is None else None
    detector, head, data = counted.detector, counted.head, content.data
    if recipe is not None:
        data = data or recipe.data
        if detector is None:
            detector = recipe.detector
            head = head if head is not None else _head(recipe)
    classes = counted.classes or (_num_classes(data) if data else None) or NUM_CLASSES["detection"]
    return CountedOptions(detector, head, classes)


def _recipe(content: Counting) -> Recipe:
    from nasray.recipe import load_recipe

    if content.recipe is None:
        raise NasrayError(
            "costs: detector counts the detector of the experiment's `recipe`, which is not set. Set it, such as "
            "--recipe maedet-fcos-3x"
        )
    recipe = load_recipe(content.recipe)
    if recipe.task != "detection":
        raise NasrayError(
            f"costs: detector counts the detector of the experiment's `recipe`; {shortened(content.recipe)} is of "
            f"{recipe.task}. Name one of detection, such as maedet-fcos-3x"
        )
    return recipe


def _head(recipe: Recipe) -> dict[str, Any] | None:
    from nasray.finding import find_part

    if recipe.head is None:
        return None
    head = find_part(recipe.head, "head")
    return {"family": head.family, "spec": head.spec}


def _num_classes(data: str) -> int | None:
    """Return the number of classes of a data set; None if there is none of this name."""
    from nasray.data import open_data

    if data != "shapes" and not Path(data).exists():
        return None
    return len(open_data(data).classes)
