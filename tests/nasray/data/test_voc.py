import numpy as np
import pytest

from nasray.data.source import open_data
from nasray.data.voc import read_voc
from nasray.spaces import NasrayError

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)
OBJECTS = {
    "a": [("dog", 0, 1, 1, 40, 30), ("cat", 1, 5, 6, 14, 15)],
    "b": [("dog", 0, 3, 4, 3, 9)],
    "c": [("cat", 0, 30, 2, 45, 8), ("dog", 0, 50, 2, 60, 8)],
}


@pytest.fixture
def root(tmp_path, encode):
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    for stem, objects in OBJECTS.items():
        (tmp_path / f"JPEGImages/{stem}.jpg").write_bytes(encode(np.zeros((30, 40, 3))))
        write_xml(tmp_path, stem, objects)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c\n")
    return tmp_path


def write_xml(root, stem, objects, size="<size><width>40</width><height>30</height></size>"):
    text = f"<annotation>{size}{''.join(OBJECT.format(*item) for item in objects)}</annotation>"
    (root / f"Annotations/{stem}.xml").write_text(text)


def read(root, *names, **options):
    return read_voc([root / f"ImageSets/Main/{name}.txt" for name in names], name=names[0], **options)


def test_pixels_count_from_one_and_are_inclusive(root):
    dataset = read(root, "train")
    assert dataset.classes == ("cat", "dog")
    assert dataset.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 14, 15]]
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.ignored.tolist() == [False, True]
    assert dataset.areas.tolist() == [1200, 100]
    assert dataset.offsets.tolist() == [0, 2, 2]
    (defect,) = dataset.defects
    assert (defect.kind, defect.severity) == ("zero-box", "warning")
    assert "b.xml: object 1 (dog) of image" in defect.message


def test_boxes_outside(root):
    dataset = read(root, "val")
    assert dataset.boxes.tolist() == [[29, 1, 40, 8]]
    assert [defect.kind for defect in dataset.defects] == ["clipped-box", "outside-box"]
    assert "c.xml: object 2 (dog)" in dataset.defects[1].message


def test_lists_are_strung_together(root):
    dataset = read(root, "train", "val")
    assert [dataset.files.name(index)[-5:] for index in range(3)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert dataset.image_ids.tolist() == [1, 2, 3]


def test_lists_of_one_class_have_a_second_column(root):
    (root / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\nc  0\n")
    assert len(read(root, "cat_train")) == 2


def test_classes_that_are_not_known(root):
    dataset = read(root, "train", classes=("dog",))
    assert [(defect.kind, defect.severity) for defect in dataset.defects if "cat" in defect.message] == [
        ("unknown-category", "error")
    ]
    chosen = read(root, "train", classes=("dog",), subset=True)
    assert chosen.boxes.tolist() == [[0, 0, 40, 30]]
    (left_out,) = [defect for defect in chosen.defects if defect.kind == "class-left-out"]
    assert (left_out.count, left_out.message) == (1, "class 'cat': 1 boxes")


def test_what_is_missing_is_named(root):
    (root / "Annotations/a.xml").unlink()
    (root / "JPEGImages/c.jpg").unlink()
    write_xml(root, "b", [("dog", 0, 3, 4, "?", 9)], size="")
    kinds = {defect.kind: defect.message for defect in read(root, "train", "val").defects}
    assert "a.jpg: no annotation file" in kinds["missing-annotation"]
    assert "c.xml: no file" in kinds["missing-image"]
    assert "b.xml has no width and height" in kinds["image-size"]
    assert "b.jpg, object 1 (dog): bndbox/xmax must be a number, got '?'" in kinds["bad-box"]


def test_an_image_that_tells_no_size(root):
    write_xml(root, "a", OBJECTS["a"], size="")
    (root / "JPEGImages/a.jpg").write_bytes(b"torn")
    assert "unreadable-image" in [defect.kind for defect in read(root, "train").defects]


def test_torn_files_stop(root):
    with pytest.raises(NasrayError, match=r"other\.txt not found"):
        read(root, "other")
    for stem in "ab":
        (root / f"Annotations/{stem}.xml").write_text("<annotation>")
    found = [defect.message for defect in read(root, "train").defects if defect.kind == "bad-annotation"]
    assert ["a.xml is not valid XML: no element found at line 1" in one for one in found] == [True, False]
    assert "b.xml is not valid XML" in found[1]


def test_a_folder_gives_val_the_classes_of_train(root):
    data = open_data(str(root))
    assert data.splits == ("train", "val")
    assert data.split("val").classes == data.classes == ("cat", "dog")
    assert open_data(str(root)).read("val").labels.tolist() == [0]


def test_real_voc_equals_real_coco(shared_data, tmp_path):
    root = shared_data("bccd")
    (tmp_path / "voc.yaml").write_text(
        f"format: voc\nroot: {root}/voc\nclasses: [RBC, WBC, Platelets]\n"
        + "".join(f"{name}: {{lists: [ImageSets/Main/{name}.txt], images: ../images}}\n"
                  for name in ("train", "val", "test"))
    )  # fmt: skip
    voc, coco = open_data(str(tmp_path / "voc.yaml")), open_data(str(root))
    zero = 0
    for name in ("train", "val", "test"):
        one, other = voc.split(name), coco.split(name)
        assert one.classes == other.classes
        assert content(one) == content(other)
        zero += sum(defect.kind == "zero-box" for defect in one.defects)
    assert zero == 2
    assert open_data(str(tmp_path / "voc.yaml")).split("train").read_image(0).shape == (3, 480, 640)


def content(dataset):
    """Boxes with their labels by image file."""
    return {
        dataset.files.name(index).rpartition("/")[2]: [
            (*dataset.boxes[row].tolist(), dataset.areas[row], int(dataset.labels[row]))
            for row in range(*dataset.offsets[index : index + 2])
        ]
        for index in range(len(dataset))
    }
