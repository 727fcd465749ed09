"""Sizes of image files, for annotations that do not tell them: from the headers, and kept where there are many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasray.data.digests import file_state
from nasray.data.image_files.images import ImageFiles, stored_size
from nasray.data.image_files.pixels import Orientation
from nasray.data.mapped import Arrays, shared_arrays

KEPT_FROM = 2_000
"""Images from which on sizes are kept: reading their headers takes seconds then, in every process."""
VERSION = "1"
"""Of what is kept; to be raised with every change of what a header is taken to say."""


def file_sizes(files: ImageFiles, orientation: Orientation) -> NDArray[np.int64]:
    """Return (I, 2) heights and widths in pixels of image files, (0, 0) where one is missing or no image."""
    paths = [Path(files.name(index)) for index in range(len(files.names))]
    return kept_sizes(paths, len(paths), orientation, lambda: (stored_size(path, orientation) for path in paths))


def kept_sizes(
    paths: Sequence[Path],
    number: int,
    orientation: Orientation,
    read: Callable[[], Iterable[tuple[int, int] | None]],
) -> NDArray[np.int64]:
    """Return sizes that take long to read; those of many are kept until one of the files changes.

    They are in `$NASRAY_CACHE/sizes` under a digest of all names, lengths and times of change.

    Args:
        paths: Files that the images lie in.
        number: Number of images, I.
        orientation: How they are read.
        read: Function that reads the height and width of each, None for what is no image.

    Returns:
        (I, 2) in pixels, (0, 0) for None.
    """

    def make() -> Arrays:
        return {"sizes": np.array([size or (0, 0) for size in read()], dtype=np.int64).reshape(-1, 2)}

    if number < KEPT_FROM:
        return make()["sizes"]
    arrays = shared_arrays("sizes", f"{_digest(paths, orientation)}-{VERSION}", make)
    assert arrays is not None
    return arrays["sizes"]


def _digest(paths: Sequence[Path], orientation: Orientation) -> str:
    digest = hashlib.sha256(orientation.encode())
    for path in paths:
        digest.update(file_state(path))
    return digest.hexdigest()[:32]
