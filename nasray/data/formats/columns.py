"""Columns of Parquet files as flat arrays, each by its type; what a column may hold is decided here.

Shapes: I rows, which are images; N objects of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.data.fields import FieldError

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED = ("bbox", "category")
OPTIONAL = ("id", "area", "iscrowd", "segmentation", "xyxy")


class ColumnError(FieldError):
    """A column of a type that it may not have; the message says what it must hold and what it is."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of I images.

    Attributes:
        counts: (I,) number of objects of each image.
        fields: Values of N objects by field, null where there are none.
        problems: Rows whose objects do not fit together, and how; they are left out.
    """

    counts: NDArray[np.int64]
    fields: dict[str, pa.Array] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def object_columns(column: Any) -> Objects:
    """Return the objects in a column of lists by field, or of lists of records.

    Args:
        column: Array of I structs of lists, or of I lists of structs; null is none.

    Raises:
        ColumnError: if it is neither, or a field is missing.
    """
    import pyarrow as pa

    kind = column.type
    if _is_list(kind) and pa.types.is_struct(kind.value_type):
        records = column.flatten()
        return Objects(_lengths(column), _known_fields(records))
    if not pa.types.is_struct(kind):
        raise ColumnError(f"must hold lists by field (bbox, category), or a list of records; it holds {kind}")
    lists = _known_fields(column)
    for name, one in lists.items():
        if not _is_list(one.type):
            raise ColumnError(f"must hold a list of each field; {name} holds {one.type}")
    counts = _lengths(lists["bbox"])
    unequal = np.flatnonzero(counts != _lengths(lists["category"]))
    problems = [
        (row, f"has {counts[row]} bbox and {len(lists['category'][row].as_py() or [])} category")
        for row in unequal.tolist()
    ]
    counts[unequal] = 0
    fields = {name: _aligned(one, name, counts, problems) for name, one in lists.items()}
    return Objects(counts, fields, problems)


def _known_fields(structs: Any) -> dict[str, Any]:
    """Return the fields of structs that are read; null where the struct is."""
    found = dict(zip((one.name for one in structs.type), structs.flatten(), strict=True))
    if missing := [name for name in REQUIRED if name not in found]:
        raise ColumnError(f"has no field {' and '.join(missing)}; it has {', '.join(found)}")
    return {name: found[name] for name in (*REQUIRED, *OPTIONAL) if name in found}


def _aligned(lists: Any, name: str, counts: NDArray[np.int64], problems: list[tuple[int, str]]) -> Any:
    """Return the values of lists as N values, null where a list is none or of another length."""
    import pyarrow as pa

    lengths = _lengths(lists)
    if (lengths == counts).all():
        return lists.flatten()
    problems += [
        (row, f"has {counts[row]} bbox and {lengths[row]} {name}")
        for row in np.flatnonzero((lengths != counts) & (lengths > 0) & (counts > 0)).tolist()
    ]
    fits = np.repeat(lengths == counts, counts)
    places = np.repeat(np.cumsum(lengths) - lengths, counts) + ranks(counts)
    return lists.flatten().take(pa.array(np.where(fits, places, 0), mask=~fits))


def ranks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (N,) the place of each object among those of its image, from 0."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def floats(array: Any) -> NDArray[np.float64]:
    """Return numbers; NaN for null.

    Raises:
        ColumnError: if the column holds anything else.
    """
    import pyarrow as pa

    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type)):
        raise ColumnError(f"must hold numbers; it holds {array.type}")
    found: NDArray[np.float64] = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)


def whole_numbers(array: Any, missing: int) -> NDArray[np.int64]:
    """Return whole numbers or truth values; `missing` for null.

    Raises:
        ColumnError: if the column holds anything else, or a number beyond 64 bits.
    """
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    if not any(is_kind(array.type) for is_kind in kinds):
        raise ColumnError(f"must hold whole numbers; it holds {array.type}")
    try:
        found: NDArray[np.int64] = array.cast(pa.int64()).fill_null(missing).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise ColumnError(f"must hold whole numbers of 64 bits: {error}") from None
    return found


def fours(array: Any) -> NDArray[np.float64]:
    """Return (N, 4) numbers of N lists; NaN where a list is null, or not of four.

    Raises:
        ColumnError: if the column holds anything else than lists of numbers.
    """
    import pyarrow as pa

    if pa.types.is_null(array.type):
        return np.full((len(array), 4), np.nan)
    if not _is_list(array.type):
        raise ColumnError(f"must hold lists of four numbers; it holds {array.type}")
    lengths, values = _lengths(array), floats(array.flatten())
    starts = np.cumsum(lengths) - lengths
    found = np.full((len(array), 4), np.nan)
    of_four = lengths == 4
    found[of_four] = values[starts[of_four, None] + np.arange(4)]
    return found


def texts(array: Any) -> list[str | None] | None:
    """Return texts, null as None; None if the column holds something else."""
    import pyarrow as pa

    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    found: list[str | None] | None = array.to_pylist() if is_text else None
    return found


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(lists: Any) -> NDArray[np.int64]:
    """Return the length of each list, 0 where it is null."""
    import pyarrow.compute as pc

    found: NDArray[np.int64] = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)
