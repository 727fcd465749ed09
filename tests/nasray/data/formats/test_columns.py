import numpy as np
import pyarrow as pa
import pytest

from nasray.data.formats.columns import ColumnError, floats, fours, object_columns, ranks, texts, whole_numbers

ROWS = [{"bbox": [[1, 2, 3, 4]], "category": [5], "area": [2]}, None, {"bbox": [], "category": [], "area": []},
        {"bbox": [[0, 0, 1, 1], None], "category": [6, None], "area": [3, 4]}]  # fmt: skip


def lists(rows=ROWS, **kinds):
    kinds = {"bbox": pa.list_(pa.float32(), 4), "category": pa.int64(), "area": pa.int32(), **kinds}
    return pa.array(rows, type=pa.struct({name: pa.list_(kind) for name, kind in kinds.items()}))


def records():
    kind = pa.struct({"bbox": pa.list_(pa.float32()), "category": pa.int64(), "area": pa.int32(), "other": pa.string()})
    rows = [
        None if row is None else [
            {"bbox": box, "category": label, "area": area}
            for box, label, area in zip(row["bbox"], row["category"], row["area"], strict=True)
        ] for row in ROWS
    ]  # fmt: skip
    return pa.array(rows, type=pa.list_(kind))


@pytest.mark.parametrize("column", [lists(), records(), records().cast(pa.large_list(records().type.value_type))])
def test_lists_by_field_and_records_are_the_same(column):
    objects = object_columns(column)
    assert objects.counts.tolist() == [1, 0, 0, 2]
    assert not objects.problems
    assert whole_numbers(objects.fields["category"], -1).tolist() == [5, 6, -1]
    assert floats(objects.fields["area"]).tolist() == [2, 3, 4]
    np.testing.assert_array_equal(fours(objects.fields["bbox"]), [[1, 2, 3, 4], [0, 0, 1, 1], [np.nan] * 4])
    assert sorted(objects.fields) == ["area", "bbox", "category"]
    assert ranks(objects.counts).tolist() == [0, 0, 1]


def test_rows_whose_lists_are_of_other_lengths_are_left_out():
    rows = [{"bbox": [[1, 2, 3, 4]], "category": [5, 6], "area": [1, 2]},
            {"bbox": [[0, 0, 1, 1]] * 2, "category": [6, 7], "area": None},
            {"bbox": [[0, 0, 2, 2]], "category": [8], "area": [1, 2]}]  # fmt: skip
    objects = object_columns(lists(rows))
    assert objects.counts.tolist() == [0, 2, 1]
    assert objects.problems == [(0, "has 1 bbox and 2 category"), (2, "has 1 bbox and 2 area")]
    assert objects.fields["category"].to_pylist() == [6, 7, 8]
    assert objects.fields["area"].to_pylist() == [None, None, None]
    assert fours(objects.fields["bbox"])[2].tolist() == [0, 0, 2, 2]


def test_boxes_of_other_lengths_are_none():
    column = pa.array([[1, 2, 3], [1, 2, 3, 4, 5], [], [1, None, 3, 4], [5, 6, 7, 8]], type=pa.list_(pa.int64()))
    found = fours(column)
    assert np.isfinite(found).all(axis=1).tolist() == [False, False, False, False, True]
    assert found[4].tolist() == [5, 6, 7, 8]


def test_texts_of_every_kind():
    column = pa.array(["a", None, "b"])
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert texts(column.cast(kind)) == ["a", None, "b"]
    assert texts(pa.array([1])) is None


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: object_columns(pa.array([1])), "must hold lists by field .*it holds int64"),
        (lambda: object_columns(pa.array([{"bbox": [1]}])), "has no field category; it has bbox"),
        (lambda: object_columns(pa.array([{"bbox": [[1]], "category": 3}])), "category holds int64"),
        (lambda: object_columns(pa.array([[3]])), "must hold lists by field"),
        (lambda: floats(pa.array(["1"])), "must hold numbers; it holds string"),
        (lambda: whole_numbers(pa.array([1.5]), 0), "must hold whole numbers; it holds double"),
        (lambda: whole_numbers(pa.array([2**64 - 1], type=pa.uint64()), 0), "must hold whole numbers of 64 bits"),
        (lambda: fours(pa.array(["a"])), "must hold lists of four numbers; it holds string"),
        (lambda: fours(pa.array([["a"]])), "must hold numbers; it holds string"),
    ],
)  # fmt: skip
def test_other_types_are_named(read, message):
    with pytest.raises(ColumnError, match=message):
        read()
