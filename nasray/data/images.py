"""Encoded images, where they lie, and how they become tensors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG"


class ImageSource(Protocol):
    """Encoded images by position. Small when pickled: data stay where they are."""

    def name(self, index: int) -> str:
        """What to call an image in a message: its path, or file and row."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded image."""
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files.

    Attributes:
        folder: that the names are relative to.
        names: of I files.
    """

    folder: Path
    names: Sequence[str]

    def name(self, index: int) -> str:
        """The path."""
        return str(self.folder / str(self.names[index]))

    def read(self, index: int) -> bytes:
        """The file's content."""
        return Path(self.name(index)).read_bytes()

    def missing(self) -> NDArray[np.intp]:
        """Positions of files that are not there; a folder is listed once, which is quick on network disks."""
        paths = [self.folder / str(name) for name in self.names]
        present = {parent: _listing(parent) for parent in dict.fromkeys(path.parent for path in paths)}
        return np.flatnonzero([path.name not in present[path.parent] for path in paths])


def _listing(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir()}
    except OSError:
        return set()


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Some of the images of another source.

    Attributes:
        images: all of them.
        indices: (J,) positions of those that are chosen.
    """

    images: ImageSource
    indices: NDArray[np.int64]

    def name(self, index: int) -> str:
        """As the other source says."""
        return self.images.name(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self.images.read(int(self.indices[index]))


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """Encoded images one after the other in one array.

    Attributes:
        title: what to call them.
        content: all bytes.
        offsets: (I + 1,) where each begins and the last ends.
    """

    title: str
    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, title: str, images: Sequence[bytes]) -> ImagesInMemory:
        """From encoded images."""
        offsets = np.cumsum([0, *map(len, images)])
        return cls(title, np.frombuffer(b"".join(images), dtype=np.uint8), offsets)

    def name(self, index: int) -> str:
        """Title and position."""
        return f"{self.title}, image {index}"

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()


def decode_image(content: bytes, name: str, image_hw: tuple[int, int] | None = None) -> Tensor:
    """An image as (3, H, W) uint8 RGB; grey, palette, CMYK and 16-bit images are converted, transparency is dropped.

    An orientation in EXIF is ignored, as most annotation tools do, unless only the turned image has the annotated size.

    Args:
        content: the encoded image.
        name: what to call it in an error.
        image_hw: its annotated height and width, if they are known.

    Raises:
        NasrayError: if it is truncated, no image, or not of the annotated size.
    """
    import torch
    from torchvision.io import ImageReadMode
    from torchvision.io import decode_image as decode

    try:
        if content.startswith((JPEG, PNG)):
            image = decode(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
            if image.dtype == torch.uint16:
                image = (image.to(torch.int32) >> 8).to(torch.uint8)
        else:
            image = _decode_other(content, turned=False)
        if image_hw is not None and tuple(image.shape[1:]) != tuple(image_hw):
            image = _decode_other(content, turned=True)
    except (RuntimeError, OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's for a broken PNG
        reason = _reason(error) if content else "the file is empty"
        raise NasrayError(
            f"cannot read image {name}: {reason}. Get a whole copy of the file, or take it out of the data set; "
            "`nasray data check --decode` finds all such files"
        ) from error
    if image_hw is not None and tuple(image.shape[1:]) != tuple(image_hw):
        raise NasrayError(
            f"image {name} is {image.shape[2]}x{image.shape[1]} pixels, but its annotation says "
            f"{image_hw[1]}x{image_hw[0]}; correct width and height, or annotate the image anew"
        )
    return image


def _reason(error: Exception) -> str:
    """What a decoder says, without its address or its place in torchvision's source."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no image"
    return str(error).replace("\n", " ").rpartition(", ")[2]


def _decode_other(content: bytes, *, turned: bool) -> Tensor:
    """Formats that torchvision does not read everywhere (BMP, TIFF, WebP), and images to be turned as EXIF says."""
    import torch
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as picture:
        upright = ImageOps.exif_transpose(picture) if turned else picture
        return torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1).contiguous()


def stored_size(path: Path) -> tuple[int, int] | None:
    """Height and width of an image file, from its header; None if there is none."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError):
        return None


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A (3, H, W) image as PNG."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
