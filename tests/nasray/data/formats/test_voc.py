import numpy as np
import pytest

from nasray.data.formats.voc import read_voc
from nasray.data.source import open_data
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


FIELDS = [
    ("<difficult>0</difficult>", "<difficult>maybe</difficult>", "bad-field", "difficult must be 0, 1, true, false"),
    ("<difficult>0</difficult>", "<difficult>0</difficult><difficult>1</difficult>", "bad-field", "occurs 2 times"),
    ("<difficult>0</difficult>", "<truncated>0.3</truncated>", "odd-field", "truncated must be 0, 1, true, false"),
    ("<difficult>0</difficult>", "<occluded>?</occluded>", "odd-field", "occluded must be"),
    ("<name>dog</name>", "", "bad-field", "name is missing"),
    ("<name>dog</name>", "<name> </name>", "bad-field", "name must be a name of 1 to 200 characters"),
    ("<name>dog</name>", "<name><b>dog</b></name>", "bad-field", "name holds other elements"),
    ("<xmax>40</xmax>", "<xmax>nan</xmax>", "bad-box", "bndbox/xmax must be a number, got 'nan'"),
    ("<xmax>40</xmax>", "<xmax>1e400</xmax>", "bad-box", "bndbox/xmax must be finite"),
    ("<xmax>40</xmax>", "<xmax>forty</xmax>", "bad-box", "bndbox/xmax must be a number, got 'forty'"),
    ("<xmax>40</xmax>", "", "bad-box", "bndbox/xmax is missing"),
    ("<xmax>40</xmax>", "<xmax>40</xmax><xmax>41</xmax>", "bad-box", "bndbox/xmax occurs 2 times"),
    ("<width>40</width>", "<width>wide</width>", "bad-field", "size/width must be a number"),
    ("<width>40</width>", "<width>-40</width>", "bad-field", "size/width must lie between"),
    ("<width>40</width>", "<width>40.5</width>", "bad-field", "size/width must be a whole number"),
]


@pytest.mark.parametrize(("old", "new", "kind", "message"), FIELDS)
def test_a_field_of_another_type_is_named(root, old, new, kind, message):
    path = root / "Annotations/a.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = [defect for defect in read(root, "train").defects if defect.kind == kind]
    assert len(found) == 1
    assert "a.xml: image" in found[0].message
    assert message in found[0].message


@pytest.mark.parametrize(
    ("word", "difficult"), [("true", True), ("False", False), ("YES", True), (" 1 ", True), ("", False)]
)
def test_words_for_difficult(root, word, difficult):
    write_xml(root, "a", [("dog", word, 1, 1, 40, 30)])
    assert read(root, "train").ignored.tolist() == [difficult]


def test_names_with_spaces_are_whole(root, encode):
    stems = ["my photo", "my photo 1", " first", "x.y"]
    for stem in stems:
        (root / f"JPEGImages/{stem}.jpg").write_bytes(encode(np.zeros((30, 40, 3))))
        (root / f"JPEGImages/{stem}.txt").write_text("beside it")
        write_xml(root, stem, [("\n hot  dog\n ", 0, 1, 1, 40, 30)])
    (root / "ImageSets/Main/train.txt").write_bytes("\r\n".join([*stems, "a  1", "b -1", "c 0 "]).encode())
    dataset = read(root, "train")
    assert [dataset.files.name(index).rpartition("/")[2] for index in range(6)] == [
        *(f"{stem}.jpg" for stem in stems), "a.jpg", "c.jpg",
    ]  # fmt: skip
    assert dataset.classes == ("cat", "dog", "hot  dog")
    assert {defect.severity for defect in dataset.defects} == {"warning"}


def test_images_that_occur_twice(root):
    (root / "ImageSets/Main/val.txt").write_text("c\na\n")
    (found,) = [defect for defect in read(root, "train", "val").defects if defect.kind == "duplicate-image"]
    assert found.severity == "error"
    assert "a.jpg: it is listed before" in found.message


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
