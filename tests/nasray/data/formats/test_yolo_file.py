import pytest

from nasray.data.source import open_data
from nasray.spaces import NasrayError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images\nnc: 2", r"names must be a list of class names, .*it is missing"),
        ("train: images\nnames: cat", "names must be a list of class names, .*got 'cat'"),
        ("train: images\nnames: []", r"names must be a list of class names, .*got \[\]"),
        ("train: images\nnames: [cat, 1.5]", "names: each must be text, got 1.5"),
        ("train: images\nnames: [cat, dog, ' cat']", "'cat' occurs as classes 0, 2; write every name once"),
        ("train: images\nnames: {0: cat, 2: dog}", r"number the classes 0 to 1 without gaps, got \[0, 2\]"),
        ("train: images\nnames: {a: cat}", "without gaps"),
        ("train: images\nnc: 3\nnames: [cat, dog]", "nc is 3, but there are 2 names"),
        ("trian: images\nnames: [cat]", "unknown key 'trian'; did you mean 'train'"),
        ("names: [cat]", "names no split; it needs at least one of train, val, test"),
        ("train:\nval: ''\nnames: [cat]", "names no split"),
        ("train: 3\nnames: [cat]", "train must be a folder of images, .*got 3"),
        ("train: [images, 3]\nnames: [cat]", "train must be a folder of images"),
        ("val: a\nvalidation: b\nnames: [cat]", "val and validation are the same split"),
        ("train: images\nnames: [cat]\npath: /nowhere/at/all", "path '/nowhere/at/all' is not a folder"),
        ("train: images\nnames: [cat]\npath: 3", "path must be a folder, got 3"),
        ("train: images\nnames: [cat]\nkpt_shape: [17, 3]", "labels hold key points, which are not read"),
        ("train: images\nnames: [cat]\nclasses: [cat, cat]", "classes: 'cat' occurs twice"),
        ("train: images\nnames: [cat]\nvalue_range: [5, 1]", "value_range must be two finite numbers"),
        ("train: images\nnames: [cat]\norientation: left", "orientation: 'left' is not one of upright, stored"),
        ("format: yolo", "names must be a list"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(NasrayError, match=message) as error:
        open_data(str(tmp_path))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("images", r"train: there is no .*/images\. Entries are relative to `path`"),
        ("../images", r"there is no .*\.\./images or .*/images\."),
        ("a.csv", "is neither a folder nor a .txt list of images"),
    ],
)  # fmt: skip
def test_entries_that_are_not_there_are_named(tmp_path, entry, message):
    (tmp_path / "data.yaml").write_text(f"train: {entry}\nnames: [cat]\n")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(NasrayError, match=message):
        open_data(str(tmp_path)).read("train")


def test_names_by_number_and_numbers_as_names(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text("train: images\nnames: {1: 7, 0: ' no '}\nnc: 2\ndownload: https://x\n")
    assert open_data(str(tmp_path)).classes == ("no", "7")
