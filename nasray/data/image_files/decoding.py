"""The one gate for images from outside: whatever a file is, it becomes (3, H, W) uint8 RGB or one message.

How values and orientation are taken is at the top of pixels.py. Of several pages or frames the first is read.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nasray.data.image_files import tiff
from nasray.data.image_files.deep import deep_png
from nasray.data.image_files.pixels import (
    DEFAULT_RULES,
    SURE_OF_16_BITS,
    ImageError,
    Orientation,
    PixelRules,
    UnsupportedError,
    gray_to_rgb,
    to_8_bits,
    to_rgb,
    turned,
)

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "MPO", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP", "AVIF", "TGA", "QOI")
"""What is read, by Pillow's names. None of them starts another program, as EPS would."""

_USUAL = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".j2k", ".pgm", ".ppm")
_RARE = (".pnm", ".pbm", ".pfm", ".avif", ".jfif", ".jpe", ".mpo", ".tga", ".qoi")
IMAGE_SUFFIXES = (*_USUAL, *_RARE)
"""Suffixes of image files in a folder, in any case; of several files with one stem the first in this order counts."""

MAX_PIXELS = 178_956_970
"""Of an image: Pillow's own bound, beyond which it takes a file for a decompression bomb."""

ORIENTATION = 0x0112  # EXIF's tag
_MEANING = {"upright": "when turned upright", "stored": "as stored"}

logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Python prints Pillow's messages beside ours


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says before its pixels.

    Attributes:
        stored_hw: Height and width in pixels as they lie in the file.
        orientation: EXIF's 1 to 8; 1 for none.
        deep: Whether its values have more than 8 bits.
        several: Whether it has further pages or frames, which are not read.
    """

    stored_hw: tuple[int, int]
    orientation: int = 1
    deep: bool = False
    several: bool = False

    def image_hw(self, orientation: Orientation) -> tuple[int, int]:
        """Return height and width in pixels under a rule."""
        height, width = self.stored_hw
        return (width, height) if orientation == "upright" and self.orientation >= 5 else (height, width)


def is_image_name(path: Path) -> bool:
    """Return whether a file in a folder is taken for an image, by its name; hidden ones are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def decode_image(
    content: bytes, name: str, image_hw: tuple[int, int] | None = None, rules: PixelRules = DEFAULT_RULES
) -> Tensor:
    """Return an encoded image as (3, H, W) uint8 RGB.

    Args:
        content: Encoded image.
        name: What an error calls it.
        image_hw: Annotated height and width in pixels, if they are known.
        rules: Rules of the data set.

    Raises:
        ImageError: if it is truncated, no image, too large, not of the annotated size, or of unknown range of values.
    """
    import torch

    with _one_message(name):
        picture = _open(io.BytesIO(content))
        header = _header(picture)
        if message := size_fault(header, name, rules.orientation, image_hw):
            raise ImageError(message, "other-size")
        upright = picture.format == "TIFF"
        if upright:
            pixels = tiff.decode_tiff(picture, lambda: _open(io.BytesIO(content)), name, rules)
        elif picture.format in ("JPEG", "MPO") and picture.mode != "CMYK":
            pixels = _decode_jpeg(content)
        elif header.deep and picture.format == "PNG":
            pixels = _channels_first(to_8_bits(deep_png(picture, _open(io.BytesIO(content))), name, rules))
        elif header.deep:
            pixels = _decode_deep(content, picture, name, rules)
        else:
            pixels = to_rgb(picture)
        if upright != (rules.orientation == "upright"):
            pixels = turned(pixels, header.orientation, back=upright)
        return torch.from_numpy(np.require(pixels, requirements=["C", "W"]))


def read_header(file: BinaryIO, name: str) -> ImageHeader:
    """Return what an image file says before its pixels, without reading these.

    Args:
        file: Encoded image.
        name: What an error calls it.

    Raises:
        ImageError: if it is no image, or too large.
    """
    with _one_message(name):
        picture = _open(file)
        header = _header(picture)
        return ImageHeader(header.stored_hw, header.orientation, header.deep, _has_frames(picture))


def size_fault(
    header: ImageHeader, name: str, orientation: Orientation, image_hw: tuple[int, int] | None
) -> str | None:
    """Return what is wrong with an annotated height and width, or None."""
    height, width = header.image_hw(orientation)
    if image_hw is None or (height, width) == tuple(image_hw):
        return None
    size = f"image {name} is {width}x{height} pixels"
    says = f"but its annotation says {image_hw[1]}x{image_hw[0]}"
    other: Orientation = "stored" if orientation == "upright" else "upright"
    if header.image_hw(other) == tuple(image_hw):
        return (
            f"{size} {_MEANING[orientation]} (EXIF orientation {header.orientation}), {says}, its size "
            f"{_MEANING[other]}. If the data set was annotated on such pixels, write `orientation: {other}` into its "
            "YAML file; otherwise annotate the image anew"
        )
    if (width, height) == tuple(image_hw):
        return f"{size}, {says}: width and height are swapped. Swap them, and see whether its boxes fit"
    return f"{size}, {says}; correct width and height, or annotate the image anew"


# ---- opening -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _one_message(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one line, and silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except UnsupportedError as error:
        raise ImageError(f"cannot read image {name}: {error}") from error
    except Exception as error:  # of a broken file nearly anything: SyntaxError, struct.error, KeyError, EOFError
        raise ImageError(
            f"cannot read image {name}: {_reason(error)}. Get a whole copy of the file, or leave it out; "
            "`nasray data check --decode` finds all such files of a data set"
        ) from error


def _reason(error: Exception) -> str:
    """Return what a decoder says, without its address or its place in torchvision's source."""
    kind = type(error).__name__
    if kind == "UnidentifiedImageError":
        return "it is no image"
    if kind == "DecompressionBombError":
        return f"it has more than {MAX_PIXELS:,} pixels, which is the most that is read"
    if isinstance(error, MemoryError):
        return "its pixels do not fit into memory"
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, RuntimeError):
        text = text.rpartition(", ")[2]
    return text if text and isinstance(error, OSError | RuntimeError) else f"it is damaged ({text or kind})"


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(file: BinaryIO) -> Any:
    """Return Pillow's image, of which the header alone is read."""
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        file.seek(0)
        if reason := _unsupported(file):
            raise UnsupportedError(reason) from None
        raise
    if picture.width * picture.height > MAX_PIXELS:  # the process may have lifted Pillow's bound
        raise Image.DecompressionBombError
    return picture


def _unsupported(file: BinaryIO) -> str | None:
    """Return what a file is that is no image which Pillow reads, if its first bytes tell."""
    begin = file.read(16)
    if not begin:
        return "the file is empty. Get a whole copy of it, or leave it out"
    if begin[4:8] == b"ftyp":
        return "it is damaged, or HEIC or another ISO media file that is not supported. Save it as JPEG or PNG"
    return tiff.unsupported_tiff(file) if begin.startswith(tiff.TIFF) else None


def _header(picture: Any) -> ImageHeader:
    """Return size, orientation and depth."""
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF that is damaged says nothing
        orientation = 1
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    if picture.format == "TIFF":
        return ImageHeader(tiff.stored_hw(picture), orientation, tiff.bits_of(picture) > 8)
    deep = picture.mode in ("I", "F") or picture.mode.startswith("I;16")
    if picture.format == "PNG" and picture.tile:  # the mode does not tell it of colors
        deep = ";16" in str(picture.tile[0][3])
    elif picture.format == "PPM" and picture.mode == "RGB" and picture.tile[0][0] == "ppm":
        deep = picture.tile[0][3][1] > 255
    elif picture.format == "JPEG2000":
        deep = _precision(_begin(picture.fp)) > 8
    return ImageHeader((picture.height, picture.width), orientation, deep)


def _begin(file: BinaryIO) -> bytes:
    """Return the first bytes of a file, and leave its place as it was."""
    place = file.tell()
    file.seek(0)
    content = file.read(2**16)
    file.seek(place)
    return content


def _has_frames(picture: Any) -> bool:
    """Return whether there is a second page or frame; previews in cameras' MPO files are none."""
    try:
        return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except Exception:  # a damaged second frame is none
        return False


# ---- decoding ----------------------------------------------------------------------------------------------------


def _decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """Decode by torchvision, which is twice as fast as Pillow; its PNG decoder ends the process at damaged files."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    pixels: NDArray[np.uint8] = decode_jpeg(encoded, mode=ImageReadMode.RGB).numpy()
    return pixels


def _channels_first(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (3, H, W) of (H, W) or (H, W, 3)."""
    return gray_to_rgb(values) if values.ndim == 2 else values.transpose(2, 0, 1)


def _decode_deep(content: bytes, picture: Any, name: str, rules: PixelRules) -> NDArray[np.uint8]:
    """Decode more than 8 bits in JPEG 2000 and portable maps, where Pillow scales some values to 16 bits."""
    if picture.format == "JPEG2000":
        known = _precision(content) < 16
        if len(picture.getbands()) > 1:
            pixels = to_rgb(picture)  # Pillow gives the high bytes alone
            if not known and 0 < pixels.max() < SURE_OF_16_BITS >> 8:
                raise UnsupportedError("a dark JPEG 2000 of 16-bit colors is not supported. Save it as PNG or TIFF")
            return pixels
        return gray_to_rgb(to_8_bits(np.asarray(picture), name, rules, 65535 if known else None))
    arguments, offset = picture.tile[0][3], picture.tile[0][2]
    largest = 65535 if isinstance(arguments, str) else int(arguments[1])
    if picture.mode == "RGB":  # of which Pillow gives 8 bits
        height, width = picture.height, picture.width
        values = np.frombuffer(content, ">u2", height * width * 3, offset).reshape(height, width, 3).transpose(2, 0, 1)
        return to_8_bits(values.astype(np.uint16), name, rules, largest if largest < 65535 else None)
    if picture.mode == "F":
        return gray_to_rgb(to_8_bits(np.asarray(picture), name, rules))
    values = np.asarray(picture).astype(np.uint16)
    return gray_to_rgb(to_8_bits(values, name, rules, 65535 if largest < 65535 else None))


def _precision(content: bytes) -> int:
    """Return the bits of the first component of a JPEG 2000 image.

    Reference: ISO/IEC 15444-1, A.5.1.
    """
    begin = content.index(b"\xff\x4f\xff\x51")  # start of codestream, image and tile size
    return (content[begin + 42] & 0x7F) + 1
