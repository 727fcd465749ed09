"""Packing a data set into Parquet files, as detection sets of Hugging Face are (`huggingface.py` reads them).

For clusters without a fast shared disk, and for whoever reads with `datasets`: a few large files copy and read faster
than a hundred thousand small ones, and nothing else is needed beside them. A row group holds a few images only, so that
reading one reads little else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.cluster.files import explained_disk_errors, to_json
from nasray.cluster.reading import shown
from nasray.data.dataset import DetectionSet
from nasray.data.formats.huggingface_columns import FORMAT
from nasray.data.formats.huggingface_files import SPLIT_NAMES
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER, ASIDE = "data", ".incomplete"
GROUP = 4  # images in a row group: reading one reads up to all of them, and each group adds to the file's footer


def pack_data(splits: Iterable[DetectionSet], folder: Path, images_per_shard: int = 1000) -> None:
    """Write the splits of a data set as FOLDER/data/train-00000-of-00002.parquet and so on, all of them or none.

    `datasets.load_dataset(FOLDER)` reads them: images, and objects with COCO's boxes, named classes, areas and crowds.

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
    if folder.exists() and (there := sorted(path.name for path in folder.iterdir())):
        what = "what an earlier command did not finish" if there == [ASIDE] else there[0]
        raise NasrayError(f"{shown(folder)} is not empty: it holds {what}. Empty it, or choose a new folder")
    datasets = list(splits)
    for dataset in datasets:
        if dataset.segmentations is not None:
            dataset.require_outlines()
    aside = folder / ASIDE
    aside.mkdir(parents=True)
    try:
        for dataset in datasets:
            _pack_split(dataset, aside, images_per_shard)
        with explained_disk_errors(folder):
            os.replace(aside, folder / FOLDER)
    except BaseException:
        for path in aside.glob("*"):
            path.unlink(missing_ok=True)
        aside.rmdir()
        raise


def _pack_split(dataset: DetectionSet, folder: Path, images_per_shard: int) -> None:
    total = -(-len(dataset) // images_per_shard)
    for number in range(total):
        first = number * images_per_shard
        indices = range(first, min(first + images_per_shard, len(dataset)))
        path = folder / f"{SPLIT_NAMES[dataset.name][0]}-{number:05d}-of-{total:05d}.parquet"
        with explained_disk_errors(path):
            _write_shard(dataset, indices, path)


def _write_shard(dataset: DetectionSet, indices: range, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = packed_schema(dataset)
    # Encoded images do not compress further; statistics and dictionaries would only make footers longer.
    with (
        open(path, "wb") as file,
        pq.ParquetWriter(file, schema, compression="none", use_dictionary=False, write_statistics=False) as writer,
    ):
        for first in range(0, len(indices), GROUP):
            rows = list(_rows(dataset, indices[first : first + GROUP]))
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=GROUP)


def _rows(dataset: DetectionSet, indices: range) -> Iterator[dict[str, Any]]:
    for index in indices:
        dataset.read_image(index)  # a torn image is found now, not in the middle of a training
        begin, end = dataset.offsets[index : index + 2].tolist()
        height, width = dataset.image_hw[index].tolist()
        boxes = dataset.boxes[begin:end]
        outlines = dataset.segmentations
        texts = (
            [outlines.text(row).decode() or None for row in range(begin, end)] if outlines else [None] * (end - begin)
        )
        yield {
            "image": {"bytes": dataset.files.read(index), "path": shown(Path(dataset.files.name(index)).name)},
            "image_id": int(dataset.image_ids[index]),
            "width": width,
            "height": height,
            "objects": {
                "id": dataset.annotation_ids[begin:end].tolist(),
                "bbox": np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist(),
                "category": dataset.labels[begin:end].tolist(),
                "area": dataset.areas[begin:end].tolist(),
                "iscrowd": dataset.ignored[begin:end].astype(np.int64).tolist(),
                "segmentation": texts,
                "xyxy": boxes.tolist(),
            },
        }


# ---- schema ------------------------------------------------------------------------------------------------------


def packed_schema(dataset: DetectionSet) -> pa.Schema:
    """Return the columns of a packed set, with what `datasets` and nasray say of all rows in its metadata."""
    import pyarrow as pa

    box = pa.list_(pa.float64(), 4)
    objects = {
        "id": pa.int64(),
        "bbox": box,
        "category": pa.int64(),
        "area": pa.float64(),
        "iscrowd": pa.int64(),
        "segmentation": pa.string(),
        "xyxy": box,
    }
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "image_id": pa.int64(),
        "width": pa.int64(),
        "height": pa.int64(),
        "objects": pa.struct({name: pa.list_(kind) for name, kind in objects.items()}),
    }
    packed = {
        "format": FORMAT,
        "category_ids": dataset.category_ids,
        "pixel_rules": dataset.pixel_rules.to_json(),
    }
    metadata = {"huggingface": {"info": {"features": _features(dataset.classes)}}, "nasray": packed}
    return pa.schema(columns, metadata={key: to_json(value) for key, value in metadata.items()})


def _features(classes: Sequence[str]) -> dict[str, Any]:
    """Return the features of a packed set as `datasets` writes them, in the form that its earlier versions read too."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def sequence(feature: dict[str, Any], **more: int) -> dict[str, Any]:
        return {"feature": feature, **more, "_type": "Sequence"}

    box = sequence(value("float64"), length=4)
    return {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "width": value("int64"),
        "height": value("int64"),
        "objects": {
            "id": sequence(value("int64")),
            "bbox": sequence(box),
            "category": sequence({"names": list(classes), "_type": "ClassLabel"}),
            "area": sequence(value("float64")),
            "iscrowd": sequence(value("int64")),
            "segmentation": sequence(value("string")),
            "xyxy": sequence(box),
        },
    }
