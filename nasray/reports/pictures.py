"""Pictures on a page: small, and as text within it."""

from __future__ import annotations

import base64

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.drawing import picture_bytes

SIDE = 480
"""Longer side in pixels."""


def resized(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
    """Return a (3, H, W) image with a longer side of `SIDE`, and by what it was scaled."""
    from PIL import Image

    height, width = image.shape[1:]
    scale = SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1), scale


def figure(image: NDArray[np.uint8], caption: str) -> Markup:
    """Return a (3, H, W) image as a figure with a caption below it."""
    content = base64.b64encode(picture_bytes(image, "JPEG")).decode()
    picture = Markup('<img alt="{}" src="data:image/jpeg;base64,{}">').format(caption, Markup(content))
    return Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(picture, caption)
