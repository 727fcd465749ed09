"""Our figures are those of pycocotools called directly, with either library."""

import contextlib
import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import nasray.evaluation.predictions
from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint
from nasray.cli import main
from nasray.cluster.reading import parse_json
from nasray.data import open_data
from nasray.evaluation.coco import NAMES, coco_metrics, coco_metrics_of, default_library, evaluate_coco
from nasray.evaluation.predictions import Predictions
from nasray.models import build
from nasray.models.detectors import DETECTORS, build_detector
from nasray.options import options_of
from nasray.recipe import Recipe
from tests.nasray.evaluation.common import draw_truth_and_results, sample_results

DATA = Path(__file__).parents[4] / "shared" / "data"
needs_coco = pytest.mark.skipif(not (DATA / "coco_mini").is_dir(), reason="coco_mini is not here")
PYCOCOTOOLS = (COCO, COCOeval)
each_library = pytest.mark.parametrize("library", [None, PYCOCOTOOLS], ids=["hotcoco", "pycocotools"])


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
@each_library
def test_twelve_numbers_to_six_digits(library):
    """On COCO's own annotations, with crowds, empty images and ids that are not contiguous."""
    dataset = open_data(str(DATA / "coco_mini")).split("val")
    found = sample_results(dataset)
    theirs = direct(dataset.to_coco(), found.to_coco(dataset)).stats
    ours = coco_metrics(dataset, found, library=library)
    assert list(ours.summary) == list(NAMES)
    np.testing.assert_allclose(list(ours.summary.values()), np.where(theirs > -1, theirs, np.nan), atol=1e-6, rtol=0)
    assert 0.1 < ours.summary["mAP"] < 0.9
    assert len(ours.class_ap) == len(dataset.classes) == 80
    assert np.nanmean(ours.class_ap) == pytest.approx(ours.summary["mAP"], abs=1e-6)
    assert np.nanmean(ours.class_ap50) == pytest.approx(ours.summary["AP50"], abs=1e-6)


@each_library
def test_perfect_and_empty(library):
    dataset = open_data("shapes").split("val")
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    perfect = Predictions(owners, dataset.boxes.astype(np.float32), np.ones(len(owners), np.float32), dataset.labels)
    assert coco_metrics(dataset, perfect, library=library).summary["mAP"] == pytest.approx(1.0)
    nothing = coco_metrics(dataset, Predictions.join([]), library=library)
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


@each_library
def test_masks_to_six_digits(library):
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
    theirs = direct(complete, without_boxes(results), "segm").stats
    ours = coco_metrics_of(annotations, results, library=library, iou_type="segm").summary
    np.testing.assert_allclose(list(ours.values()), np.where(theirs > -1, theirs, np.nan), atol=1e-6, rtol=0)
    boxes = coco_metrics_of(annotations, results, library=library).summary
    assert 0.05 < ours["mAP"] < boxes["mAP"]


@each_library
@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_what_is_given_stays_as_it_is(library, iou_type):
    dataset = open_data("shapes").split("val")
    annotations = dataset.to_coco()
    sizes = dict(zip(dataset.image_ids.tolist(), dataset.image_hw.tolist(), strict=True))
    results = [{"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.5,
                "segmentation": coco_mask.frPyObjects(one["segmentation"], *sizes[one["image_id"]])[0]}
               for one in annotations["annotations"]]  # fmt: skip
    before = copy.deepcopy((annotations, results))
    first = coco_metrics_of(annotations, results, library=library, iou_type=iou_type).summary
    assert (annotations, results) == before
    assert first["mAP"] == pytest.approx(1.0)


def test_prints_nothing(capsys):
    dataset = open_data("shapes").split("val")
    coco_metrics(dataset, sample_results(dataset))
    assert capsys.readouterr() == ("", "")


def test_masks_are_as_large_as_their_pixels():
    """A result may have a box too, larger than its mask: pycocotools takes the area of whichever it is given."""
    square = [[0, 0, 40, 0, 40, 40, 0, 40]]
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "area": 1600,
                         "iscrowd": 0, "segmentation": square}],
    }  # fmt: skip
    mask = coco_mask.frPyObjects(square, 100, 100)[0]
    wrong = coco_mask.frPyObjects([[50, 50, 90, 50, 90, 90, 50, 90]], 100, 100)[0]
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "segmentation": found, "score": score}
               for found, score in ((mask, 0.5), (wrong, 0.9))]  # fmt: skip
    summary = coco_metrics_of(truth, results, iou_type="segm").summary
    assert summary["AP_medium"] == pytest.approx(0.5), "the wrong one is of medium size too, and comes first"
    assert np.isnan(summary["AP_large"])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_hotcoco_is_pycocotools_to_the_last_bit(iou_type, seed):
    """Twelve numbers, and precision, recall and score at every threshold, class, size and number of detections."""
    truth, results = draw_truth_and_results(seed, masks=iou_type == "segm")
    assert default_library()[1].__module__ != COCOeval.__module__, "hotcoco is not installed"
    ours, theirs = (
        evaluate_coco(truth, results, iou_type=iou_type, library=library) for library in (None, PYCOCOTOOLS)
    )
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name], err_msg=name)


@each_library
def test_order_of_ids_decides_nothing(library):
    """Ids of any size, categories in any order: the figures of a class stay with it."""
    truth, results = draw_truth_and_results(5, masks=False)
    plain = coco_metrics_of(truth, results, library=library)
    assert len(set(plain.class_ap.tolist())) == len(truth["categories"]) > 2
    turned = coco_metrics_of({**truth, "categories": truth["categories"][::-1]}, results, library=library)
    assert turned.summary == plain.summary
    np.testing.assert_array_equal(turned.class_ap, plain.class_ap[::-1])
    np.testing.assert_array_equal(turned.class_ap50, plain.class_ap50[::-1])
    moved = copy.deepcopy((truth, results))
    for record in [*moved[0]["annotations"], *moved[1]]:
        record["image_id"] = record["image_id"] * 2**50 - 2**54
    for record in moved[0]["images"]:
        record["id"] = record["id"] * 2**50 - 2**54
    assert coco_metrics_of(*moved, library=library).summary == plain.summary


@pytest.mark.parametrize("seed", [1, 2, 5])  # without large objects, with four classes, with all sizes
def test_evaluate_gives_what_pycocotools_makes_of_the_same_files(seed, tmp_path, monkeypatch, capsys):
    """From COCO's JSON file and a list of results to what `nasray evaluate --json` prints, boxes and masks."""
    truth, results = draw_truth_and_results(seed, masks=True, image_hw=(200, 700))
    classes = [category["name"] for category in truth["categories"]]
    (tmp_path / "images").mkdir()
    for image in truth["images"]:
        Image.new("RGB", (image["width"], image["height"])).save(tmp_path / "images" / image["file_name"])
    (tmp_path / "val.json").write_text(json.dumps(truth))
    (tmp_path / "data.yaml").write_text(
        f"format: coco\nval: {{images: images, annotations: val.json}}\nclasses: {json.dumps(classes)}\n"
    )
    save_mask_detector(tmp_path / "detector.pt", classes)
    monkeypatch.setattr(nasray.evaluation.predictions, "predict", lambda *_, **__: as_predictions(truth, results))
    arguments = ["evaluate", str(tmp_path / "detector.pt"), "--data", str(tmp_path / "data.yaml"), "--json"]
    assert main(arguments) == 0
    printed = parse_json(capsys.readouterr().out, "evaluate --json")
    boxes = direct(copy.deepcopy(truth), copy.deepcopy(results))
    masks = direct(truth, without_boxes(results), "segm")
    for prefix, theirs in (("", boxes.stats), ("mask_", masks.stats)):
        ours = [printed["coco"][prefix + name] for name in NAMES]
        assert [value is None for value in ours] == (theirs < 0).tolist()
        np.testing.assert_allclose([-1 if value is None else value for value in ours], theirs, atol=1e-6, rtol=0)
        assert theirs[0] > 0.1
    ids = sorted(category["id"] for category in truth["categories"])
    for row, category in zip(printed["classes"], truth["categories"], strict=True):
        precision = boxes.eval["precision"][:, :, ids.index(category["id"]), 0, -1]
        assert row["mAP"] == (None if (precision < 0).all() else pytest.approx(precision.mean(), abs=1e-6))


def without_boxes(results):
    return [{key: value for key, value in result.items() if key != "bbox"} for result in results]


def as_predictions(truth, results):
    positions = {image["id"]: index for index, image in enumerate(truth["images"])}
    labels = {category["id"]: index for index, category in enumerate(truth["categories"])}
    boxes = np.array([result["bbox"] for result in results])
    boxes[:, 2:] += boxes[:, :2]
    return Predictions.join([Predictions(
        np.array([positions[result["image_id"]] for result in results]),
        boxes.astype(np.float32),
        np.array([result["score"] for result in results], np.float32),
        np.array([labels[result["category_id"]] for result in results]),
        [result["segmentation"] for result in results],
    )])  # fmt: skip


def save_mask_detector(path, classes):
    recipe = Recipe(name="test", detector=options_of(DETECTORS, "mask-rcnn"))
    detector = build_detector("mask-rcnn", build(ARCHITECTURES["basic-tiny"]), num_classes=len(classes))
    ids = tuple(range(1, len(classes) + 1))
    Checkpoint(recipe, ARCHITECTURES["basic-tiny"], tuple(classes), ids, detector.state_dict()).save(path)


def test_without_hotcoco(monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    assert default_library() == PYCOCOTOOLS


def test_no_more_threads_than_pytorch_has():
    code = (
        "import os, torch; torch.set_num_threads(1)\n"
        "from nasray.data import open_data\n"
        "from nasray.evaluation.coco import coco_metrics\n"
        "from nasray.evaluation.predictions import Predictions\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "coco_metrics(open_data('shapes').split('val'), Predictions.join([]))\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAYON_NUM_THREADS"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) <= 1
