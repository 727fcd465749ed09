import copy
import json
import math
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nasray.data.dataset import refuse_errors
from nasray.data.formats import coco
from nasray.data.formats.coco import read_coco
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


FIELDS = [
    ("annotations", "iscrowd", value, "must be 0, 1, true or false") for value in ("0", "1", "false", 2, [])
] + [
    ("annotations", "ignore", "0", "must be 0, 1, true or false"),
    ("annotations", "area", "12", "must be a number"), ("annotations", "area", -1, "must be at least 0"),
    ("annotations", "area", math.nan, "must be at least 0"),
    ("annotations", "category_id", "3", "must be a whole number"),
    ("annotations", "category_id", 3.5, "must be a whole number"),
    ("annotations", "image_id", "11", "must be a whole number"),
    ("annotations", "image_id", 2**63, "must lie between"),
    ("annotations", "id", "one", "must be a whole number"), ("annotations", "id", -(2**63) - 1, "must lie between"),
    ("annotations", "id", True, "must be a whole number"),
    ("images", "id", 2**64, "must lie between"), ("images", "id", None, "must be a whole number"),
    ("images", "file_name", 7, "must be text"), ("images", "file_name", "", "must be a file's path"),
    ("images", "file_name", "x" * 300, "must be a file's path"),
    ("images", "file_name", "\ud800", "must be valid Unicode"),
    ("images", "width", "40", "must be a whole number"), ("images", "height", -30, "must lie between"),
    ("images", "height", 10**9, "must lie between"), ("images", "height", 30.5, "must be a whole number"),
    ("categories", "name", 3, "must be text"), ("categories", "name", " ", "must be a name"),
    ("categories", "id", "3", "must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "name", "value", "message"), FIELDS)
def test_a_field_of_another_type_is_an_error_that_names_it(read, key, name, value, message):
    found = [defect for defect in read(change(key, 0, **{name: value})).defects if defect.kind == "bad-field"]
    assert len(found) == 1
    assert found[0].severity == "error"
    assert f"{name} {message}" in found[0].message
    assert {"annotations": "annotation", "images": "images[0]", "categories": "categories[0]"}[key] in found[0].message
    assert found[0].message.isprintable()


def test_all_wrong_fields_of_a_record_are_named(read):
    dataset = read(change("annotations", 0, iscrowd="0", area="big", bbox="1 2 3 4"))
    assert [defect.kind for defect in dataset.defects] == ["bad-field", "bad-field", "bad-box"]
    assert all("annotation 1 of image 1.jpg (id 11): " in defect.message for defect in dataset.defects)


@pytest.mark.parametrize(("value", "crowd"), [(0, False), (1, True), (False, False), (True, True), (1.0, True),
                                              (None, False)])  # fmt: skip
def test_crowds(read, value, crowd):
    assert read(change("annotations", 0, iscrowd=value)).ignored.tolist() == [False, True, crowd]


def test_numbers_that_pandas_wrote(read):
    def floats(content):
        for record in (*content["images"], *content["annotations"], *content["categories"]):
            record.update({key: float(value) for key, value in record.items() if type(value) is int})

    dataset = read(floats)
    assert not dataset.defects
    assert dataset.image_ids.tolist() == [10, 11, 12]
    assert dataset.annotation_ids.tolist() == [2, 5, 1]


def test_names_with_spaces(read, tmp_path):
    def rename(content):
        (tmp_path / "images/0.jpg").rename(tmp_path / "images/ my photo 1.jpg")
        content["images"][0]["file_name"] = " my photo 1.jpg"
        content["categories"][0]["name"] = " hot  dog "

    dataset = read(rename)
    assert not dataset.defects
    assert dataset.classes == ("cat", "hot  dog")  # whitespace around a name is no part of it
    assert dataset.read_image(0).shape == (3, 30, 40)


@pytest.mark.parametrize(
    ("edit", "kind", "severity"),
    [
        (change("categories", 1, name="dog "), "duplicate-category", "error"),
        (change("categories", 1, id=7), "duplicate-category", "error"),
        (change("categories", 1, name="DOG"), "similar-class", "warning"),
        (change("images", 1, id=10), "duplicate-image", "error"),
        (change("images", 1, file_name="0.jpg"), "duplicate-image", "error"),
        (change("annotations", 1, id=1), "duplicate-annotation", "warning"),
    ],
)
def test_what_occurs_twice(read, edit, kind, severity):
    assert (kind, severity) in [(defect.kind, defect.severity) for defect in read(edit).defects]


@pytest.mark.parametrize(
    ("box", "looks"),
    [([20, 10, 35, 25], "corners"), ([0.5, 0.25, 0.5, 0.3], "shares of the image"), ([20, 10, 15, 15], None)],
)
def test_boxes_of_another_format_are_said(read, box, looks):
    def edit(content):
        content["annotations"] = [
            {"id": number, "image_id": 10, "category_id": 7, "bbox": [box[0] + number / 100, *box[1:]]}
            for number in range(10)
        ]

    found = [defect.message for defect in read(edit).defects if defect.kind == "other-boxes"]
    assert bool(found) == bool(looks)
    assert not looks or looks in found[0]


@pytest.mark.parametrize("outline", [[[]], [[1, 2, 3, 4]], [1, 1, 5, 1, 5, 5], {"size": [40, 30], "counts": [1200]},
                                     {"size": [30, 40], "counts": None}, [[1, 1, 5, 1, 5, 5], [1, 2]]])  # fmt: skip
def test_what_is_no_outline_bars_masks_alone(read, outline):
    dataset = read(change("annotations", 1, segmentation=outline))
    (defect,) = [defect for defect in dataset.defects if defect.kind == "bad-outline"]
    assert defect.severity == "error"
    assert "annotation 2 of image 0.jpg (id 10): segmentation " in defect.message
    refuse_errors(dataset, "set")  # boxes can be learned
    assert len(dataset.target(0)["boxes"]) == 1
    for one in (dataset, dataset.select(np.array([0]))):
        with pytest.raises(NasrayError, match=r"annotation 2 of image 0\.jpg .* choose a detector of boxes"):
            one.require_outlines()


def test_the_folder_that_holds_most_images_is_taken(write_coco, tmp_path):
    path = write_coco()
    (tmp_path / "images/0.jpg").unlink()  # the first one
    (tmp_path / "other").mkdir()
    dataset = read_coco(path, [tmp_path / "other", tmp_path / "images"], name="train")
    assert [defect.kind for defect in dataset.defects] == ["missing-image"]
    assert str(tmp_path / "images/0.jpg") in dataset.defects[0].message


def test_a_large_file_is_parsed_once(write_coco, tmp_path, monkeypatch):
    outline = {"size": [30, 40], "counts": [200, 100, 900]}
    path = write_coco(change("annotations", 2, segmentation=outline, bbox=[38, -5, 5, 9], area=None))
    folders = [tmp_path / "images"]
    parsed = read_coco(path, folders, name="train")
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "SHARED_BYTES", 1)
    first = read_coco(path, folders, name="train")
    with monkeypatch.context() as patch:
        patch.setattr(coco, "parse_coco", None)
        again = read_coco(path, folders, name="train")
        chosen = read_coco(path, folders, name="train", classes=["dog"])
    for mapped in (first, again):
        for name in ("image_ids", "image_hw", "offsets", "boxes", "labels", "areas", "ignored", "annotation_ids"):
            assert (getattr(mapped, name) == getattr(parsed, name)).all()
            assert not getattr(mapped, name).flags.writeable
        assert list(mapped.files.names) == list(parsed.files.names)
        assert mapped.to_coco() == parsed.to_coco()
        assert (mapped.classes, mapped.defects) == (parsed.classes, parsed.defects)
        assert mapped.defects  # clipped, and without outline
    assert chosen.to_coco() == read_coco(path, folders, name="train", classes=["dog"]).to_coco()
    stamp = path.stat()
    path.write_text(path.read_text().replace('"name": "dog"', '"name": "fox"'))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert read_coco(path, folders, name="train").classes == ("cat", "fox")  # of the same size and time


def test_sizes_from_files_are_not_kept(write_coco, tmp_path, monkeypatch):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "SHARED_BYTES", 1)
    path = write_coco(lambda content: content["images"][1].pop("height"))
    assert read_coco(path, [tmp_path / "images"], name="train").image_hw.tolist() == [[30, 40]] * 3
    assert not list((tmp_path / "cache").rglob("*.arrays"))


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


VALUES = (
    None, True, 0, 1, -1, 2, 7, 10, 2**63, 10**400, 10.0, 1.5, math.nan, math.inf, 1e308, 1e-9, "", "0", "true",
    " dog ", "\ud800", "a\nb", "x" * 300, "0.jpg", "/", ".", "../images", [], [[]], {}, [1, 2, 3, 4], [[1, 2, 3, 4]],
    [None], [[1, 1, 5, 1, 5, 5]], [1, 1, 5, 1, 5, 5], [[1, 1, 5, 1, 5, 5], [1, 2]], [[1, 1, 5, 1, 5, 1e9]],
    [[1, 1, 5, 1, 5, "5"]],
    {"size": [30, 40], "counts": None}, {"size": [30, 40], "counts": [0, 1200]}, {"size": [40, 30], "counts": [1200]},
    {"size": [30, 40], "counts": "zz"}, {"size": [30, 40], "counts": [-1, 1201]}, [1, 2, -3, 4], [99, 99, 5, 5],
    [39.9999999, 1, 5, 5], [0, 0, 1e-6, 1e-6],
)  # fmt: skip


def places(value, place=()):
    """The places of all values inside one, by keys and positions."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*place, key)
        yield from places(item, (*place, key))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_in_a_file_it_is_named_or_can_be_learned(write_coco, tmp_path, data):
    def edit(content):
        content["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6]]
        content["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": [100, 50, 1050]}
        for _ in range(data.draw(st.integers(1, 3))):
            *path, last = data.draw(st.sampled_from(list(places(content))))
            parent = content
            for key in path:
                parent = parent[key]
            how = data.draw(st.sampled_from(["replace", "replace", "replace", "remove", "copy"]))
            if how == "remove":
                del parent[last]
            elif how == "copy" and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[last]))
            else:
                parent[last] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))

    path = write_coco(edit)
    try:
        dataset = read_coco(path, [tmp_path / "images"], name="train")
        refuse_errors(dataset, "set")
        targets = [dataset.target(index) for index in range(len(dataset))]
        dataset.require_outlines()
        refused = ""
    except NasrayError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
        return
    assert not [defect for defect in dataset.defects if defect.severity == "error"]
    for index, target in enumerate(targets):
        height, width = dataset.image_hw[index].tolist()
        boxes = target["boxes"]
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        assert dataset.target(index, with_masks=True)["masks"].shape == (len(boxes), height, width)


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
