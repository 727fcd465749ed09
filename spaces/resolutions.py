"""Resolutions: sizes of images, one of which a gene of every architecture chooses.

The gene is the last one, and its value the height; networks of two resolutions that agree in all other genes are the
same network. What an architecture costs, it costs at its own resolution.

Reference: Cai et al., "Once-for-All", ICLR 2020, section 3.

Shapes: N architectures, G genes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.spaces.base import Gene, Population, Space
from nasray.spaces.errors import NasrayError
from nasray.spaces.ranges import check_image_hw, shortened

NAME = "resolution"
"""Name of the gene, and the key of height and width in the spec of an architecture."""
STEP = 32
"""What heights and widths are multiples of: the reduction of the coarsest map, so that no image is padded further."""

ImageSize = tuple[int, int]


def check_resolutions(resolutions: Sequence[Any], image_hw: ImageSize) -> tuple[ImageSize, ...]:
    """Return heights and widths, ascending.

    Args:
        resolutions: Heights and widths in pixels.
        image_hw: The largest of them.

    Raises:
        NasrayError: if they are fewer than two, no multiples of 32, do not ascend in both sides, or end elsewhere.
    """
    sizes = tuple(sorted(check_image_hw(size) for size in resolutions))
    if len(sizes) < 2:
        raise NasrayError(f"resolutions are two at least, got {shortened(list(sizes))}. Add another, or leave them out")
    for size in sizes:
        if any(side % STEP for side in size):
            raise NasrayError(f"sides of resolutions are multiples of {STEP}, got {size_text(size)}. Round them")
    for smaller, larger in itertools.pairwise(sizes):
        if not (smaller[0] < larger[0] and smaller[1] <= larger[1]):
            raise NasrayError(
                f"of two resolutions one is higher and not narrower; got {size_text(smaller)} and {size_text(larger)}. "
                "Leave one out"
            )
    if sizes[-1] != tuple(image_hw):
        raise NasrayError(
            f"the largest of the resolutions, {size_text(sizes[-1])}, is image_hw, which is {size_text(image_hw)}. Set "
            "image_hw to it"
        )
    return sizes


def resolution_gene(resolutions: Sequence[ImageSize]) -> Gene:
    """Return the gene that chooses one of the checked resolutions."""
    return Gene(NAME, tuple(height for height, _ in resolutions))


def size_of(space: Space, row: NDArray[np.int64]) -> ImageSize | None:
    """Return height and width of the images of a (G,) row: its resolution; None in a space without resolutions."""
    return next((size for size in space.resolutions if size[0] == row[-1]), None)


def common_size(space: Space) -> ImageSize | None:
    """Return the size of images at which all costs are counted; None where there is none, or several."""
    return None if space.resolutions else space.image_hw


def by_size(space: Space, population: Population) -> Iterator[tuple[ImageSize, Any]]:
    """Yield the sizes of images that (N, G) rows have, and which rows, as an index; of the space's own size all rows.

    Args:
        space: Space with an `image_hw`.
        population: (N, G) rows.
    """
    if not space.resolutions:
        assert space.image_hw is not None
        yield space.image_hw, slice(None)
    for size in space.resolutions:
        chosen = np.flatnonzero(population[:, -1] == size[0])
        if len(chosen):
            yield size, chosen


def network_genes(space: Space, row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the genes of a (G,) row that its network depends on: all but the resolution."""
    return row[:-1] if space.resolutions else row


def size_text(size: Sequence[int]) -> str:
    """Return a size as options have it: HEIGHTxWIDTH."""
    return "x".join(map(str, size))
