import hashlib
import json

import numpy as np
import pytest

from nasray.data.shapes import (
    CLASSES,
    draw_image,
    draw_polygons,
    image_generator,
    polygon_area,
    polygon_box,
    polygon_mask,
    shapes_set,
    write_shapes,
)
from nasray.data.source import open_data
from nasray.spaces import NasrayError


@pytest.mark.parametrize("image_hw", [(128, 128), (64, 150)])
def test_boxes_and_masks_belong_together(image_hw):
    seen = set()
    for index in range(30):
        image, boxes, labels, masks = draw_image(image_generator(1, index), image_hw, with_masks=True)
        assert image.shape == (3, *image_hw)
        assert (image.dtype, boxes.dtype, labels.dtype) == (np.uint8, np.float32, np.int64)
        assert 1 <= len(boxes) == len(labels) == len(masks) <= 6
        assert masks.sum(axis=0).max() == 1  # shapes do not cover each other
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.nonzero(mask)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(box - extent).max() < 2  # a corner may pass between the centers of pixels
        seen.update(labels.tolist())
    assert seen == {0, 1, 2}


def test_a_shape_stands_out_from_what_is_around_it():
    for index in range(20):
        image, _, _, masks = draw_image(image_generator(2, index), (96, 96), with_masks=True)
        for mask in masks:
            assert image[:, mask].astype(float).std(axis=1).max() < 20  # one color and noise of at most 20


def test_the_images_are_the_same_on_every_machine():
    # Made by this code; a change means that results on the embedded set do not compare with earlier ones.
    digest = hashlib.sha256()
    for index in range(10):
        image, boxes, labels = draw_image(image_generator(0, index), (128, 128))
        digest.update(image.tobytes() + boxes.tobytes() + labels.tobytes())
    assert digest.hexdigest()[:16] == "b2197b83d90b1cec"


def test_a_polygon_is_measured():
    triangle = np.array([[2.0, 1.0], [10.0, 9.0], [2.0, 9.0]])
    assert polygon_box(triangle).tolist() == [2, 1, 10, 9]
    assert polygon_area(triangle) == 32
    assert polygon_mask(triangle, (12, 12)).sum() == 36  # pixels whose center lies on the slope count


def test_only_known_shapes_of_enough_size_are_drawn():
    with pytest.raises(ValueError, match="star"):
        draw_polygons(image_generator(0, 0), (64, 64), classes=("star",))
    with pytest.raises(ValueError, match="32"):
        draw_polygons(image_generator(0, 0), (16, 64))
    assert set(draw_image(image_generator(0, 0), (64, 64), classes=("circle",))[2]) == {0}


def test_the_set_on_disk_is_the_one_in_memory(tmp_path):
    write_shapes(tmp_path / "out", 6, seed=0, val_share=0.34)
    data = open_data(str(tmp_path / "out"))
    assert (data.splits, data.classes) == (("train", "val"), CLASSES)
    disk, memory = data.split("train"), shapes_set("train")
    assert (len(disk), len(data.split("val"))) == (4, 2)
    assert not disk.defects
    for index in range(4):
        assert (disk.read_image(index) == memory.read_image(index)).all()
    count = disk.offsets[-1]
    np.testing.assert_allclose(disk.boxes, memory.boxes[:count], atol=1e-9)
    np.testing.assert_array_equal(disk.labels, memory.labels[:count])
    np.testing.assert_allclose(disk.areas, memory.areas[:count])
    masks = disk.target(0, with_masks=True)["masks"].numpy().astype(bool)
    drawn = draw_image(image_generator(0, 0), (128, 128), with_masks=True)[3]
    overlap = (masks & drawn).sum(axis=(1, 2)) / (masks | drawn).sum(axis=(1, 2))
    assert overlap.min() > 0.8
    assert (memory.target(0, with_masks=True)["masks"].numpy() == masks).all()


def test_train_and_val_of_the_embedded_set():
    data = open_data("shapes")
    train, val = data.split("train"), data.split("val")
    assert (len(train), len(val)) == (160, 40)
    assert not set(train.image_ids) & set(val.image_ids)
    assert np.bincount(val.labels).min() > 30


def test_a_folder_that_is_in_use_stays_as_it_is(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(NasrayError, match="not empty"):
        write_shapes(tmp_path, 10)
    with pytest.raises(NasrayError, match="2 images"):
        write_shapes(tmp_path / "new", 1)
    with pytest.raises(NasrayError, match="between 0 and 1"):
        write_shapes(tmp_path / "new", 10, val_share=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_the_json_is_whole(tmp_path):
    write_shapes(tmp_path / "out", 2, image_hw=(48, 64))
    content = json.loads((tmp_path / "out/annotations/val.json").read_text())
    assert content["images"][0] == {"id": 2, "file_name": "000001.png", "height": 48, "width": 64}
    assert all(len(item["segmentation"][0]) >= 6 and item["area"] > 0 for item in content["annotations"])
