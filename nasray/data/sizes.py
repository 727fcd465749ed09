"""Sizes of image files, for annotations that do not tell them: from the headers, and kept where there are many."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasray.data.images import ImageFiles, stored_size
from nasray.data.mapped import Arrays, shared_arrays
from nasray.data.pixels import Orientation

KEPT_FROM = 2_000
"""Images from which on sizes are kept: reading their headers takes seconds then, in every process."""
VERSION = "1"
"""Of what is kept; to be raised with every change of what a header is taken to say."""


def file_sizes(files: ImageFiles, orientation: Orientation) -> NDArray[np.int64]:
    """Return (I, 2) heights and widths in pixels, (0, 0) where a file is missing or no image.

    Of many images they are kept in `$NASRAY_CACHE/sizes` under a digest of all names, lengths and times of change.

    Args:
        files: Image files.
        orientation: How they are read.
    """

    def make() -> Arrays:
        paths = map(files.name, range(len(files.names)))
        sizes = [stored_size(Path(path), orientation) or (0, 0) for path in paths]
        return {"sizes": np.array(sizes, dtype=np.int64).reshape(-1, 2)}

    if len(files.names) < KEPT_FROM:
        return make()["sizes"]
    arrays = shared_arrays("sizes", f"{_digest(files, orientation)}-{VERSION}", make)
    assert arrays is not None
    return arrays["sizes"]


def _digest(files: ImageFiles, orientation: Orientation) -> str:
    digest = hashlib.sha256(orientation.encode())
    for path in map(files.name, range(len(files.names))):
        try:
            status = os.stat(path)
            state = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            state = (-1, -1)
        digest.update(f"{os.path.abspath(path)}\0{state[0]}\0{state[1]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]
