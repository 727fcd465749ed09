"""Encoded images in a column of Parquet files, read row by row: never a file, nor a row group, as a whole."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import shown
from nasray.data.digests import file_state
from nasray.data.image_files.images import ImageSource
from nasray.data.mapped import Texts
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

HANDLES = 64  # open files of one process
BATCH = 4  # images that are read at once, and kept
MANY_IMAGES = 32  # in a row group: reading one at random takes longer than decoding it
BUFFER = 2**20  # bytes of a column that are read at once
ADVICE = "Get a whole copy of the file, or write it anew"


@dataclass
class _Stream:
    """Rows of one row group, in their order."""

    group: int
    batches: Iterator[Any]
    first: int = 0
    images: Any = ()

    def image(self, place: int) -> bytes | None:
        """Return an image by its place in the group, not before the first of those that were read last."""
        while place >= self.first + len(self.images):
            self.first += len(self.images)
            self.images = next(self.batches)
        found: bytes | None = self.images[place - self.first].as_py()
        return found


@dataclass(frozen=True, eq=False)
class ParquetImages:
    """Images in a column of files, one after the other; a row group is read from its begin to the image asked for.

    Attributes:
        paths: The files.
        column: The column: "image.bytes", or "image".
        firsts: (F + 1,) position of the first image of each file, and the number of images.
        groups: (G + 1,) position of the first image of each row group of all files, and the number of images.
        group_files: (G,) the file of each row group.
        group_numbers: (G,) its number in the file.
        names: (I,) what the images are called in the files; may be empty.
        is_packed: Whether nasray wrote the files, which reads every image before it does.
    """

    paths: tuple[Path, ...]
    column: str
    firsts: NDArray[np.int64]
    groups: NDArray[np.int64]
    group_files: NDArray[np.int64]
    group_numbers: NDArray[np.int64]
    names: Texts
    is_packed: bool = False
    _open: OrderedDict[tuple[int, int], pq.ParquetFile] = field(default_factory=OrderedDict, repr=False)
    _stream: dict[int, _Stream] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict(), "_stream": {}}

    def row(self, index: int) -> str:
        """Return the file and row of an image."""
        file = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return f"{shown(self.paths[file])}, row {index - int(self.firsts[file])}"

    def name(self, index: int) -> str:
        """Return the file, row, and what the image is called."""
        called = f" ({self.names[index]})" if self.names[index] else ""
        return f"{self.row(index)}{called}"

    def read(self, index: int) -> bytes:
        """Return the encoded image.

        Raises:
            NasrayError: if its file is damaged, or holds none in this row.
        """
        import pyarrow as pa

        group = int(np.searchsorted(self.groups, index, side="right")) - 1
        place = index - int(self.groups[group])
        try:
            stream = self._stream.get(os.getpid())
            if stream is None or stream.group != group or stream.first > place:
                self._stream.clear()  # of a process that this one was forked from, too
                stream = self._stream[os.getpid()] = _Stream(group, self._batches(group))
            content = stream.image(place)
        except (pa.ArrowException, OSError, StopIteration) as error:
            self._stream.clear()
            reason = " ".join(str(error).split()) or "it ends too early"
            raise NasrayError(f"cannot read {self.name(index)}: {reason}. {ADVICE}") from error
        if content is None:
            raise NasrayError(f"{self.name(index)} holds no image, only its name. Write the files with images in them")
        return content

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image as a file."""
        return io.BytesIO(self.read(index))

    def states(self, indices: NDArray[np.int64]) -> Iterator[bytes]:
        """Yield the state of all files, and which rows of them the images are."""
        yield from map(file_state, self.paths)
        yield self.column.encode() + self.firsts.tobytes() + indices.tobytes()

    def probes(self, most: int) -> list[int]:
        """Return images that are read quickly: the first ones of some row groups, at most so many, over all files."""
        firsts = self.groups[self.groups < self.groups[-1]]
        places = np.linspace(0, len(firsts) - 1, min(most, len(firsts))).astype(np.int64)
        chosen: list[int] = np.unique(firsts[places]).tolist()
        return chosen

    def _batches(self, group: int) -> Iterator[Any]:
        """Yield the images of a row group, a few at a time."""
        handle, number = self._handle(int(self.group_files[group])), int(self.group_numbers[group])
        for batch in handle.iter_batches(BATCH, row_groups=[number], columns=[self.column], use_threads=False):
            images = batch.column(0)
            yield images.field("bytes") if self.column.endswith(".bytes") else images

    def _handle(self, file: int) -> pq.ParquetFile:
        key = (os.getpid(), file)  # a forked process opens files of its own
        if key not in self._open:
            if len(self._open) >= HANDLES:
                self._open.popitem(last=False)
            self._open[key] = open_parquet(self.paths[file])
        self._open.move_to_end(key)
        return self._open[key]


def images_of(
    paths: Sequence[Path], files: Sequence[pq.ParquetFile], column: str, names: Texts, *, is_packed: bool
) -> ParquetImages:
    """Return the images in a column of open files."""
    sizes = [[file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] for file in files]
    return ParquetImages(
        tuple(paths),
        column,
        np.cumsum([0, *map(sum, sizes)], dtype=np.int64),
        np.cumsum([0, *(rows for groups in sizes for rows in groups)], dtype=np.int64),
        np.repeat(np.arange(len(sizes)), [len(groups) for groups in sizes]),
        np.array([number for groups in sizes for number in range(len(groups))], dtype=np.int64),
        names,
        is_packed,
    )


def describe_groups(files: ImageSource) -> str | None:
    """Return a line on row groups of many images, which are slow to read at random; None if there are none."""
    if not isinstance(files, ParquetImages) or not len(files.group_files):
        return None
    largest = int(np.diff(files.groups).max())
    if largest < MANY_IMAGES:
        return None
    return (
        f"row groups hold up to {largest:,} images, and to read one at random reads half of its group: pack the set "
        "for a long training (`nasray data pack`)"
    )


def count_nulls(file: pq.ParquetFile, column: str) -> int:
    """Return how many rows have nothing in a column, as far as the file's statistics say."""
    columns = file.metadata.num_columns
    paths = [file.metadata.schema.column(place).path for place in range(columns)]
    groups = [file.metadata.row_group(group).column(paths.index(column)) for group in range(file.num_row_groups)]
    return sum(group.statistics.null_count or 0 for group in groups if group.statistics is not None)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Return a Parquet file, of which the footer is read.

    Raises:
        NasrayError: if it is none, damaged, or not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    except FileNotFoundError:
        raise NasrayError(f"{shown(path)} not found. {ADVICE}") from None
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise NasrayError(f"{shown(path)} is no Parquet file, or a damaged one: {reason}. {ADVICE}") from error
