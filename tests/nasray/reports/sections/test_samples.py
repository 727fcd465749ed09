import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from nasray.data import open_data
from nasray.reports.sections.samples import sample_sections
from tests.nasray.data.layout_sets import made_images, write_yolo_set


@pytest.fixture
def dataset(tmp_path):
    write_yolo_set(tmp_path, {"train": [*made_images(9), *made_images(1)]})
    return open_data(str(tmp_path)).split("train")


def pictures(section):
    content = re.findall(r'alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', section.html)
    return {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(float) for name, text in content}


def test_images_with_and_without_boxes_are_drawn_from_the_seed(dataset):
    annotated, empty = sample_sections(dataset, 5, seed=0)
    assert len(pictures(annotated)) == 5
    assert len(pictures(empty)) == 2
    assert "5 of 8 images of train, drawn at random." in annotated.html
    assert all(" 0 boxes" in name for name in pictures(empty))
    assert sample_sections(dataset, 5, seed=0)[0].html == annotated.html
    assert list(pictures(sample_sections(dataset, 5, seed=1)[0])) != list(pictures(annotated))
    assert len(sample_sections(dataset.select(np.arange(8)), 5, seed=0)) == 1


def test_boxes_lie_where_they_are_annotated(dataset):
    one = dataset.select(np.array([0]))
    bare = dataclasses.replace(one, offsets=np.array([0, 0]), boxes=one.boxes[:0], labels=one.labels[:0])
    images = [next(iter(pictures(sample_sections(shown, 1, 0)[0]).values())) for shown in (one, bare)]
    changed = abs(images[0] - images[1]).sum(axis=2) > 120
    scale = changed.shape[1] / dataset.image_hw[0, 1]
    left, top, right, bottom = dataset.boxes[0] * scale
    assert np.flatnonzero(changed.any(axis=1))[-1] == pytest.approx(bottom, abs=4)
    assert np.flatnonzero(changed.any(axis=0))[0] == pytest.approx(left, abs=4)
    inside = changed[round(top) + 8 : round(bottom) - 8, round(left) + 8 : round(right) - 8]
    assert inside.mean() < 0.01


def test_ignored_boxes_and_outlines_are_told_apart(dataset):
    shapes = open_data("shapes").read("val")
    with_outlines = shapes.select(np.array([0]))
    without = dataclasses.replace(with_outlines, segmentations=None)
    ignored = dataclasses.replace(without, ignored=np.ones(len(without.boxes), dtype=bool))
    images = [next(iter(pictures(sample_sections(one, 1, 0)[0]).values())) for one in (with_outlines, without, ignored)]
    assert abs(images[0] - images[1]).mean() > 1
    assert abs(images[1] - images[2]).mean() > 1


def test_images_that_cannot_be_read_are_said(dataset):
    name = dataset.files.name(0)
    with open(name, "wb") as file:
        file.write(b"no image")
    (section,) = sample_sections(dataset.select(np.array([0])), 1, seed=0)
    assert "cannot read image" in section.html
    assert "<img" not in section.html
