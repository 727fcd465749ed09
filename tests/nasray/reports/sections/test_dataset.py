import dataclasses

import numpy as np
import pytest

from nasray.data import open_data
from nasray.data.dataset import Defect
from nasray.reports.box_levels import levels_of
from nasray.reports.page import draw_plots
from nasray.reports.sections.dataset import (
    classes_section,
    defects_section,
    images_section,
    opening_section,
    sizes_section,
    split_statistics,
)
from tests.nasray.data.layout_sets import IMAGE_HW, made_images, write_yolo_set

OBJECTS = {"train": made_images(), "val": made_images(2, seed=1)}


@pytest.fixture
def splits(tmp_path):
    """Statistics of two splits, of the second at twice the size."""
    write_yolo_set(tmp_path, OBJECTS)
    data = open_data(str(tmp_path))
    return [split_statistics(one, one.image_hw * scale) for one, scale in zip(data.all_splits(), (1, 2), strict=True)]


def boxes_of(name):
    return np.array([box for _, objects in OBJECTS[name] for _, box in objects])


def test_edges_and_ratios_are_at_the_size_that_images_are_brought_to(splits):
    for split, scale in zip(splits, (1, 2), strict=True):
        width, height = (boxes_of(split.name)[:, 2:] - boxes_of(split.name)[:, :2]).T
        np.testing.assert_allclose(split.edges, scale * np.sqrt(width * height))
        np.testing.assert_allclose(split.ratios, width / height)


def test_how_much_there_is(splits):
    section = opening_section(splits)
    assert section.figures["splits"] == {
        "train": {"images": 4, "boxes": 6, "images_without_boxes": 1, "ignored": 0,
                  "boxes_of_an_image": {"mean": 1.5, "most": 3}},
        "val": {"images": 2, "boxes": 1, "images_without_boxes": 1, "ignored": 0,
                "boxes_of_an_image": {"mean": 0.5, "most": 1}},
    }  # fmt: skip
    assert "<dt>images without boxes</dt><dd>2</dd>" in section.html


def test_classes_are_counted_by_boxes_and_images_also_of_splits_with_others(splits):
    labels = [label for _, objects in OBJECTS["train"] for label, _ in objects]
    figures = classes_section(splits).figures["classes"]
    assert [figures["train"][name]["boxes"] for name in ("cat", "dog")] == [labels.count(0), labels.count(1)]
    assert figures["train"]["cat"]["images"] == sum(any(not label for label, _ in one) for _, one in OBJECTS["train"])
    other = dataclasses.replace(splits[1].dataset, classes=("cow", "cat"))
    figures = classes_section([splits[0], dataclasses.replace(splits[1], dataset=other)]).figures["classes"]
    assert sum(one["boxes"] for one in figures["val"].values()) == int((other.labels == 1).sum())


def test_boxes_stand_beside_levels(splits):
    section = sizes_section(splits, levels_of(None), "At this size.")
    figures = section.figures["box_sizes"]["train"]
    assert [level["boxes"] for level in figures["levels"]] == [6, 0, 0, 0, 0]
    assert figures["edge_quantiles"]["1"] == splits[0].edges.max()
    assert "<td class='text'>stride 8</td><td class='text'>below 90.5</td><td>6 (100.0%)</td>" in section.html
    drawings = draw_plots(section.drawings)
    assert set(drawings) == {"box-sizes", "aspect-ratios"}
    assert all(f">{name}<" in drawings["box-sizes"].svg for name in ("train", "val", "/8"))


def test_sets_without_boxes_have_no_drawings(splits):
    nothing = splits[0].dataset.select(np.array([3]))
    empty = [split_statistics(nothing, nothing.image_hw)]
    assert not sizes_section(empty, levels_of(None), "").drawings
    assert not classes_section(empty).drawings
    none = splits[0].dataset.select(np.array([], dtype=np.int64))
    assert opening_section([split_statistics(none, none.image_hw)]).figures["splits"]["train"]["images"] == 0


def test_what_is_wrong_is_listed_by_kind(splits):
    assert "Nothing that annotations tell" in defects_section(splits, "d").html
    wrong = dataclasses.replace(splits[0].dataset, defects=(Defect("zero-box", "<a>", 3), Defect("zero-box", "b")))
    section = defects_section([dataclasses.replace(splits[0], dataset=wrong)], "a set")
    assert section.figures["defects"] == [{"split": "train", "severity": "warning", "first": "<a>",
                                           "text": "boxes without width or height (left out): 4"}]  # fmt: skip
    assert "&lt;a&gt;" in section.html
    assert "nasray data check &#39;a set&#39;" in section.note


def test_sizes_of_images_are_counted(splits):
    height, width = IMAGE_HW
    assert images_section(splits).figures["image_sizes"] == {
        "train": {f"{width}x{height}": 4},
        "val": {f"{width}x{height}": 2},
    }
