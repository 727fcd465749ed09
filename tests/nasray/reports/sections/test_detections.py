from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from nasray.data import open_data
from nasray.evaluation import detection_figures
from nasray.reports.page import draw_plots
from nasray.reports.pictures import SIDE
from nasray.reports.sections.detections import NUM_IMAGES, THRESHOLD, class_section, picture_section
from tests.nasray.evaluation.common import sample_results


@pytest.fixture(scope="module")
def dataset():
    return open_data("shapes").split("val")


@pytest.fixture(scope="module")
def found(dataset):
    return sample_results(dataset)


def test_every_class_has_its_figures_and_the_curves_are_those_of_its_ap(dataset, found):
    figures, coco = detection_figures(dataset, found)
    section = class_section(figures, coco, dataset.classes)
    for row in figures["classes"]:
        assert f"<td class='text'>{row['class']}</td>" in section.html
    assert section.html.index("triangle") < section.html.index("rectangle"), "classes with more boxes come first"
    curve = section.figures["precision_recall"]
    assert len(curve["recall"]) == 101
    assert np.mean(curve["iou_0.5"]) == pytest.approx(figures["coco"]["AP50"])
    assert np.mean(curve["iou_0.75"]) == pytest.approx(figures["coco"]["AP75"])
    assert section.figures["coco"]["AP_large"] is None, "there is no object of that size"
    drawings = draw_plots(section.drawings)
    for name in (*dataset.classes, "mean, IoU 0.5", "mean, IoU 0.75"):
        assert f">{name}<" in drawings["precision-recall"].svg
    assert drawings["sizes"].svg.count(">none<") == 2, "neither precision nor recall of large objects"


def pictures(section):
    content = re.findall(r'alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"', section.html)
    return {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(float) for name, text in content}


def test_what_was_found_stands_beside_the_truth(dataset, found):
    shown = pictures(picture_section(dataset, found))
    assert len(shown) == 2 * NUM_IMAGES
    first, last = (f"image {dataset.image_ids[index]}" for index in (0, -1))
    assert {f"{first}: the truth", f"{first}: found", f"{last}: the truth", f"{last}: found"} <= shown.keys()
    assert {max(picture.shape) for picture in shown.values()} == {SIDE}
    # What has no confidence is not drawn; then both pictures of an image differ by the true boxes alone.
    none = pictures(
        picture_section(dataset, type(found)(found.image_index, found.boxes, found.scores * 0, found.labels))
    )
    strong = found.scores[found.image_index == 0].max()
    assert strong > THRESHOLD
    assert np.abs(shown[f"{first}: found"] - none[f"{first}: found"]).max() > 100
    np.testing.assert_array_equal(shown[f"{first}: the truth"], none[f"{first}: the truth"])
