"""Packed data sets: Parquet files with the encoded image and its annotations in each row, and an index.

For clusters without a fast shared disk: a few large files copy and read faster than a hundred thousand small ones, and
nothing else is needed beside them. A row group holds a few images only, so that reading one reads little else.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.reading import read_json, shown
from nasray.data.dataset import DetectionSet, fix_boxes
from nasray.data.fields import MAX_SIDE, FieldError, class_name, file_name, integer
from nasray.data.mapped import Texts
from nasray.data.outlines import Segmentations
from nasray.data.pixels import PixelRules
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX = "shards.json"
FORMAT = 2  # 2: how images are read
GROUP = 4  # images in a row group: reading one reads all of them, and each group adds to the file's footer
HANDLES = 64  # open files of one process


def pack_data(splits: Iterable[DetectionSet], folder: Path, images_per_shard: int = 1000) -> None:
    """Write the splits of a data set as shards, and last the index; a folder without index was not finished.

    Args:
        splits: `DataSource.all_splits()`, say; of the same classes.
        folder: Output folder, empty or not there yet.
        images_per_shard: Number of rows of each file.

    Raises:
        NasrayError: if the data set has errors, outlines that are none, an image that cannot be read, or if the folder
            holds anything.
    """
    if images_per_shard < 1:
        raise NasrayError(f"a shard holds 1 image or more, got {images_per_shard}")
    if folder.exists() and any(folder.iterdir()):
        raise NasrayError(f"{folder} is not empty; choose a new folder for the shards")
    datasets = list(splits)
    for dataset in datasets:
        if dataset.segmentations is not None:
            dataset.require_outlines()
    folder.mkdir(parents=True, exist_ok=True)
    shards: dict[str, list[dict[str, Any]]] = {}
    for dataset in datasets:
        shards[dataset.name] = []
        for number, first in enumerate(range(0, len(dataset), images_per_shard)):
            indices = range(first, min(first + images_per_shard, len(dataset)))
            file_name = f"{dataset.name}-{number:05d}.parquet"
            write_atomic(folder / file_name, _shard(dataset, indices))
            shards[dataset.name].append({"file": file_name, "images": len(indices)})
    index = {
        "format": FORMAT,
        "classes": datasets[0].classes,
        "category_ids": datasets[0].category_ids,
        "pixel_rules": datasets[0].pixel_rules.to_json(),
        "splits": shards,
    }
    write_atomic(folder / INDEX, to_json(index, indent=1).encode())


def shard_splits(folder: Path) -> tuple[str, ...]:
    """Return the splits of a packed set.

    Raises:
        NasrayError: if the folder holds none, or one of a newer version.
    """
    return tuple(_index(folder)["splits"])


def read_shards(folder: Path, name: str) -> DetectionSet:
    """Return a split of a packed set, with the content that was packed.

    Raises:
        NasrayError: if a shard is missing or torn.
    """
    import pyarrow as pa

    index = _index(folder)
    try:
        dataset = _read_split(folder, name, index)
        _check_split(dataset)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, NasrayError):
            raise
        reason = " ".join(str(error).split())
        raise NasrayError(f"the {name!r} split of {folder} is damaged: {reason}; pack the data set again") from error
    return dataset


def _read_split(folder: Path, name: str, index: dict[str, Any]) -> DetectionSet:
    shards = index["splits"][name]
    table = _annotations(folder, shards)
    counts = _lengths(table, "labels")
    segmentations = None
    if table["segmentations"].null_count < len(table):
        segmentations = Segmentations.of_texts([text.encode() for text in _flat(table, "segmentations").to_pylist()])
    return DetectionSet(
        name=name,
        classes=tuple(index["classes"]),
        category_ids=tuple(index["category_ids"]),
        files=ShardImages(
            folder,
            tuple(shard["file"] for shard in shards),
            np.cumsum([0, *(shard["images"] for shard in shards)]),
            Texts.of(table["file_name"].to_pylist()),
        ),
        image_ids=table["image_id"].to_numpy(),
        image_hw=np.stack([table["height"].to_numpy(), table["width"].to_numpy()], axis=1),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=_flat(table, "boxes").to_numpy().reshape(-1, 4),
        labels=_flat(table, "labels").to_numpy(),
        areas=_flat(table, "areas").to_numpy(),
        ignored=_flat(table, "ignored").to_numpy(zero_copy_only=False),
        annotation_ids=_flat(table, "annotation_ids").to_numpy(),
        segmentations=segmentations,
        pixel_rules=PixelRules.from_json(index.get("pixel_rules")),
    )


def _check_split(dataset: DetectionSet) -> None:
    """Hold the columns against each other.

    Raises:
        ValueError: if they do not fit.
    """
    num_boxes, sizes = len(dataset.labels), dataset.image_hw
    columns = (dataset.boxes, dataset.areas, dataset.ignored, dataset.annotation_ids)
    outlines = [dataset.segmentations.bounds] if dataset.segmentations is not None else []
    if any(len(column) != num_boxes for column in (*columns, *outlines)) or dataset.offsets[-1] != num_boxes:
        raise ValueError("its columns are not of one length")
    if not ((sizes > 0) & (sizes <= MAX_SIDE)).all():
        raise ValueError("it has images without height and width")
    if not ((dataset.labels >= 0) & (dataset.labels < len(dataset.classes))).all():
        raise ValueError(f"it has labels of none of its {len(dataset.classes)} classes")
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    if not np.isfinite(dataset.areas).all() or fix_boxes(dataset.boxes, sizes[owners])[1]:
        raise ValueError("it has boxes outside their image, or that are none")


@dataclass(frozen=True, eq=False)
class ShardImages:
    """Images in shards.

    Attributes:
        folder: Folder of the shards.
        shards: Names of the shards.
        firsts: (S + 1,) position of the first image of each, and the number of images.
        names: (I,) what the images were called where they were packed.
    """

    folder: Path
    shards: tuple[str, ...]
    firsts: NDArray[np.int64]
    names: Texts
    _open: OrderedDict[tuple[int, int], pq.ParquetFile] = field(default_factory=OrderedDict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _place(self, index: int) -> tuple[int, int]:
        """Return the shard and row."""
        shard = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return shard, index - int(self.firsts[shard])

    def name(self, index: int) -> str:
        """Return the shard, row, and what the image was called."""
        shard, row = self._place(index)
        return f"{self.folder / self.shards[shard]}, row {row} ({self.names[index]})"

    def read(self, index: int) -> bytes:
        """Return the encoded image; reads its row group alone."""
        shard, row = self._place(index)
        import pyarrow as pa

        try:
            group = self._handle(shard).read_row_group(row // GROUP, columns=["image"], use_threads=False)
            content: bytes = group["image"][row % GROUP].as_py()
        except (pa.ArrowException, IndexError) as error:
            raise NasrayError(f"cannot read {self.name(index)}: {error}; pack the data set again") from error
        return content

    def open(self, index: int) -> BinaryIO:
        """Return the encoded image as a file."""
        return io.BytesIO(self.read(index))

    def _handle(self, shard: int) -> pq.ParquetFile:
        key = (os.getpid(), shard)  # a forked process opens files of its own
        if key not in self._open:
            if len(self._open) >= HANDLES:
                self._open.popitem(last=False)
            self._open[key] = _open_shard(self.folder / self.shards[shard])
        self._open.move_to_end(key)
        return self._open[key]


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    index = read_json(path)
    advice = "pack the data set again"
    if not isinstance(index, dict) or not isinstance(index.get("format"), int):
        raise NasrayError(f"{path} is not the index of a packed data set; {advice}")
    if index["format"] > FORMAT:
        raise NasrayError(f"{path} was written by a newer version of nasray (format {index['format']}); upgrade nasray")
    try:
        classes = [class_name(one) for one in index["classes"]]
        numbers = [integer(one) for one in index["category_ids"]]
        PixelRules.from_json(index.get("pixel_rules"))
        if not len(set(classes)) == len(set(numbers)) == len(classes) == len(numbers):
            raise FieldError("classes and category_ids must be as many, each once")
        for name, shards in index["splits"].items():
            file_name(name)
            for shard in shards:
                file_name(shard["file"])
                integer(shard["images"], 1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NasrayError(f"{path} is damaged: {type(error).__name__} {error}; {advice}") from error
    return index


def _open_shard(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise NasrayError(f"cannot read shard {path}: {error}; pack the data set again") from error


# ---- rows --------------------------------------------------------------------------------------------------------


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {
            "image": pa.binary(),
            "file_name": pa.string(),
            "image_id": pa.int64(),
            "height": pa.int64(),
            "width": pa.int64(),
            "boxes": pa.list_(pa.float64()),
            "labels": pa.list_(pa.int64()),
            "areas": pa.list_(pa.float64()),
            "ignored": pa.list_(pa.bool_()),
            "annotation_ids": pa.list_(pa.int64()),
            "segmentations": pa.list_(pa.string()),
        }
    )


def _shard(dataset: DetectionSet, indices: range) -> bytes:
    """Return the content of a shard with these images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    # Encoded images do not compress further; statistics and dictionaries would only make footers longer.
    with pq.ParquetWriter(file, _schema(), compression="none", use_dictionary=False, write_statistics=False) as writer:
        for first in range(0, len(indices), GROUP):
            rows = list(_rows(dataset, indices[first : first + GROUP]))
            writer.write_table(pa.Table.from_pylist(rows, schema=_schema()), row_group_size=GROUP)
    return file.getvalue()


def _rows(dataset: DetectionSet, indices: range) -> Iterator[dict[str, Any]]:
    for index in indices:
        dataset.read_image(index)  # a torn image is found now, not in the middle of a training
        begin, end = dataset.offsets[index : index + 2].tolist()
        height, width = dataset.image_hw[index].tolist()
        segmentations = None
        if dataset.segmentations is not None:
            segmentations = [dataset.segmentations.text(row).decode() for row in range(begin, end)]
        yield {
            "image": dataset.files.read(index),
            "file_name": shown(Path(dataset.files.name(index)).name),
            "image_id": int(dataset.image_ids[index]),
            "height": height,
            "width": width,
            "boxes": dataset.boxes[begin:end].ravel().tolist(),
            "labels": dataset.labels[begin:end].tolist(),
            "areas": dataset.areas[begin:end].tolist(),
            "ignored": dataset.ignored[begin:end].tolist(),
            "annotation_ids": dataset.annotation_ids[begin:end].tolist(),
            "segmentations": segmentations,
        }


def _annotations(folder: Path, shards: list[dict[str, Any]]) -> pa.Table:
    """Return all columns but the images, of all shards."""
    import pyarrow as pa

    columns = [name for name in _schema().names if name != "image"]
    tables = []
    for shard in shards:
        file = _open_shard(folder / shard["file"])
        if file.metadata.num_rows != shard["images"]:
            raise NasrayError(
                f"shard {folder / shard['file']} has {file.metadata.num_rows} images, "
                f"the index says {shard['images']}; pack the data set again"
            )
        tables.append(file.read(columns=columns))
    return pa.concat_tables(tables).combine_chunks()


def _lengths(table: pa.Table, column: str) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    lengths: NDArray[np.int64] = pc.list_value_length(table[column]).to_numpy().astype(np.int64)
    return lengths


def _flat(table: pa.Table, column: str) -> Any:
    """Return the values of a column of lists, one after the other."""
    return table[column].combine_chunks().flatten()
