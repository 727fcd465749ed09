import dataclasses
import pickle

import numpy as np
import pytest

from nasray.data.dataset import Defect, fix_boxes, refuse_errors
from nasray.data.formats.coco import read_coco
from nasray.data.outlines import Segmentations
from nasray.spaces import NasrayError


@pytest.fixture
def dataset(write_coco, tmp_path):
    return read_coco(write_coco(), [tmp_path / "images"], name="train")


def test_targets_leave_out_what_is_ignored(dataset):
    target = dataset.target(0)
    assert target["boxes"].tolist() == [[5.5, 6, 15.5, 16]]
    assert target["labels"].tolist() == [0]
    assert dataset.ignored.tolist() == [False, True, False]
    empty = dataset.target(2)
    assert (empty["boxes"].shape, empty["labels"].shape) == ((0, 4), (0,))


def test_pycocotools_takes_it(dataset):
    from pycocotools.coco import COCO

    content = dataset.to_coco()
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    assert coco.getImgIds() == [10, 11, 12]
    assert {item["id"]: item["name"] for item in coco.loadCats(coco.getCatIds())} == {3: "cat", 7: "dog"}
    first, crowd, other = content["annotations"]
    assert first == {"id": 1, "image_id": 10, "category_id": 3, "bbox": [5.5, 6, 10, 10], "area": 7.5, "iscrowd": 0,
                     "ignore": 0}  # fmt: skip
    assert (crowd["iscrowd"], crowd["ignore"]) == (1, 1)
    assert other["image_id"] == 11


def test_an_image_that_is_gone_names_file_and_id(dataset, tmp_path):
    (tmp_path / "images/1.jpg").unlink()
    with pytest.raises(NasrayError, match=r"1\.jpg \(image id 11\): No such file"):
        dataset.read_image(1)


def test_masks_are_wanted_but_not_there(dataset):
    with pytest.raises(NasrayError, match="no segmentations"):
        dataset.target(0, with_masks=True)


def test_masks_of_polygons_and_run_lengths():
    from pycocotools import mask

    square = np.zeros((6, 8), dtype=np.uint8)
    square[1:4, 2:7] = 1
    packed = mask.encode(np.asfortranarray(square))
    packed["counts"] = packed["counts"].decode()
    runs = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8]}
    segmentations = Segmentations.of([[[2, 1, 7, 1, 7, 4, 2, 4]], packed, runs, None])
    for index in range(3):
        assert (segmentations.mask(index, (6, 8)) == square).all()
    assert segmentations.mask(3, (6, 8)) is None
    assert segmentations.value(2) == runs


def test_it_is_sent_between_processes(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.boxes == dataset.boxes).all()
    assert copy.describe(1) == dataset.describe(1)


def test_boxes_are_clipped_or_found_wrong():
    boxes = np.array([[0, 0, 10, 10], [-0.4, 0, 10.3, 10], [-5, 0, 5, 5], [20, 0, 30, 5], [3, 3, 3, 5], [5, 5, 2, 9],
                      [np.nan, 0, 1, 1], [0, 0, np.inf, 1]])  # fmt: skip
    fixed, found = fix_boxes(boxes, np.tile([10, 10], (8, 1)))
    assert [(kind, row) for kind, row, _ in found] == [
        ("clipped-box", 2), ("outside-box", 3), ("zero-box", 4), ("zero-box", 5), ("bad-box", 6), ("bad-box", 7),
    ]  # fmt: skip
    assert fixed[:3].tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 5, 5]]
    assert "[-5.0, 0.0, 5.0, 5.0] of a 10x10 image" in found[0][2]


def test_errors_stop_and_warnings_are_told(dataset, capsys):
    warned = dataclasses.replace(dataset, defects=(Defect("zero-box", "a"), Defect("zero-box", "b")))
    refuse_errors(warned, "set")
    assert capsys.readouterr().err == (
        "data set set, split 'train': boxes without width or height (left out): 2; `nasray data check set` lists all\n"
    )
    wrong = dataclasses.replace(dataset, defects=(*warned.defects, Defect("missing-image", "no file x.jpg"),
                                                  Defect("missing-image", "no file y.jpg")))  # fmt: skip
    with pytest.raises(NasrayError) as info:
        refuse_errors(wrong, "set")
    message = str(info.value)
    assert "image files not found: 2" in message
    assert "no file x.jpg" in message
    assert "nasray data check set" in message
    assert "zero" not in message
