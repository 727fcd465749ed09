import pytest

from nasray.data.source import open_data
from nasray.spaces import NasrayError
from tests.nasray.data.layout_sets import made_images, write_coco_set, write_voc_set, write_yolo_set


@pytest.mark.parametrize(
    ("writers", "message"),
    [
        ((write_yolo_set, write_coco_set), r"a YOLO set \(data\.yaml\) and a COCO set \(annotations/train\.json\)"),
        ((write_coco_set, write_voc_set), r"a COCO set .* and a VOC set \(ImageSets/Main/\).* `format: voc`"),
    ],
)  # fmt: skip
def test_a_folder_of_two_sets_is_not_guessed(tmp_path, writers, message):
    for write in writers:
        write(tmp_path, {"train": made_images(2)})
    with pytest.raises(NasrayError, match=message) as error:
        open_data(str(tmp_path))
    assert "it is not clear which is meant" in str(error.value)


def test_one_of_two_is_chosen_by_a_file(tmp_path):
    images = made_images(2)
    write_yolo_set(tmp_path, {"train": images})
    write_coco_set(tmp_path, {"train": images, "val": images})
    assert open_data(str(tmp_path / "data.yaml")).splits == ("train",)
    (tmp_path / "data.yaml").write_text("format: coco\nval: {images: images/val, annotations: annotations/val.json}\n")
    assert open_data(str(tmp_path)).splits == ("val",)


def test_of_two_yolo_files_one_is_to_be_named(tmp_path):
    write_yolo_set(tmp_path, {"train": made_images(2)})
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").unlink()
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(text)
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01")
    with pytest.raises(NasrayError, match=r"a YOLO set \(a\.yaml\) and a YOLO set \(b\.yml\).*pass .*a\.yaml for YOLO"):
        open_data(str(tmp_path))
    (tmp_path / "b.yml").write_text("{")
    assert open_data(str(tmp_path)).splits == ("train",)
