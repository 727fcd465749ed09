import json

import pytest

from nasray.data.source import open_data
from nasray.spaces import NasrayError

FOLDERS = {
    "empty": ({}, "is empty"),
    "folders alone": ({"images/": b""}, "is empty"),
    "YOLO without a YAML file": (
        {"images/a.jpg": b"", "labels/a.txt": b"0 0.5 0.5 0.25 1\n1 .1 .1 .1 .1\n", "classes.txt": b"cat"},
        r"holds YOLO labels, and no data.yaml .* the classes \(of classes.txt\)"),
    "YOLO by splits": ({"train/images/a.jpg": b"", "train/labels/a.txt": b"0 0.5 0.5 0.25 1"}, "holds YOLO labels"),
    "YOLO's outlines": ({"a.jpg": b"", "a.txt": b"3 0.1 0.1 0.2 0.1 0.2 0.2"}, "holds YOLO labels"),
    "images": ({"a.jpg": b"", "b/c.png": b""}, "holds images .* and no annotations"),
    "images by class": ({"train/cat/a.jpg": b"", "train/dog/b.jpg": b""}, "images by class, for classification"),
    "LabelMe": ({"a.jpg": b"", "a.json": b'{"version": "5", "shapes": [], "imagePath": "a.jpg"}'}, "LabelMe .a.json"),
    "CreateML": (
        {"x.json": b'[{"image": "a.jpg", "annotations": [{"label": "a", "coordinates": {"x": 1}}]}]'}, "CreateML"),
    "COCO as Roboflow writes it": (
        {"train/_annotations.coco.json": json.dumps(
            {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}).encode(),
         "train/a.jpg": b""},
        r"COCO's format, .*train: \{images: train, annotations: train/_annotations.coco.json\}"),
    "COCO elsewhere": ({"val.json": b'{"images": [], "annotations": [{"image_id": 1}]}'}, "annotations/val.json"),
    "XML beside images": ({"a.jpg": b"", "a.xml": b"<annotation/>"}, r"XML files .a\.xml. without VOC's folders"),
    "a table": ({"boxes.csv": b"image,x", "a.jpg": b""}, r"boxes in boxes\.csv"),
    "TFRecords": ({"train.tfrecord": b""}, "TFRecords"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_another_kind_is_recognized(tmp_path, name):
    files, message = FOLDERS[name]
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (tmp_path / path).mkdir(exist_ok=True)
        else:
            (tmp_path / path).write_bytes(content)
    with pytest.raises(NasrayError, match=message) as error:
        open_data(str(tmp_path))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco.zip", b"PK", "is an archive. Unpack it"), ("a.jpg", b"", "is an image"),
        ("a.csv", b"", "is a .csv file"),
        ("a.xml", b"<annotation/>", "is one annotation"),
        ("train.json", b'{"images": [{"file_name": "a"}], "annotations": []}', "annotations/train.json"),
        ("annotations/val.json", b'{"annotations": [{"image_id": 1}]}', "one split of a COCO set. Pass its folder"),
        ("a.txt", b"", "neither a folder nor a YAML or Parquet file"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_recognized(tmp_path, name, content, message):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NasrayError, match=message):
        open_data(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b", "\udcff"])
def test_names_that_no_file_has(name):
    with pytest.raises(NasrayError, match=r"does not exist|cannot be read") as error:
        open_data(name)
    assert str(error.value).isprintable()
