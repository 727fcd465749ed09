import json
import math

import numpy as np
import pytest

from nasray.data.coco import read_coco
from nasray.data.source import open_data
from nasray.spaces import NasrayError


@pytest.fixture
def read(write_coco, tmp_path):
    def read(change=lambda content: None, **options):
        return read_coco(write_coco(change), [tmp_path / "images"], name="train", **options)

    return read


def test_labels_follow_ids_that_may_have_gaps(read):
    dataset = read()
    assert (dataset.classes, dataset.category_ids) == (("cat", "dog"), (3, 7))
    assert dataset.image_ids.tolist() == [10, 11, 12]
    assert dataset.offsets.tolist() == [0, 2, 3, 3]  # annotations are sorted by image; the last image has none
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.annotation_ids.tolist() == [2, 5, 1]
    assert dataset.areas.tolist() == [7.5, 7.5, 7.5]
    assert dataset.read_image(1).float().mean() == pytest.approx(50, abs=1)
    assert not dataset.defects


def change(key, position, **values):
    return lambda content: content[key][position].update(values)


DEFECTS = {
    "missing-image": (change("images", 1, file_name="gone.jpg"), r"train\.json: image id 11: no file .*gone\.jpg"),
    "unknown-image": (change("annotations", 0, image_id=99), "annotation 1 is of image id 99, which is not listed"),
    "unknown-category": (change("annotations", 0, category_id=4), r"\(id 11\) has category id 4; listed are 3, 7"),
    "duplicate-image": (change("images", 1, id=10), r"images\[1\]: id 10 of 1\.jpg is that of 0\.jpg too"),
    "duplicate-category": (change("categories", 1, name="dog"), r"categories\[1\]: id 3 or name 'dog' occurs before"),
    "duplicate-annotation": (change("annotations", 1, id=1), r"annotation 1 of .*: the id occurs before"),
    "bad-box": (change("annotations", 0, bbox=[1, 2, math.nan, 4]), r"\(id 11\): bbox must be four .*nan"),
    "zero-box": (change("annotations", 0, bbox=[1, 2, 0, 4]), r"annotation 1 of image .*1\.jpg \(id 11\): box xyxy"),
    "outside-box": (change("annotations", 0, bbox=[50, 2, 5, 4]), r"annotation 1 .* of a 40x30 image"),
    "clipped-box": (change("annotations", 0, bbox=[38, 2, 5, 4]), r"annotation 1 .* of a 40x30 image"),
    "image-size": (change("images", 1, width=None), r"1\.jpg \(id 11\) has no .*; the file's are \(40, 30\)"),
    "no-outline": (change("annotations", 1, segmentation=[[1, 1, 5, 1, 5, 5]]), "annotation 1 of .* no segmentation"),
    "empty": (lambda content: content["annotations"].clear(), "'train' split has 3 images but no box"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEFECTS)
def test_every_defect_is_a_message(read, kind):
    import re

    edit, message = DEFECTS[kind]
    found = [defect for defect in read(edit).defects if defect.kind == kind]
    assert found
    assert any(re.search(message, defect.message) for defect in found), found


@pytest.mark.parametrize(
    "box", [None, [], [1, 2, 3], "1 2 3 4", [1, 2, -3, 4], [1, 2, "3", 4], [1, 2, 1e-9, 4], [1, 2, True, 4],
            [1, 2, 10**400, 4], [1, 2, -math.inf, 4], [[1, 2], [3, 4]], {"x": 1}, [9.99, 2, 1e-7, 4]]
)  # fmt: skip
def test_a_box_that_is_none_is_left_out(read, box):
    dataset = read(change("annotations", 1, bbox=box))
    assert len(dataset.boxes) == 2
    zero = box in ([1, 2, -3, 4], [1, 2, 1e-9, 4], [9.99, 2, 1e-7, 4])
    assert [(defect.kind, defect.severity) for defect in dataset.defects] == [
        ("zero-box", "warning") if zero else ("bad-box", "error")
    ]
    if not zero:
        assert "bbox must be four finite numbers [x, y, width, height], got " in dataset.defects[0].message or not box


def test_boxes_are_clipped_to_the_image(read):
    dataset = read(change("annotations", 0, bbox=[38, -5, 5, 9]))
    assert dataset.boxes[-1].tolist() == [38, 0, 40, 4]


def test_size_comes_from_the_file_where_it_is_not_annotated(read):
    dataset = read(lambda content: [image.pop("height") for image in content["images"]])
    assert dataset.image_hw.tolist() == [[30, 40]] * 3


def test_an_image_that_tells_no_size_is_an_error(read, write_coco, tmp_path):
    path = write_coco(lambda content: content["images"][1].pop("width"))
    (tmp_path / "images/1.jpg").write_bytes(b"torn")
    dataset = read_coco(path, [tmp_path / "images"], name="train")
    assert any(defect.kind == "unreadable-image" and "1.jpg (id 11)" in defect.message for defect in dataset.defects)


def test_area_is_the_box_where_it_is_not_annotated(read):
    assert read(lambda content: content["annotations"][0].pop("area")).areas.tolist() == [7.5, 7.5, 12]


def test_no_images_at_all(read):
    dataset = read(lambda content: [content["images"].clear(), content["annotations"].clear()])
    assert [defect.kind for defect in dataset.defects] == ["empty"]
    assert dataset.to_coco()["images"] == []


def test_some_classes_in_an_order_of_ones_own(read):
    dataset = read(classes=["dog"])
    assert (dataset.classes, dataset.category_ids, dataset.labels.tolist()) == (("dog",), (7,), [0, 0])
    assert [(defect.kind, defect.severity) for defect in dataset.defects] == [("class-left-out", "warning")]
    assert (dataset.defects[0].count, dataset.defects[0].message[-20:]) == (1, "class 'cat': 1 boxes")
    with pytest.raises(NasrayError, match=r"no categories \['cow'\].*\['cat', 'dog'\]"):
        read(classes=["dog", "cow"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[]", "not of COCO's form"), ('{"images": []}', "lacks"),
     ('{"images": [1], "annotations": [], "categories": []}', r"images\[0\] must be a mapping"),
     ('{"images": [], "images": [], "annotations": [], "categories": []}', "key 'images' twice"),
     ('{"images": [], "annotations": [], "categories": ' + "[" * 10**5, "nested too deeply")],
)  # fmt: skip
def test_what_is_no_coco_file_is_refused(tmp_path, text, message):
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(NasrayError, match=message):
        read_coco(path, [tmp_path], name="train")
    with pytest.raises(NasrayError, match=r"other\.json not found"):
        read_coco(tmp_path / "other.json", [tmp_path], name="train")


def test_real_coco(shared_data):
    root = shared_data("coco_mini")
    data = open_data(str(root))
    for name, images, boxes, crowds in (("train", 353, 2037, 17), ("val", 100, 788, 10)):  # figures of its README
        dataset = data.split(name)
        assert (len(dataset), len(dataset.boxes), dataset.ignored.sum()) == (images, boxes, crowds)
        assert (len(dataset.classes), dataset.category_ids[-1]) == (80, 90)
        content = json.loads((root / f"annotations/{name}.json").read_text())
        expected = {item["id"]: item for item in content["annotations"]}
        boxes = np.array([expected[number]["bbox"] for number in dataset.annotation_ids.tolist()])
        boxes[:, 2:] += boxes[:, :2]
        assert np.abs(boxes - dataset.boxes).max() < 1
        names = {item["id"]: item["name"] for item in content["categories"]}
        assert [names[expected[number]["category_id"]] for number in dataset.annotation_ids.tolist()] == [
            dataset.classes[label] for label in dataset.labels
        ]
        assert [expected[number]["area"] for number in dataset.annotation_ids.tolist()] == dataset.areas.tolist()
