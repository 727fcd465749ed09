import re

import numpy as np
import pytest

from nasray.data.formats.yolo import label_path
from nasray.data.image_files.images import encode_png
from nasray.data.source import open_data
from tests.nasray.data.layout_sets import IMAGE_HW, made_images, write_yolo_set

IMAGE = encode_png(np.zeros((3, 20, 40), dtype=np.uint8))


@pytest.fixture
def write(tmp_path):
    """A function that writes files: images where the content is None."""

    def write_files(files, yaml="train: images\nnames: [cat, dog]\n"):
        for name, text in {**files, "data.yaml": yaml}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(IMAGE if text is None else text.encode())
        return tmp_path

    return write_files


def kinds(dataset):
    return [defect.kind for defect in dataset.defects]


def test_boxes_in_pixels_and_images_without_labels(tmp_path):
    images = made_images()
    write_yolo_set(tmp_path, {"train": images, "val": images[:1]})
    for source in (tmp_path, tmp_path / "data.yaml"):
        data = open_data(str(source))
        assert (data.splits, data.classes) == (("train", "val"), ("cat", "dog"))
    train = data.split("train")
    assert (train.boxes == [box for _, objects in images for _, box in objects]).all()
    assert train.labels.tolist() == [label for _, objects in images for label, _ in objects]
    assert np.diff(train.offsets).tolist() == [1, 2, 3, 0]
    assert train.image_ids.tolist() == [1, 2, 3, 4]
    assert (train.image_hw == IMAGE_HW).all()
    assert train.read_image(3).shape == (3, *IMAGE_HW)
    assert train.segmentations is None


def test_whole_pixels_with_all_digits_are_whole_again(tmp_path):
    generator = np.random.default_rng(0)
    height, width = 427, 640  # of which a pixel is no exact share
    corners = np.sort(generator.integers(0, (height, width), (500, 2, 2)), axis=1)
    corners[:, 1] += 1
    boxes = corners[:, :, ::-1].reshape(-1, 4)
    shares = np.concatenate([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1) / 2
    lines = [" ".join(["0", *map(repr, row)]) for row in (shares / (width, height, width, height)).tolist()]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((3, height, width), dtype=np.uint8)))
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    train = open_data(str(tmp_path)).read("train")
    assert (train.target(0)["boxes"].numpy() == boxes).all()
    assert (train.boxes != boxes).any()


def test_outlines_make_boxes_and_masks(write):
    root = write({"images/a.png": None, "labels/a.txt": "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n0 0.5 0.5 1 1\n"})
    train = open_data(str(root)).split("train")
    assert train.boxes.tolist() == [[10, 5, 20, 15], [0, 0, 40, 20]]
    assert train.segmentations.value(0) == [[10, 5, 20, 5, 20, 15, 10, 15]]
    masks = train.target(0, with_masks=True)["masks"]
    assert [int(mask.sum()) for mask in masks] == [100, 800]
    assert kinds(train) == ["no-outline"]


def test_rounded_labels_are_near_and_never_clipped_with_a_word(write):
    root = write({"images/a.png": None, "labels/a.txt": "0 0.166667 0.5 0.333333 1.000001"})
    train = open_data(str(root)).split("train")
    np.testing.assert_allclose(train.boxes, [[0, 0, 40 / 3, 20]], atol=4e-5)
    assert not train.defects


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("0 0.5 0.5 1.2 0.5", "bad-box", "width must be a share from 0 to 1, got '1.2'"),
        ("0 -0.1 0.5 0.2 0.5", "bad-box", "center x must be a share from 0 to 1, got '-0.1'"),
        ("0 20 10 5 5", "bad-box", "got '20'; are these pixels. Divide by"),
        ("0 0.1 0.1 0.2 0.1 0.2 1.5", "bad-box", "y of corner 3 must be a share from 0 to 1, got '1.5'"),
        ("0 0.5 0.5 0.1 1e999", "bad-box", "height must be a share from 0 to 1, got '1e999'"),
        ("0 0.5 0.5 nan 0.1", "bad-field", "must be numbers with spaces between them, got 'nan'"),
        ("0,0.5,0.5,0.1,0.1", "bad-field", "must be numbers with spaces between them, got '0,0.5"),
        ("cat 0.5 0.5 0.1 0.1", "bad-field", "must be numbers with spaces between them, got 'cat'"),
        ("0 0.5 0.5 0.1 0.1 0.9", "bad-box", "has 6 numbers; .*the sixth may be a score"),
        ("0 0.5 0.5 0.1", "bad-box", "has 4 numbers; a box has 5"),
        ("0 .1 .1 .2 .1 .2 .2 .3", "bad-box", "has 8 numbers"),
        ("2 0.5 0.5 0.1 0.1", "unknown-category", "class '2' has no name; names are classes 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "unknown-category", "class '-1' has no name"),
        ("0.5 0.5 0.5 0.1 0.1", "bad-field", "class must be a whole number, got '0.5'"),
        ("0 0.5 0.5 0 0.1", "zero-box", "of a 40x20 image"),
        ("0 0.95 0.5 0.5 0.5", "clipped-box", "of a 40x20 image"),
        ("1 0.5 0.5 0.1 0.1", "duplicate-annotation", "it is the same as line 1"),
    ],
)  # fmt: skip
def test_mistakes_in_labels_name_file_line_and_value(write, line, kind, message):
    root = write({"images/a.png": None, "labels/a.txt": f"1 0.5 0.5 0.1 0.1\r\n\n{line}\n"})
    (defect,) = open_data(str(root)).read("train").defects
    assert defect.kind == kind
    assert re.search(rf"labels/a\.txt, line 3: .*{message}", defect.message)


def test_numbers_that_look_alike_take_no_time(write):
    root = write({"images/a.png": None, "labels/a.txt": " ".join(["111111111111"] * 60) + " x"})
    assert kinds(open_data(str(root)).read("train")) == ["bad-field", "empty"]


def test_mistakes_in_files_are_named(write):
    root = write({
        "images/a.png": None, "images/a.bmp": None, "images/b.png": None, "images/c.jpg": "no image",
        "images/d.png": None, "labels/a.txt": "0 0.5 0.5 0.5 0.5", "labels/gone.txt": "0 0.5 0.5 0.5 0.5",
        "labels/classes.txt": "cat\ndog\n", "labels/d.txt": "\0",
    })  # fmt: skip
    found = {defect.kind: defect.message for defect in open_data(str(root)).read("train").defects}
    assert found == {
        "unreadable-image": f"{root}/images/c.jpg is no image, or a damaged one",
        "bad-annotation": f"{root}/labels/d.txt is binary, not text: zero byte at offset 0. Pass a UTF-8 text file",
        "duplicate-image": f"{root}/images/a.png and {root}/images/a.bmp have the same label file, "
                           f"{root}/labels/a.txt. Keep one of them",
        "missing-image": f"{root}/labels/gone.txt has labels, but there is no image of its name",
    }  # fmt: skip


def test_labels_that_lie_elsewhere_are_said(write):
    root = write({"images/train/a.png": None, "train/labels/a.txt": "0 0.5 0.5 1 1"}, "train: images/train\nnames: [a]")
    (defect,) = open_data(str(root)).read("train").defects
    assert defect.kind == "empty"
    assert f"that of {root}/images/train/a.png was looked for at {root}/labels/train/a.txt" in defect.message


def test_lists_of_images_folders_and_several_entries(write):
    root = write(
        {"images/x/b.png": None, "images/x/deep/c.png": None, "images/y/d.png": None,
         "lists/val.txt": "../images/x/b.png\n", "train.txt": "./images/y/d.png\n\nimages/gone.png\n",
         "labels/x/b.txt": "0 .5 .5 1 1",
         "labels/y/d.txt": "1 .5 .5 1 1"},
        "train: [images/x, train.txt]\nvalidation: lists/val.txt\ntest:\nnames: [cat, dog]\nroboflow: {version: 1}\n",
    )  # fmt: skip
    data = open_data(str(root))
    assert data.splits == ("train", "val")
    train = data.read("train")
    names = [train.files.name(index).removeprefix(f"{root}/") for index in range(len(train))]
    assert names == ["images/x/b.png", "images/x/deep/c.png", "images/y/d.png", "images/gone.png"]
    assert train.labels.tolist() == [0, 1]
    assert kinds(train) == ["missing-image"]
    assert data.split("val").labels.tolist() == [0]


def test_an_image_listed_twice_is_an_error(write):
    root = write(
        {"images/a.png": None, "labels/a.txt": "0 .5 .5 1 1", "l.txt": "images/a.png\nimages/a.png\n"},
        "train: l.txt\nnames: [a]",
    )
    (defect,) = open_data(str(root)).read("train").defects
    assert (defect.kind, defect.count) == ("duplicate-image", 1)


def test_entries_as_roboflow_writes_them(write):
    root = write(
        {"train/images/a.png": None, "train/labels/a.txt": "0 .5 .5 1 1"}, "train: ../train/images\nnames: [a]"
    )
    assert len(open_data(str(root)).split("train").boxes) == 1


def test_another_name_of_the_file_and_classes_that_are_chosen(write):
    root = write({"images/a.png": None, "labels/a.txt": "0 .5 .5 1 1\n1 .5 .5 .5 .5"})
    text = "path: .\ntrain: images\nnames: [cat, dog]\nclasses: [dog]\norientation: stored\n"
    (root / "data.yaml").rename(root / "pets.yaml")
    (root / "pets.yaml").write_text(text)
    train = open_data(str(root)).split("train")
    assert (train.classes, train.category_ids, train.labels.tolist()) == (("dog",), (1,), [0])
    assert kinds(train) == ["class-left-out"]
    assert train.pixel_rules.orientation == "stored"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"), ("images/a.b.jpg", "labels/a.b.txt"),
        ("/images/x/images/a.jpg", "/images/x/labels/a.txt"), ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
        ("/d/images.v2/images", "/d/images.v2/images.txt"),
    ],
)  # fmt: skip
def test_the_label_file_of_an_image(image, label):
    assert label_path(image) == label


def test_within_the_folder_of_images_labels_are_found(write, monkeypatch):
    root = write({"images/a.png": None, "labels/a.txt": "0 .5 .5 1 1", "images/in.yaml": "train: .\nnames: [a]\n"})
    monkeypatch.chdir(root / "images")
    assert len(open_data("in.yaml").split("train").boxes) == 1
