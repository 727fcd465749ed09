"""Encoded images and where they lie; decoding.py makes tensors of them."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from nasray.data.digests import file_state
from nasray.data.image_files.decoding import ImageHeader, decode_image, read_header
from nasray.data.image_files.pixels import ImageError, Orientation, PixelRules
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 2 * 2**30  # of a file: more than the most pixels that are read need without compression


class ImageSource(Protocol):
    """Encoded images by position. Small when pickled: data stay where they are."""

    def name(self, index: int) -> str:
        """Return what to call an image in a message: its path, or file and row."""
        ...

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        ...

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image as a file, for those who need only its beginning."""
        ...

    def states(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield what tells the content of these images from any other, without reading files; see digests.py."""
        ...


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images in files.

    Attributes:
        folder: Folder that the names are relative to.
        names: Names of I files.
    """

    folder: Path
    names: Sequence[str]

    def name(self, index: int) -> str:
        """Return the path."""
        return str(self.folder / str(self.names[index]))

    def read(self, index: int) -> bytes:
        """Return the file's content."""
        with self.open(index) as file:
            return file.read()

    def open(self, index: int) -> BinaryIO:
        """Return the file."""
        return open_image_file(Path(self.name(index)))

    def states(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield the state of each file."""
        return (file_state(Path(self.name(index))) for index in indices.tolist())

    def missing(self) -> NDArray[np.intp]:
        """Return the positions of files that are not there; list each folder once, which is quick on network disks."""
        listings: dict[str, set[str]] = {}
        missing = []
        for position, path in enumerate(map(self.name, range(len(self.names)))):
            parent, name = os.path.split(path)
            if parent not in listings:
                listings[parent] = listing(parent)
            if name not in listings[parent]:
                missing.append(position)
        return np.array(missing, dtype=np.intp)


def listing(folder: str) -> set[str]:
    """Return the names of what is in a folder and no folder itself; none where it cannot be read."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if not entry.is_dir()}
    except (OSError, ValueError):
        return set()


@dataclass(frozen=True, eq=False)
class SelectedImages:
    """Some of the images of another source.

    Attributes:
        images: All of them.
        indices: (J,) positions of those that are chosen.
    """

    images: ImageSource
    indices: NDArray[np.int64]

    def name(self, index: int) -> str:
        """Return the name in the other source."""
        return self.images.name(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        return self.images.read(int(self.indices[index]))

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image as a file."""
        return self.images.open(int(self.indices[index]))

    def states(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield those of the other source."""
        return self.images.states(self.indices[indices])


@dataclass(frozen=True, eq=False)
class ImagesInMemory:
    """Encoded images one after the other in one array.

    Attributes:
        title: Name of the images.
        content: All bytes.
        offsets: (I + 1,) where each begins and the last ends.
    """

    title: str
    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, title: str, images: Sequence[bytes]) -> ImagesInMemory:
        """Make a source of encoded images."""
        offsets = np.cumsum([0, *map(len, images)])
        return cls(title, np.frombuffer(b"".join(images), dtype=np.uint8), offsets)

    def name(self, index: int) -> str:
        """Return the title and position."""
        return f"{self.title}, image {index}"

    def read(self, index: int) -> bytes:
        """Return the encoded image."""
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image as a file."""
        return io.BytesIO(self.read(index))

    def states(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield the images themselves."""
        return map(self.read, indices.tolist())


def load_image(
    files: ImageSource, index: int, name: str, image_hw: tuple[int, int] | None, rules: PixelRules
) -> Tensor:
    """Return an image of a source as (3, H, W) uint8 RGB.

    Args:
        files: Images.
        index: Position of the image.
        name: What an error calls it.
        image_hw: Annotated height and width in pixels, if they are known.
        rules: Rules of the data set.

    Raises:
        ImageError: if it cannot be read or decoded, or is not of the annotated size.
    """
    try:
        content = files.read(index)
    except NasrayError:  # of a shard
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise no_file(name, error) from error
    return decode_image(content, name, image_hw, rules)


def load_header(files: ImageSource, index: int, name: str) -> ImageHeader:
    """Return what an image of a source says before its pixels; of a file, little more than that is read.

    Raises:
        ImageError: if it cannot be read, or is no image.
    """
    try:
        with files.open(index) as file:
            return read_header(file, name)
    except NasrayError:
        raise
    except (OSError, ValueError) as error:
        raise no_file(name, error) from error


def stored_size(path: Path, orientation: Orientation = "upright") -> tuple[int, int] | None:
    """Return height and width of an image file under a rule, from its header; None if there is none."""
    try:
        with open_image_file(path) as file:
            return read_header(file, str(path)).image_hw(orientation)
    except (OSError, ValueError):
        return None


def open_image_file(path: Path) -> BinaryIO:
    """Open a file that may hold an image: no pipe or device, which would never end, and none that is far too large.

    Raises:
        OSError: if it is none, or cannot be read.
        ValueError: if no file can have this name.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe or a device, not a file")
    if status.st_size > MAX_BYTES:
        raise OSError(f"it has {status.st_size:,} bytes and at most {MAX_BYTES:,} are read")
    return open(path, "rb")


def no_file(name: str, error: Exception) -> ImageError:
    """Return the error of a file that cannot be opened."""
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return ImageError(f"cannot read image {name}: {reason}. Check its name and its permissions")


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a (3, H, W) image as PNG."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()
