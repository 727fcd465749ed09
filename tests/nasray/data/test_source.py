import shutil

import pytest

from nasray.data.source import open_data
from nasray.spaces import NasrayError


@pytest.fixture
def write_yaml(tmp_path):
    def write(text):
        path = tmp_path / "data.yaml"
        path.write_text(text)
        return str(path)

    return write


COCO = "format: coco\ntrain: {images: images, annotations: annotations/train.json}\n"


def test_paths_are_relative_to_the_file(write_coco, write_yaml, monkeypatch, tmp_path):
    write_coco()
    source = write_yaml(COCO)
    monkeypatch.chdir("/")
    for name in (source, str(tmp_path)):  # the file itself, or the folder that holds it
        data = open_data(name)
        assert data.splits == ("train",)
        assert data.split("train").read_image(0).shape == (3, 30, 40)
        assert data.split("train") is data.split("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COCO + "clases: [dog]", "unknown key 'clases'; did you mean 'classes'"),
        ("format: coco\ntrain: {image: images}", "unknown key 'train.image'; did you mean 'images'"),
        ("format: coco\ntrain: {images: images}", "train of a COCO set needs `images` and `annotations`"),
        ("format: voc\ntrain: {images: images}", "train of a VOC set needs `lists`"),
        ("format: voc", "names no split"),
        ("format: shards", "'shards' is not one of coco, voc, huggingface"),
        (COCO + "names: [dog]", "names are of a Hugging Face set"),
        ("- a", "must hold a mapping"),
        (COCO + "train: {images: images, annotations: annotations/val.json}", "key 'train' occurs twice at line 1"),
        (COCO + "classes: [dog, ' dog']", "classes: 'dog' occurs twice"),
        (COCO + "classes: []", "classes: none is chosen"),
        (COCO + "classes: ['']", "classes: each must be a name"),
        ("format: coco\ntrain: {images: [" * 200, "not valid YAML|nested too deeply"),
    ],
)
def test_mistakes_in_the_file_are_named(write_yaml, text, message):
    with pytest.raises(NasrayError, match=message):
        open_data(write_yaml(text))


def test_coco_as_it_is_downloaded(write_coco, tmp_path):
    write_coco(name="instances_train2017")
    write_coco(name="instances_val2017")
    (tmp_path / "images").rename(tmp_path / "train2017")
    (tmp_path / "val2017").symlink_to(tmp_path / "train2017")
    data = open_data(str(tmp_path))
    assert data.splits == ("train", "val")
    assert data.split("val").files.name(0) == str(tmp_path / "val2017/0.jpg")


def test_splits_agree_on_categories(write_coco, tmp_path):
    write_coco()
    write_coco(lambda content: content["categories"][0].update(name="wolf"), name="val")
    data = open_data(str(tmp_path))
    data.split("train")
    with pytest.raises(NasrayError, match=r"'train' and 'val' differ in 1 ids \(id 7: 'dog' and 'wolf'\)"):
        data.split("val")


def test_a_split_that_is_not_there(write_coco, tmp_path):
    write_coco()
    with pytest.raises(NasrayError, match=r"no split 'trian'; did you mean 'train'\? It has: train"):
        open_data(str(tmp_path)).split("trian")


def test_errors_stop_when_a_split_is_used(write_coco, tmp_path, capsys):
    write_coco(lambda content: content["annotations"][0].update(bbox=[1, 1, 0, 0]))
    data = open_data(str(tmp_path))
    data.split("train")
    assert "boxes without width or height (left out): 1" in capsys.readouterr().err
    data.split("train")
    assert not capsys.readouterr().err
    (tmp_path / "images/2.jpg").unlink()
    with pytest.raises(NasrayError, match=r"image files not found: 1\. .*2\.jpg\. .*nasray data check"):
        open_data(str(tmp_path)).split("train")
    assert open_data(str(tmp_path)).read("train")


def test_images_of_train_in_val_are_said(write_coco, write_yaml, tmp_path, capsys):
    write_coco()
    write_coco(lambda content: content["images"].pop(2), name="val")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    source = write_yaml(COCO + "val: {images: link, annotations: annotations/val.json}\n")
    data = open_data(source)
    data.split("train")
    assert not capsys.readouterr().err
    data.split("val")
    said = capsys.readouterr().err
    assert "2 of the 2 images of 'val' are in 'train' too, such as " in said
    assert "0.jpg: what is measured on them says nothing about new images" in said
    data.split("val")
    assert "in 'train' too" not in capsys.readouterr().err


def test_images_of_one_name_in_two_folders_are_two(write_coco, write_yaml, tmp_path, capsys):
    write_coco()
    write_coco(name="val")
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    data = open_data(write_yaml(COCO + "val: {images: others, annotations: annotations/val.json}\n"))
    list(data.all_splits())
    assert not capsys.readouterr().err


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(NasrayError, match="does not exist"):
        open_data(str(tmp_path / "other"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(NasrayError, match="neither a folder nor a YAML or Parquet file"):
        open_data(str(tmp_path / "a.txt"))
    with pytest.raises(NasrayError, match=r"no layout that nasray knows|holds|empty"):
        open_data(str(tmp_path))


def test_of_several_years_of_voc_one_is_to_be_named(tmp_path):
    for year in (2007, 2012):
        root = tmp_path / f"VOCdevkit/VOC{year}"
        (root / "Annotations").mkdir(parents=True)
        (root / "ImageSets/Main").mkdir(parents=True)
        (root / "ImageSets/Main/train.txt").write_text("")
    with pytest.raises(NasrayError, match=r"several VOC sets: .*VOC2007, .*VOC2012"):
        open_data(str(tmp_path))
    assert open_data(str(tmp_path / "VOCdevkit/VOC2012")).splits == ("train",)
