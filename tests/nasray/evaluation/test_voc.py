"""VOC's average precision against a literal reading of the development kits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasray.data import open_data
from nasray.evaluation.predictions import Predictions
from nasray.evaluation.voc import area_ap, eleven_point_ap, precision_curve, voc_metrics
from tests.nasray.evaluation.common import sample_results


def kit(dataset, found, label, year):
    """VOCevaldet.m, line by line: one detection after the other, lists instead of arrays."""
    boxes, difficult, used, num_positive = {}, {}, {}, 0
    for image in range(len(dataset)):
        rows = [i for i in range(dataset.offsets[image], dataset.offsets[image + 1]) if dataset.labels[i] == label]
        boxes[image] = [dataset.boxes[i] for i in rows]
        difficult[image] = [bool(dataset.ignored[i]) for i in rows]
        used[image] = [False] * len(rows)
        num_positive += sum(not one for one in difficult[image])
    hits, misses = [], []
    chosen = [i for i in range(len(found)) if found.labels[i] == label]
    for i in sorted(chosen, key=lambda i: -found.scores[i]):
        image, best, place = int(found.image_index[i]), -np.inf, -1
        for j, box in enumerate(boxes[image]):
            a = found.boxes[i].astype(float)
            width, height = min(a[2], box[2]) - max(a[0], box[0]), min(a[3], box[3]) - max(a[1], box[1])
            if width > 0 and height > 0:
                union = (a[2] - a[0]) * (a[3] - a[1]) + (box[2] - box[0]) * (box[3] - box[1]) - width * height
                if width * height / union > best:
                    best, place = width * height / union, j
        if best >= 0.5:
            if difficult[image][place]:
                continue
            hits.append(not used[image][place])
            used[image][place] = True
        else:
            hits.append(False)
        misses.append(not hits[-1])
    tp, fp = np.cumsum(hits), np.cumsum(misses)
    recall, precision = tp / num_positive, tp / (tp + fp)
    if year == 2007:
        total = 0.0
        for t in np.arange(0, 1.05, 0.1):
            above = precision[recall >= t - 1e-12]
            total += (above.max() if len(above) else 0) / 11
        return total
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i + 1] - mrec[i]) * mpre[i + 1] for i in range(len(mrec) - 1) if mrec[i + 1] != mrec[i])


def test_as_the_kit():
    dataset = open_data("shapes").split("val")
    ignored = np.random.default_rng(1).random(len(dataset.labels)) < 0.15
    dataset = type(dataset)(**{**vars(dataset), "ignored": ignored})
    found = sample_results(dataset, seed=2)
    ours = voc_metrics(dataset, found)
    for label in range(len(dataset.classes)):
        assert ours.class_ap07[label] == pytest.approx(kit(dataset, found, label, 2007), abs=1e-9)
        assert ours.class_ap12[label] == pytest.approx(kit(dataset, found, label, 2012), abs=1e-9)
    assert ours.ap50_voc12 == pytest.approx(ours.class_ap12.mean())
    assert 0.2 < ours.ap50_voc07 < 0.95


def test_perfect_empty_and_absent():
    dataset = open_data("shapes").split("val")
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    perfect = Predictions(owners, dataset.boxes.astype(np.float32), np.ones(len(owners), np.float32), dataset.labels)
    assert voc_metrics(dataset, perfect).ap50_voc07 == pytest.approx(1.0)
    assert voc_metrics(dataset, Predictions.join([])).ap50_voc12 == 0.0
    without = type(dataset)(**{**vars(dataset), "labels": np.zeros_like(dataset.labels)})
    assert np.isnan(voc_metrics(without, perfect).class_ap12).tolist() == [False, True, True]


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 20))
def test_curves_stay_in_range(right, missed):
    recall, precision = precision_curve(np.array(right), sum(right) + missed or 1)
    for value in (eleven_point_ap(recall, precision), area_ap(recall, precision)):
        assert 0.0 <= value <= 1.0 + 1e-12
    assert area_ap(recall, precision) >= (recall[-1] * precision[-1]) - 1e-12
