"""Pictures of detections."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def draw_detections(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    labels: Sequence[int],
    scores: Sequence[float] | None,
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """Return an image with boxes, each with its class and score; the best lie on top.

    Args:
        image: (3, H, W) RGB.
        boxes: (D, 4) xyxy in pixels.
        labels: (D,)
        scores: (D,) in [0, 1]; None for true boxes, which have none.
        classes: Names in the order of labels.

    Returns:
        (3, H, W) uint8 RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    pen = ImageDraw.Draw(picture)
    edge = max(picture.size)
    font, width = ImageFont.load_default(max(edge / 45, 9)), max(round(edge / 320), 1)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable").tolist()
    for place in order:
        label = int(labels[place])
        left, top, right, bottom = (float(value) for value in boxes[place])
        color = class_color(label)
        pen.rectangle((left, top, max(right, left + 1), max(bottom, top + 1)), outline=color, width=width)
        text = classes[label] if scores is None else f"{classes[label]} {scores[place]:.2f}"
        size = pen.textbbox((0, 0), text, font=font)
        height = size[3] + 2
        corner = (left, max(top - height, 0))
        pen.rectangle((*corner, left + size[2] + 4, corner[1] + height), fill=color)
        pen.text((left + 2, corner[1]), text, fill="white", font=font)
    return np.asarray(picture).transpose(2, 0, 1)


def class_color(label: int) -> tuple[int, int, int]:
    """Return a color of a class, dark enough for white letters; neighboring labels differ clearly."""
    hue = (0.02 + label * 0.618033988749895) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.38, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def picture_bytes(image: NDArray[np.uint8], file_format: str = "PNG") -> bytes:
    """Return the content of an image file of (3, H, W) uint8 RGB."""
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(sink, file_format)
    return sink.getvalue()
