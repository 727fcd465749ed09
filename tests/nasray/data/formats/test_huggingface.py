import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nasray.data import check_data
from nasray.data.image_files.headers import refuse_other_pixels
from nasray.data.image_files.images import encode_png
from nasray.data.source import open_data
from nasray.spaces import NasrayError
from tests.nasray.data.layout_sets import (
    IMAGE_HW,
    hugging_face_rows,
    hugging_face_schema,
    made_images,
    write_hugging_face_set,
)

IMAGES = made_images()


@pytest.fixture
def write(tmp_path):
    """A function that writes one file after changing its rows and its schema."""

    def write_file(change=lambda rows: None, schema=None):
        rows = hugging_face_rows(IMAGES)
        change(rows)
        schema = schema or hugging_face_schema()
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "train.parquet")
        return str(tmp_path)

    return write_file


def with_column(name, kind):
    schema = hugging_face_schema()
    return schema.set(schema.get_field_index(name), pa.field(name, kind)) if name in schema.names else schema.append(
        pa.field(name, kind))  # fmt: skip


def with_field(name, kind):
    """The schema with another type of a field of the objects."""
    schema = hugging_face_schema()
    fields = {one.name: one.type for one in schema.field("objects").type} | {name: pa.list_(kind)}
    return schema.set(schema.get_field_index("objects"), pa.field("objects", pa.struct(fields)))


def test_a_set_in_several_files(tmp_path):
    write_hugging_face_set(tmp_path, {"train": IMAGES, "val": IMAGES[:1]})
    for source in (tmp_path, tmp_path / "data"):
        data = open_data(str(source))
        assert (data.splits, data.classes) == (("train", "val"), ("cat", "dog"))
    train = data.split("train")
    assert (train.boxes == [box for _, objects in IMAGES for _, box in objects]).all()
    assert train.labels.tolist() == [label for _, objects in IMAGES for label, _ in objects]
    assert np.diff(train.offsets).tolist() == [1, 2, 3, 0]
    assert train.image_ids.tolist() == [0, 1, 2, 3]
    assert train.category_ids == (0, 1)
    assert (train.image_hw == IMAGE_HW).all()
    assert [train.files.read(index) for index in range(4)] == [encoded for encoded, _ in IMAGES]
    assert train.describe(3).endswith("train-00001-of-00002.parquet, row 1 (003.png) (image id 3)")
    only = open_data(str(tmp_path / "data" / "validation-00000-of-00001.parquet"))
    assert only.splits == ("val",)
    assert len(only.split("val").boxes) == 1


def test_records_text_categories_and_what_is_left_out(tmp_path):
    kind = pa.struct({"bbox": pa.list_(pa.float64()), "category": pa.string()})
    schema = pa.schema({"image": pa.binary(), "objects": pa.list_(kind), "image_id": pa.string()})
    for name, word in (("train", "dog"), ("validation", "cow")):
        rows = [
            {
                "image": IMAGES[0][0],
                "image_id": "a",
                "objects": [{"bbox": [0.5, 1, 2, 3], "category": word}, {"bbox": [5, 5, 9, 9], "category": "cat"}],
            }
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / f"{name}.parquet")
    data = open_data(str(tmp_path))
    train = data.split("train")
    assert (train.classes, train.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert train.boxes.tolist() == [[0.5, 1, 2.5, 4], [5, 5, 14, 14]]
    assert train.image_hw.tolist() == [list(IMAGE_HW)]
    assert (train.image_ids.tolist(), train.annotation_ids.tolist()) == ([1], [1, 2])
    assert [defect.kind for defect in train.defects] == ["odd-field"]
    assert "column image_id must hold whole numbers; it holds string; images are numbered" in train.defects[0].message
    (_, wrong) = data.read("val").defects
    assert wrong.kind == "unknown-category"
    assert wrong.message.endswith("row 0, object 1: category 'cow' is not one of the 2 classes")


def test_outlines_crowds_and_classes_that_are_chosen(write, tmp_path):
    def change(rows):
        for row in rows:
            row["objects"]["iscrowd"] = [False] * len(row["objects"]["bbox"])
            row["objects"]["segmentation"] = [None] * len(row["objects"]["bbox"])
        rows[0]["objects"]["segmentation"] = [[[1.0, 1, 5, 1, 5, 5]]]
        rows[1]["objects"]["segmentation"][0] = [[1.0, 1, 5, 1]]
        rows[1]["objects"]["iscrowd"][1] = True

    schema = with_field("segmentation", pa.list_(pa.list_(pa.float64())))
    place = schema.get_field_index("objects")
    fields = [*schema.field("objects").type, pa.field("iscrowd", pa.list_(pa.bool_()))]
    write(change, schema.set(place, pa.field("objects", pa.struct(fields))))
    (tmp_path / "set.yaml").write_text("format: huggingface\nclasses: [cat]\norientation: stored\n")
    train = open_data(str(tmp_path / "set.yaml")).read("train")
    assert train.classes == ("cat",)
    assert train.pixel_rules.orientation == "stored"
    assert train.segmentations.value(0) == [[1, 1, 5, 1, 5, 5]]
    assert train.ignored.tolist() == [False, True, False, False]
    kinds = {defect.kind: defect.message for defect in train.defects}
    assert sorted(kinds) == ["bad-outline", "class-left-out", "no-outline"]
    assert "row 1, object 1: segmentation polygon 1 of 1 has 4 numbers" in kinds["bad-outline"]


def test_sizes_that_are_missing_are_read_from_the_images(write):
    def change(rows):
        rows[1]["width"] = None
        rows[2]["image"]["bytes"] = b"no image"
        rows[2]["height"] = 0
        rows[3]["width"] = -5

    train = open_data(write(change)).read("train")
    assert train.image_hw.tolist() == [[64, 128], [64, 128], [0, 0], [0, 0]]
    kinds = {defect.kind: defect.message for defect in train.defects}
    assert "row 1 (001.png) has no width and height; those of the image are taken" in kinds["image-size"]
    assert "row 2 (002.png) holds no image, or a damaged one" in kinds["unreadable-image"]
    assert "row 3 (003.png): width -5 and height 64 must lie between" in kinds["bad-field"]


def no_image(rows):
    rows[2]["image"]["bytes"] = None


def of_objects(row, **values):
    return lambda rows: rows[row]["objects"].update(values)


@pytest.mark.parametrize(
    ("change", "schema", "kind", "message"),
    [
        (of_objects(0, category=[2]), None, "unknown-category", "row 0, object 1: category 2 is not one of the 2 "),
        (of_objects(0, category=[None]), None, "unknown-category", "category None is not one"),
        (of_objects(1, category=[0]), None, "bad-field", "row 1: objects has 2 bbox and 1 category"),
        (of_objects(1, bbox=[[0, 0, 1, 1], [0, 0, float("nan"), 1]]), None, "bad-box", "object 2: bbox must .*nan"),
        (of_objects(0, bbox=[[1, 2, 3]]), with_field("bbox", pa.list_(pa.float64())), "bad-box", r"got \[1.0, 2"),
        (of_objects(0, bbox=[None]), None, "bad-box", "got None"),
        (of_objects(0, bbox=[[1, 1, 0, 0]]), None, "zero-box", "row 0, object 1: box xyxy"),
        (of_objects(0, bbox=[[1, 1, 500, 5]]), None, "clipped-box", "of a 128x64 image"),
        (of_objects(0, area=[-1]), None, "bad-field", "row 0, object 1: area must be 0 or more, got -1"),
        (of_objects(0, iscrowd=[2]), with_field("iscrowd", pa.int8()), "bad-field", "iscrowd must be 0 or 1, got 2"),
        (no_image, None, "missing-image", "1 rows hold no image, only its name"),
        (lambda rows: rows[1].update(image_id=0), None, "duplicate-image", "row 0: image_id 0 is that of 2 rows"),
    ],
)  # fmt: skip
def test_mistakes_in_rows_name_file_row_and_value(write, change, schema, kind, message):
    (defect,) = open_data(write(change, schema)).read("train").defects
    assert defect.kind == kind
    assert "train.parquet" in defect.message
    assert re.search(message, defect.message)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (with_field("bbox", pa.string()), "column objects of bbox must hold lists of four numbers; it holds string"),
        (with_field("category", pa.float64()), "column objects of category must hold whole numbers; it holds double"),
        (with_field("area", pa.string()), "column objects of area must hold numbers; it holds string"),
        (with_column("image", pa.string()), "column image must hold encoded images, .*; it holds string"),
        (with_column("width", pa.float32()), "column width and height must hold whole numbers; it holds float"),
        (with_column("objects", pa.string()), "column objects must hold lists by field"),
        (pa.schema({"text": pa.string()}), "is not of a detection set: it has no column 'image', but text"),
        (pa.schema({"image": pa.binary()}), "it has no column 'objects', but image"),
        (hugging_face_schema(names=None), r"the classes have no names: .*format: huggingface, names: \[cat, dog\]"),
        (hugging_face_schema(names=["cat", "cat"]), "its ClassLabel has the name 'cat' twice"),
        (hugging_face_schema().with_metadata({"huggingface": "{"}), "metadata 'huggingface' is not valid JSON"),
    ],
)  # fmt: skip
def test_columns_of_other_types_are_named(tmp_path, schema, message):
    pq.write_table(schema.empty_table(), tmp_path / "train.parquet")
    with pytest.raises(NasrayError, match=rf"train\.parquet.*{message}") as error:
        open_data(str(tmp_path)).read("train")
    assert str(error.value).isprintable()


def test_names_for_files_that_have_none(write, tmp_path):
    write(schema=hugging_face_schema(names=None))
    path = tmp_path / "set.yaml"
    path.write_text("format: huggingface\ntrain: {files: ['*.parquet']}\nnames: [cat, dog]\n")
    assert open_data(str(path)).split("train").classes == ("cat", "dog")
    write()
    path.write_text("format: huggingface\nnames: [dog, cat]\n")
    with pytest.raises(NasrayError, match=r"names its classes \['cat', 'dog'\]. Leave `names` out"):
        open_data(str(path)).split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {files: [gone.parquet]}", r"gone\.parquet not found"),
        ("train: {files: ['gone*.parquet']}", "train: no file in .* is called 'gone"),
        ("train: {images: x}", "train of a Hugging Face set needs `files` alone"),
        ("root: gone", "holds no Parquet files. Name `files`"),
        ("names: [cat, cat]", "names: 'cat' occurs twice"),
    ],
)  # fmt: skip
def test_mistakes_in_the_yaml_file_are_named(tmp_path, text, message):
    (tmp_path / "set.yaml").write_text(f"format: huggingface\n{text}\n")
    with pytest.raises(NasrayError, match=message):
        open_data(str(tmp_path / "set.yaml")).read("train")


def test_files_with_other_classes_are_refused(tmp_path):
    write_hugging_face_set(tmp_path, {"train": IMAGES})
    rows = hugging_face_rows(IMAGES[:1])
    path = tmp_path / "data/train-00001-of-00002.parquet"
    pq.write_table(pa.Table.from_pylist(rows, hugging_face_schema(names=["dog", "cat"])), path)
    with pytest.raises(NasrayError, match=r"train-00001-of-00002\.parquet has other features than .*Write both"):
        open_data(str(tmp_path)).read("train")


def test_a_torn_file_is_one_message(write, tmp_path):
    source = write()
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NasrayError, match=r"train\.parquet is no Parquet file, or a damaged one: .*Get a whole copy"):
        open_data(source)


def test_the_check_finds_images_of_other_sizes_and_boxes_by_corners(write):
    def change(rows):
        for row in rows:
            row["objects"].update(bbox=[[70, 30, 120, 60]] * 4, category=[0] * 4, id=[0] * 4, area=[9] * 4)
        rows[1]["image"]["bytes"] = encode_png(np.zeros((3, 10, 10), dtype=np.uint8))

    source = write(change)
    defects = check_data(source)["splits"]["train"]["defects"]
    assert "row 1 (001.png) (image id 1) is 10x10 pixels, but its annotation says 128x64" in str(defects["other-size"])
    assert "they look like corners [x1, y1, x2, y2]" in str(defects["other-boxes"])


def test_first_images_of_groups_are_looked_at_before_a_training(write):
    source = write(lambda rows: rows[0].update(width=100))
    with pytest.raises(NasrayError, match=r"row 0 .*is 128x64 pixels, but its annotation says 100x64"):
        refuse_other_pixels(open_data(source).read("train"), source)
