"""Our figures are those of pycocotools called directly, with either library."""

import contextlib
import copy
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nasray.data import open_data
from nasray.evaluation import coco
from nasray.evaluation.coco import NAMES, coco_metrics, coco_metrics_of
from nasray.evaluation.predictions import Predictions
from nasray.spaces import NasrayError
from tests.nasray.evaluation.common import sample_results

DATA = Path(__file__).parents[4] / "shared" / "data"
needs_coco = pytest.mark.skipif(not (DATA / "coco_mini").is_dir(), reason="coco_mini is not here")


def direct(annotations, results, iou_type="bbox"):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@needs_coco
@pytest.mark.parametrize("fast", [False, True])
def test_twelve_numbers_to_six_digits(fast):
    """On COCO's own annotations, with crowds, empty images and ids that are not contiguous."""
    dataset = open_data(str(DATA / "coco_mini")).split("val")
    found = sample_results(dataset)
    theirs = direct(dataset.to_coco(), found.to_coco(dataset)).stats
    ours = coco_metrics(dataset, found, fast=fast)
    assert list(ours.summary) == list(NAMES)
    np.testing.assert_allclose(list(ours.summary.values()), np.where(theirs > -1, theirs, np.nan), atol=1e-6, rtol=0)
    assert 0.1 < ours.summary["mAP"] < 0.9
    assert len(ours.class_ap) == len(dataset.classes) == 80
    assert np.nanmean(ours.class_ap) == pytest.approx(ours.summary["mAP"], abs=1e-6)
    assert np.nanmean(ours.class_ap50) == pytest.approx(ours.summary["AP50"], abs=1e-6)


@pytest.mark.parametrize("fast", [False, True])
def test_perfect_and_empty(fast):
    dataset = open_data("shapes").split("val")
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    perfect = Predictions(owners, dataset.boxes.astype(np.float32), np.ones(len(owners), np.float32), dataset.labels)
    assert coco_metrics(dataset, perfect, fast=fast).summary["mAP"] == pytest.approx(1.0)
    nothing = coco_metrics(dataset, Predictions.join([]), fast=fast)
    assert {value for value in nothing.summary.values() if value == value} == {0.0}
    assert np.isnan(nothing.summary["AP_large"]), "no box is that large"
    assert (nothing.class_ap == 0).all()


def test_class_without_boxes_is_nan():
    dataset = open_data("shapes").split("val")
    annotations = dataset.to_coco()
    annotations["categories"].append({"id": 9, "name": "absent"})
    results = sample_results(dataset).to_coco(dataset)
    assert np.isnan(coco_metrics_of(annotations, results).class_ap).tolist() == [False, False, False, True]
    assert np.isnan(coco_metrics_of(annotations, []).class_ap).tolist() == [False, False, False, True]
    annotations["annotations"] = []
    assert np.isnan(list(coco_metrics_of(annotations, results).summary.values())).all()


@pytest.mark.parametrize("fast", [False, True])
def test_masks_to_six_digits(fast):
    """Outlines are right where boxes are; one object has none, and counts as its whole box."""
    dataset = open_data("shapes").split("val")
    annotations, results = dataset.to_coco(), sample_results(dataset).to_coco(dataset)
    sizes = dict(zip(dataset.image_ids.tolist(), dataset.image_hw.tolist(), strict=True))
    for result in results:
        left, top, width, height = result["bbox"]
        right, bottom = left + width, top + height
        corners = [left, top, right, top, right, bottom, left, bottom]
        result["segmentation"] = coco_mask.frPyObjects([corners], *sizes[result["image_id"]])[0]
    left, top, width, height = annotations["annotations"][0]["bbox"]
    box = [[left, top, left + width, top, left + width, top + height, left, top + height]]
    complete = copy.deepcopy(annotations)
    complete["annotations"][0]["segmentation"] = box
    del annotations["annotations"][0]["segmentation"]
    theirs = direct(complete, copy.deepcopy(results), "segm").stats
    ours = coco_metrics_of(annotations, results, fast=fast, iou_type="segm").summary
    np.testing.assert_allclose(list(ours.values()), np.where(theirs > -1, theirs, np.nan), atol=1e-6, rtol=0)
    boxes = coco_metrics_of(annotations, results, fast=fast).summary
    assert 0.05 < ours["mAP"] < boxes["mAP"]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_what_is_given_stays_as_it_is(fast, iou_type):
    dataset = open_data("shapes").split("val")
    annotations = dataset.to_coco()
    sizes = dict(zip(dataset.image_ids.tolist(), dataset.image_hw.tolist(), strict=True))
    results = [{"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.5,
                "segmentation": coco_mask.frPyObjects(one["segmentation"], *sizes[one["image_id"]])[0]}
               for one in annotations["annotations"]]  # fmt: skip
    before = copy.deepcopy((annotations, results))
    first = coco_metrics_of(annotations, results, fast=fast, iou_type=iou_type).summary
    assert (annotations, results) == before
    assert first["mAP"] == pytest.approx(1.0)


def test_prints_nothing(capsys):
    dataset = open_data("shapes").split("val")
    coco_metrics(dataset, sample_results(dataset))
    assert capsys.readouterr() == ("", "")


def test_fast_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(NasrayError, match=r"nasray\[fast\]"):
        coco._library(True)
