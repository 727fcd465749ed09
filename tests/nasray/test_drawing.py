"""Pictures of detections."""

import numpy as np
import pytest

from nasray.drawing import class_color, draw_detections, picture_bytes


def test_boxes_are_where_they_belong():
    image = np.full((3, 100, 120), 200, dtype=np.uint8)
    boxes = np.array([[20.0, 40.0, 90.0, 80.0]])
    drawn = draw_detections(image, boxes, [1], [0.75], ["cat", "dog"])
    assert drawn.shape == image.shape
    changed = (drawn != image).any(axis=0)
    assert (drawn[:, 60, 20] == class_color(1)).all()
    assert (drawn[:, 80, 50] == class_color(1)).all()
    assert changed[28:40, 20:60].any(), "the label stands above the box"
    assert not changed[45:75, 25:85].any(), "the object itself stays visible"
    assert not changed[90:].any()
    assert (image == 200).all()


def test_the_best_lies_on_top():
    image = np.zeros((3, 64, 64), dtype=np.uint8)
    boxes = np.array([[10.0, 20.0, 50.0, 60.0]] * 2)
    drawn = draw_detections(image, boxes, [0, 1], [0.9, 0.3], ["a", "b"])
    assert (drawn[:, 40, 10] == class_color(0)).all()


def test_boxes_at_the_edge_and_none():
    image = np.zeros((3, 32, 32), dtype=np.uint8)
    assert (draw_detections(image, np.empty((0, 4)), [], [], []) == 0).all()
    draw_detections(image, np.array([[-5.0, -5.0, 40.0, 40.0], [3.0, 3.0, 3.0, 3.0]]), [0, 0], [0.5, 0.4], ["a"])


def test_colors_differ_and_carry_white_letters():
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    assert max(sum(color) / 3 for color in colors) < 180
    neighbors = np.abs(np.diff(np.array(colors), axis=0)).max(axis=1)
    assert neighbors.min() > 60


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_picture_bytes(kind):
    import io

    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    read = np.asarray(Image.open(io.BytesIO(picture_bytes(image, kind)))).transpose(2, 0, 1)
    assert read.shape == image.shape
    if kind == "PNG":
        np.testing.assert_array_equal(read, image)
