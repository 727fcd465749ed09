"""Costs of whole detectors around the backbones of a space, for whole populations.

Needs no PyTorch until something is counted.

Shapes: N architectures, M maps of a backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.architectures import compose, has_layers, is_supernet, layer_table, resolution_of, slots
from nasray.models.detectors import DETECTORS, check_slots
from nasray.spaces import Architecture, Costs, NasrayError, Population, Space
from nasray.spaces.resolutions import by_size, size_text
from nasray.spaces.windows import Surcharge, Surcharges

Ints = NDArray[np.int64]
ImageSize = tuple[int, int]

UNITS = {"gmacs": 1e9, "params_m": 1e6}
BASE, STEP, NUM_CHECKS = 64, 8, 3
"""Channels at which the rest of a detector is counted, how many more its slopes are from, and further counts."""


class DetectorCost:
    """The costs of a space's backbones, `gmacs` and `params_m` with the rest of a detector: a searcher's `cost`.

    The rest depends on the channels of the backbone's maps alone. Every detector of ours takes each map by layers that
    grow in proportion to its channels, so M + 1 counts on PyTorch's meta device say what the rest is for any channels.
    Further counts at other channels must agree; where they do not, as in a detector of another package, each
    combination of channels is counted once. What is counted is what `nasray cost --detector` counts, to the last digit.

    Args:
        space: Space of backbones whose `map_channels` says the channels of their maps. Costs are at its `image_hw`,
            or at each row's own resolution.
        name: Name of the detector.
        num_classes: Classes of the detector.
        head: Architecture in its slot for a head; the detector's own if left out.
        source: Where the detector is from, for `scope`, such as "recipe maedet-fcos-3x".
        **options: Options of the detector.

    Raises:
        NasrayError: for a space whose backbones do not say their maps, an image size that the detector's stride does
            not divide, an unknown detector, or a head that it has no slot for.
    """

    def __init__(
        self,
        space: Space,
        name: str,
        /,
        *,
        num_classes: int = 80,
        head: Architecture | None = None,
        source: str = "",
        **options: Any,
    ) -> None:
        none = np.empty((0, space.num_genes), dtype=np.int64)
        self.reductions = tuple(space.map_channels(none))
        if space.image_hw is None or not self.reductions or not UNITS.keys() <= space.cost(none).keys():
            raise NasrayError(
                f"costs of a whole detector need a space of backbones with the costs {' and '.join(UNITS)}, whose "
                f"map_channels says the channels of their maps; space {space.family!r} is none. Leave costs out"
            )
        DETECTORS.check(name)
        check_slots(name, ["head"] if head else [])
        stride = DETECTORS[name].stride
        self.sizes: tuple[ImageSize, ...] = space.resolutions or (space.image_hw,)
        for size in self.sizes:
            if any(side % stride for side in size):
                option = "resolutions" if space.resolutions else "image_hw"
                raise NasrayError(
                    f"costs of a whole detector: sides of its images are multiples of {stride}, got {size_text(size)}. "
                    f"Set space.{option} to {size_text(_padded(size, stride))}"
                )
        self.space, self.name, self.num_classes, self.head = space, name, num_classes, head
        self.source, self.options = source, options
        self.image_hw: ImageSize = space.image_hw
        self._counted: dict[tuple[ImageSize, tuple[int, ...]], tuple[int, int]] = {}
        self._laws: dict[ImageSize, Ints | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_counted": {}}

    @property
    def scope(self) -> str:
        """Return what is counted, in words."""
        head = f" with head {self.head.family} {self.head.id}" if self.head else ""
        about = ", ".join(filter(None, [self.source, f"{self.num_classes} classes"]))
        return f"detector {self.name}{head} ({about})"

    def __call__(self, population: Population) -> Costs:
        """Return the space's costs, `gmacs` and `params_m` those of the whole detector, each (N,)."""
        costs = dict(self.space.cost(population))
        if not len(population):
            return costs
        channels = np.stack(list(self.space.map_channels(population).values()), axis=1)
        rest = np.empty((len(population), len(UNITS)), dtype=np.int64)
        for size, chosen in by_size(self.space, population):
            rest[chosen] = self._rest(channels[chosen], size)
        for column, (name, unit) in enumerate(UNITS.items()):  # counts are whole numbers, and so the sums are exact
            costs[name] = (np.rint(costs[name] * unit) + rest[:, column]) / unit
        return costs

    @property
    def surcharges(self) -> Surcharges | None:
        """What the detector adds to the backbones' costs, by which a space that counts draws within bounds directly.

        None of a detector that does not grow in proportion to its maps' channels; draws within bounds then take
        samples of the whole space.
        """
        found = {}
        for size, (column, name) in product(self.sizes, enumerate(UNITS)):
            law = self._law(size)
            if law is None or law[1:].min() < 0:
                return None
            constant, *slopes = law[:, column].tolist()
            found[name, size] = Surcharge(constant, dict(zip(self.reductions, slopes, strict=True)))
        return found

    def of(self, architecture: Architecture, image_hw: ImageSize | None = None) -> dict[str, float]:
        """Return the costs of a whole detector around any one backbone, in the space or not.

        Args:
            architecture: Backbone.
            image_hw: Height and width of an image; by default the architecture's own resolution, or the space's size.

        Raises:
            NasrayError: if no detector can be built around it.
        """
        from nasray.models.cost import detector_cost

        if self.head is not None:
            architecture = compose({**slots(architecture), "head": self.head})
        size = image_hw or resolution_of(architecture) or self.image_hw
        costs = detector_cost(self.name, architecture, size, num_classes=self.num_classes, **self.options)
        found = {name: costs["total"][name] for name in UNITS}
        backbone = slots(architecture).get("backbone")
        if backbone is not None and has_layers(backbone) and not is_supernet(backbone):
            found["layers"] = float(layer_table(backbone, size).cost()["layers"][0])
        return found

    def _rest(self, channels: Ints, size: ImageSize) -> Ints:
        """Return (N, 2) multiply-adds and parameters of the rest of the detector, of (N, M) channels."""
        law = self._law(size)
        if law is not None:
            rest: Ints = law[0] + channels @ law[1:]
            return rest
        rows, places = np.unique(channels, axis=0, return_inverse=True)
        return self._count(rows, size)[places]

    def _law(self, size: ImageSize) -> Ints | None:
        """(1 + M, 2) the rest without any channels, and what each channel of a map adds; None where that is no law."""
        if size not in self._laws:
            self._laws[size] = self._found_law(size)
        return self._laws[size]

    def _found_law(self, size: ImageSize) -> Ints | None:
        num = len(self.reductions)
        base = np.full(num, BASE)
        try:
            start, *more = self._count(np.concatenate([[base], base + STEP * np.eye(num, dtype=np.int64)]), size)
            slopes = (np.array(more) - start) // STEP
            law = np.concatenate([[start - base @ slopes], slopes])
            others = np.random.default_rng(0).integers(1, 2 * BASE, (NUM_CHECKS, num)) * STEP
            fits = (law[0] + others @ law[1:] == self._count(others, size)).all()
        except NasrayError:  # it cannot be built around all of these
            return None
        return law if fits else None

    def _count(self, channels: Ints, size: ImageSize) -> Ints:
        """Return (N, 2) multiply-adds and parameters of the rest, of (N, M) channels; rows that are new are counted."""
        from nasray.models.cost import count_around

        for row in map(tuple, channels.tolist()):
            if (size, row) not in self._counted:
                maps = dict(zip(self.reductions, row, strict=True))
                self._counted[size, row] = count_around(
                    self.name, maps, size, num_classes=self.num_classes, head=self.head, **self.options
                )
        return np.array([self._counted[size, row] for row in map(tuple, channels.tolist())], dtype=np.int64)


def _padded(image_hw: Sequence[int], stride: int) -> ImageSize:
    height, width = (-(-side // stride) * stride for side in image_hw)
    return height, width
