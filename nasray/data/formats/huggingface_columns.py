"""What one Parquet file of a detection set says, as flat arrays: its features, its images, and their objects.

Shapes: I images, N objects of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import parse_json, shown
from nasray.data.fields import FieldError, class_name, integer, shown_value
from nasray.data.formats.columns import ColumnError, Objects, floats, fours, object_columns, texts, whole_numbers
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FORMAT = 3
"""Of what nasray packs: 1 and 2 were files with an index, shards.json."""
ADVICE = "Write the file anew"
NO_LABEL = -(2**63)
"""Stands for a category that is null."""


@dataclass(frozen=True)
class Features:
    """What a file says of all its rows.

    Attributes:
        image: Column of the encoded images: "image.bytes", or "image".
        classes: Names of the classes 0, 1, ...; None where the file has none.
        is_text: Whether categories are names themselves.
        category_ids: Ids of the classes where they were packed; None if nasray did not pack the file.
        rules: How the images are read, if nasray packed them.
    """

    image: str
    classes: tuple[str, ...] | None
    is_text: bool
    category_ids: tuple[int, ...] | None = None
    rules: PixelRules = DEFAULT_RULES

    @property
    def is_packed(self) -> bool:
        """Whether nasray wrote the file."""
        return self.category_ids is not None


@dataclass(eq=False)
class Table:
    """Images and objects; None stands for a column that is not there.

    Attributes:
        names: (I,) what the images are called; may be empty.
        image_ids: (I,)
        image_hw: (I, 2) as annotated, 0 where it is not.
        counts: (I,) number of objects of each image.
        boxes: (N, 4) x, y, width, height in pixels; NaN where a box is none.
        xyxy: (N, 4) boxes as nasray packed them.
        labels: (N,) `NO_LABEL` where there is none, 0 where there are words.
        words: (N,) names, where categories are texts.
        areas: (N,) in pixels, 0 for none.
        crowds: (N,) 0 or 1 as it should be.
        ids: (N,)
        outlines: (N,) segmentations as JSON or as lists.
        wrong: Boxes that are none by their object, as messages show them.
        problems: Images whose objects do not fit together, and how.
        odd: What was not read, and why.
    """

    names: list[str]
    image_ids: NDArray[np.int64] | None
    image_hw: NDArray[np.int64] | None
    counts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    xyxy: NDArray[np.float64] | None
    labels: NDArray[np.int64]
    words: list[str | None] | None
    areas: NDArray[np.float64]
    crowds: NDArray[np.int64]
    ids: NDArray[np.int64] | None
    outlines: list[Any] | None
    wrong: dict[int, str]
    problems: list[tuple[int, str]]
    odd: list[str]


def joined(tables: Sequence[Table]) -> Table:
    """Return several tables as one; a column that one of them lacks is left out, but for outlines."""
    found: dict[str, Any] = {}
    if any(table.outlines is not None for table in tables):
        for table in tables:
            table.outlines = table.outlines if table.outlines is not None else [None] * len(table.labels)
    for name in (one.name for one in fields(Table)):
        values = [getattr(table, name) for table in tables]
        if any(value is None for value in values):
            found[name] = None
        elif isinstance(values[0], np.ndarray):
            found[name] = np.concatenate(values)
        elif isinstance(values[0], list):
            found[name] = [item for value in values for item in value]
    images = np.cumsum([0, *(len(table.counts) for table in tables)]).tolist()
    objects = np.cumsum([0, *(len(table.labels) for table in tables)]).tolist()
    found["problems"] = [
        (first + row, text) for first, table in zip(images, tables, strict=False) for row, text in table.problems
    ]
    found["wrong"] = {
        first + row: text for first, table in zip(objects, tables, strict=False) for row, text in table.wrong.items()
    }
    return Table(**found)


# ---- features ----------------------------------------------------------------------------------------------------


def read_features(file: pq.ParquetFile, path: Path) -> Features:
    """Return what a file says of all its rows.

    Raises:
        NasrayError: if it is not of a detection set, or its names are none.
    """
    schema = file.schema_arrow
    for name in ("image", "objects"):
        if name not in schema.names:
            have = ", ".join(schema.names[:10])
            raise NasrayError(
                f"{shown(path)} is not of a detection set: it has no column {name!r}, but {have}. Columns are image "
                "(bytes, path) and objects (bbox, category)"
            )
    metadata = schema.metadata or {}
    try:
        image = _image_column(schema.field("image").type)
        is_text = texts(_category(file)) is not None
    except ColumnError as error:
        raise NasrayError(f"{shown(path)}: column {error}. {ADVICE}") from None
    packed = _json(metadata, b"nasray", path)
    names = _class_names(_json(metadata, b"huggingface", path))
    try:
        classes = tuple(map(class_name, names)) if isinstance(names, list) else None
        if packed is None:
            ids, rules = None, DEFAULT_RULES
        else:
            _check_format(packed, path)
            ids = tuple(integer(number) for number in packed["category_ids"])
            rules = PixelRules.from_json(packed["pixel_rules"])
    except (FieldError, KeyError, TypeError, AttributeError) as error:
        raise NasrayError(
            f"{shown(path)}: its metadata are damaged: {type(error).__name__} {error}. {ADVICE}"
        ) from None
    twice = [name for name, count in Counter(classes or ()).items() if count > 1]
    if twice:
        raise NasrayError(f"{shown(path)}: its ClassLabel has the name {twice[0]!r} twice. {ADVICE}")
    if ids is not None and not len(set(ids)) == len(ids) == len(classes or ()):
        raise NasrayError(
            f"{shown(path)}: its metadata are damaged: {len(ids)} category_ids are not one a class. {ADVICE}"
        )
    return Features(image, None if is_text else classes, is_text, ids, rules)


def _check_format(packed: dict[str, Any], path: Path) -> None:
    if integer(packed["format"]) > FORMAT:
        raise NasrayError(
            f"{shown(path)} was packed by a newer version of nasray (format {packed['format']}). Upgrade it"
        )


def _image_column(kind: Any) -> str:
    import pyarrow as pa

    def is_binary(one: Any) -> bool:
        return bool(pa.types.is_binary(one) or pa.types.is_large_binary(one) or pa.types.is_binary_view(one))

    if is_binary(kind):
        return "image"
    if pa.types.is_struct(kind) and (place := kind.get_field_index("bytes")) >= 0 and is_binary(kind[place].type):
        return "image.bytes"
    raise ColumnError(f"image must hold encoded images, or records with them as bytes; it holds {kind}")


def _category(file: pq.ParquetFile) -> Any:
    """Return an empty array of the type that categories have."""
    import pyarrow as pa

    empty = pa.array([], type=file.schema_arrow.field("objects").type)
    try:
        return object_columns(empty).fields["category"]
    except ColumnError as error:
        raise ColumnError(f"objects {error}") from None


def _json(metadata: dict[bytes, bytes], key: bytes, path: Path) -> Any:
    return parse_json(metadata[key], f"{shown(path)}, metadata {key.decode()!r}") if key in metadata else None


def _class_names(content: Any) -> Any:
    """Return the names of the ClassLabel of objects.category, in whichever form `datasets` wrote its features."""
    place = content
    for key in ("info", "features", "objects"):
        place = place.get(key) if isinstance(place, dict) else None
    while isinstance(place, dict):
        if place.get("_type") == "ClassLabel":
            return place.get("names")
        place = place.get("category") or place.get("feature")
    return None


# ---- rows --------------------------------------------------------------------------------------------------------


def read_table(file: pq.ParquetFile, features: Features, path: Path) -> Table:
    """Return the images and objects of a file; of the images themselves nothing is read.

    Raises:
        NasrayError: if the file is damaged, or a column is of another type than it may be.
    """
    import pyarrow as pa

    have = set(file.schema_arrow.names)
    wanted = [name for name in ("image_id", "width", "height", "objects") if name in have]
    has_path = features.image == "image.bytes" and file.schema_arrow.field("image").type.get_field_index("path") >= 0
    try:
        content = file.read(columns=[*wanted, *(["image.path"] if has_path else [])], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise NasrayError(f"{shown(path)} is a damaged Parquet file: {reason}. Get a whole copy of it") from error
    columns = {name: _whole(content[name]) for name in content.column_names}
    where = ""
    try:
        odd: list[str] = []
        where = "width and height"
        image_hw = None
        if {"width", "height"} <= columns.keys():
            image_hw = np.stack([whole_numbers(columns[side], 0) for side in ("height", "width")], axis=1)
        where = "objects"
        objects = object_columns(columns["objects"])
        called = texts(columns["image"].field("path")) if has_path else None
        table = _objects_table(objects, features, odd)
    except ColumnError as error:
        raise NasrayError(f"{shown(path)}: column {where} {error}. {ADVICE}") from None
    table.image_hw = image_hw
    table.image_ids = _ids(columns.get("image_id"), "image_id", "images are numbered", odd)
    table.names = [text or "" for text in called] if called else [""] * len(content)
    table.odd = [f"{shown(path)}: column {text}" for text in odd]
    return table


def _objects_table(objects: Objects, features: Features, odd: list[str]) -> Table:
    """Return the objects of a table.

    Raises:
        ColumnError: if a field is of another type than it may be.
    """
    found, number = objects.fields, int(objects.counts.sum())
    boxes = _named("bbox", fours, found["bbox"])
    wrong = np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist()
    words = texts(found["category"])
    areas = _named("area", floats, found["area"]) if "area" in found else np.zeros(number)
    crowds = _named("iscrowd", lambda one: whole_numbers(one, 0), found["iscrowd"]) if "iscrowd" in found else None
    is_exact = features.is_packed and "xyxy" in found
    return Table(
        names=[],
        image_ids=None,
        image_hw=None,
        counts=objects.counts,
        boxes=boxes,
        xyxy=_named("xyxy", fours, found["xyxy"]) if is_exact else None,
        labels=(
            _named("category", lambda one: whole_numbers(one, NO_LABEL), found["category"])
            if words is None
            else np.zeros(number, dtype=np.int64)
        ),
        words=words,
        areas=np.where(np.isnan(areas), 0.0, areas),
        crowds=crowds if crowds is not None else np.zeros(number, dtype=np.int64),
        ids=_ids(found.get("id"), "objects.id", "objects are numbered", odd),
        outlines=_outlines(found.get("segmentation"), odd),
        wrong={row: shown_value(found["bbox"][row].as_py()) for row in wrong},
        problems=objects.problems,
        odd=odd,
    )


def _named(name: str, read: Any, array: Any) -> Any:
    try:
        return read(array)
    except ColumnError as error:
        raise ColumnError(f"of {name} {error}") from None


def _ids(array: Any, name: str, instead: str, odd: list[str]) -> NDArray[np.int64] | None:
    """Return ids; None where there are none, or something else."""
    if array is None or array.null_count:
        return None
    try:
        return whole_numbers(array, 0)
    except ColumnError as error:
        odd.append(f"{name} {error}; {instead} instead")
        return None


def _outlines(array: Any, odd: list[str]) -> list[Any] | None:
    import pyarrow as pa

    if array is None or array.null_count == len(array):
        return None
    if texts(array) is not None or pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        outlines: list[Any] = array.to_pylist()
        return outlines
    odd.append(f"objects.segmentation holds {array.type}, not polygons or their JSON; it is left out")
    return None


def _whole(column: Any) -> Any:
    """Return a column as one array."""
    whole = column.combine_chunks()
    return whole.chunk(0) if hasattr(whole, "num_chunks") else whole
