"""How pixel values become 8-bit RGB, and which way up they are.

The same picture gives the same values, whatever its container, depth and mode:

- More than 8 bits are scaled linearly: 16 bits by 255 / 65535, other depths likewise where the file states them (12
  bits of a TIFF, the largest value of a PGM). What a file does not state is never guessed: floats, signed and 32-bit
  values, and 16-bit files that use a quarter of their range at most (10, 12 or 14 bits, or a dark picture) need a
  `value_range`.
- Transparency is dropped and the stored colors are taken, as torchvision, OpenCV and Detectron2 do; premultiplied
  colors are divided by it first. Color profiles and gamma are ignored, as there.
- Pixels are turned as EXIF says, as viewers, OpenCV and Detectron2 do, unless the data set says "stored".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import NasrayError

Orientation = Literal["upright", "stored"]

SURE_OF_16_BITS = 2**14
"""A 16-bit image whose largest value is below may be one of 14 bits or less."""


@dataclass(frozen=True)
class PixelRules:
    """How the image files of a data set are read; a trained detector keeps those of its training.

    Attributes:
        orientation: "upright" turns pixels as EXIF says, so that they are as a person sees them; "stored" leaves them.
        value_range: Values of images with more than 8 bits that become 0 and 255; those outside are clipped. None for
            what the file states.
    """

    orientation: Orientation = "upright"
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.orientation not in ("upright", "stored"):
            raise NasrayError(f"orientation must be upright or stored, got {self.orientation!r}")
        if self.value_range is not None:
            low, high = self.value_range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise NasrayError(
                    "value_range must be two finite numbers, the first below the second, such as [0, 4095]; "
                    f"got [{low:g}, {high:g}]"
                )

    def to_json(self) -> dict[str, Any]:
        """Return a value for JSON and checkpoints."""
        return {"orientation": self.orientation, "value_range": list(self.value_range) if self.value_range else None}

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> PixelRules:
        """Return the rules that `to_json` gave; the default ones for None, which older files have."""
        value = value or {}
        pair = value.get("value_range")
        return cls(value.get("orientation", "upright"), (float(pair[0]), float(pair[1])) if pair else None)


DEFAULT_RULES = PixelRules()
BLOCK = 2**20  # values that are scaled at a time, or a large image would be many times as large in floats


class ImageError(NasrayError):
    """An image that cannot be used.

    Attributes:
        kind: "unreadable-image", "other-size" (than annotated), or "value-range" (that cannot be known).
    """

    def __init__(self, message: str, kind: str = "unreadable-image") -> None:
        super().__init__(message)
        self.kind = kind


class UnsupportedError(OSError):
    """A kind of image that is not read; the message says what to do."""


def to_8_bits(values: NDArray[Any], name: str, rules: PixelRules, largest: int | None = None) -> NDArray[np.uint8]:
    """Return values scaled to 0 to 255 and rounded.

    Args:
        values: Samples of any shape, unsigned, signed or floating-point.
        name: What an error calls the image.
        rules: Rules of the data set.
        largest: Value of white, where the file states it.

    Raises:
        ImageError: if the range cannot be known, or values are not finite.
    """
    if values.dtype.kind == "f" and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ImageError(f"image {name} has values that are not finite (NaN or infinity). Replace them in the file")
    low, high = (0, largest) if largest else rules.value_range or (0, 65535)
    if not largest and rules.value_range is None and (problem := _unknown_range(values)):
        advice, example = problem
        raise ImageError(
            f"image {name}: {advice}. State what is black and what is white: `value_range: {example}` in the data "
            "set's YAML file, --value-range of `nasray predict`; or save the image with 8 bits",
            "value-range",
        )
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.take(_scaled(np.arange(65536), low, high), values)  # a table
    flat, scaled = values.reshape(-1), np.empty(values.size, dtype=np.uint8)
    for begin in range(0, values.size, BLOCK):
        scaled[begin : begin + BLOCK] = _scaled(flat[begin : begin + BLOCK], low, high)
    return scaled.reshape(values.shape)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    shares = (values.astype(np.float64).clip(low, high) - low) / (high - low)
    return np.floor(shares * 255 + 0.5).astype(np.uint8)


def _unknown_range(values: NDArray[Any]) -> tuple[str, str] | None:
    """Return why the range of values cannot be known and an example of one, or None."""
    least, most = (values.min(), values.max()) if values.size else (0, 0)
    if values.dtype.kind == "f":
        example = "[0, 1]" if least >= 0 and most <= 1 else f"[{np.floor(least):.0f}, {np.ceil(most):.0f}]"
        return f"its values are floats from {least:.6g} to {most:.6g}, and no file states their range", example
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        if most >= SURE_OF_16_BITS or not (values % 257).any():  # multiples of 257 are 8 bits spread over 16
            return None
        bits = next(bits for bits in (8, 10, 12, 14) if most < 2**bits)
        reason = f"its 16-bit values reach {most:,} only: it is of {bits} bits or very dark, and the file does not say"
        return reason, f"[0, {2**bits - 1}]` or `[0, 65535]"
    return f"its values are integers from {least:,} to {most:,}, and no file states their range", f"[{least}, {most}]"


def to_rgb(picture: Any) -> NDArray[np.uint8]:
    """Return (3, H, W) RGB of an image of Pillow's with 8 bits in any mode."""
    if picture.mode == "LAB":
        from PIL import ImageCms

        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")
    elif picture.mode in ("La", "RGBa"):  # premultiplied
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def gray_to_rgb(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (3, H, W) of (H, W)."""
    return np.broadcast_to(values, (3, *values.shape))


def turned(pixels: NDArray[np.uint8], orientation: int, *, back: bool = False) -> NDArray[np.uint8]:
    """Return (C, H, W) pixels turned upright from one of EXIF's orientations, or back to how they were stored.

    Reference: Exif 2.32, tag 0x0112.
    """
    if back:
        orientation = {6: 8, 8: 6}.get(orientation, orientation)  # the others undo themselves
    if orientation >= 5:
        pixels = pixels.transpose(0, 2, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[:, ::-1]
    # A view that runs backwards counts as contiguous where that side is one pixel long, but PyTorch takes none.
    return pixels if orientation == 1 else pixels.copy()
