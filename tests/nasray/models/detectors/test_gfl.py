import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from nasray.models.detectors.anchors import Anchors
from nasray.models.detectors.gfl import (
    GFLHead,
    assign,
    distribution_focal_loss,
    expected_distances,
    joint_logit,
    statistics,
)  # fmt: skip
from nasray.models.detectors.heads import TwinTowers
from nasray.models.detectors.necks import STRIDES

pytestmark = pytest.mark.usefixtures("one_thread")
logit = st.floats(-60, 60)


@given(logit, logit)
def test_the_joint_logit_is_that_of_the_product(classes, quality):
    pair = torch.tensor([classes, quality], dtype=torch.float64)
    joint = joint_logit(pair[0].float(), pair[1].float()).double()
    # log p = -log(1 + exp(-x)) is exact where p itself rounds to 1.
    log_product = torch.nn.functional.logsigmoid(pair).sum()
    torch.testing.assert_close(torch.nn.functional.logsigmoid(joint), log_product, rtol=1e-5, atol=1e-12)


def test_statistics_are_the_four_highest_probabilities_and_their_mean():
    distribution = torch.randn(2, 4, 17, 3, 5, generator=torch.Generator().manual_seed(0))
    found = statistics(distribution.flatten(1, 2))
    assert found.shape == (2, 20, 3, 5)
    best = distribution[1, 2, :, 2, 4].softmax(dim=0).sort(descending=True).values[:4]
    torch.testing.assert_close(found[1, 10:15, 2, 4], torch.cat([best, best.mean()[None]]))


def test_a_head_of_two_classes_and_its_shapes():
    generator = torch.Generator().manual_seed(0)
    raw = GFLHead(TwinTowers(12, 1, "group", 5), 2)(
        [torch.rand(2, 12, size, size, generator=generator) for size in (8, 4, 2, 1, 1)]
    )
    assert [level.shape for level in raw["logits"]] == [(2, 2, size, size) for size in (8, 4, 2, 1, 1)]
    assert [level.shape for level in raw["distributions"]] == [(2, 68, size, size) for size in (8, 4, 2, 1, 1)]


def test_expected_distance():
    logits = torch.full((2, 17), -100.0)
    logits[0, 3] = 0
    logits[1, 5], logits[1, 6] = torch.tensor([0.25, 0.75]).log()
    torch.testing.assert_close(expected_distances(logits), torch.tensor([3, 5.75]))


def test_distribution_focal_loss():
    logits = torch.randn(1, 4, 17, generator=torch.Generator().manual_seed(0))
    logs = logits.log_softmax(dim=-1)[0]
    loss = distribution_focal_loss(logits, torch.tensor([[3.25, 0, 99, -5.0]]))
    sides = [
        0.75 * logs[0, 3] + 0.25 * logs[0, 4],
        logs[1, 0],
        0.1 * logs[2, 15] + 0.9 * logs[2, 16],  # 15.9 at most
        logs[3, 0],
    ]
    torch.testing.assert_close(loss, -torch.stack(sides).mean()[None])
    assert distribution_focal_loss(torch.zeros(0, 4, 17), torch.zeros(0, 4)).shape == (0,)


def test_assignment_by_its_definition():
    maps = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in STRIDES]
    levels = Anchors([[8 * stride] for stride in STRIDES], (1.0,))(maps, STRIDES)
    anchors = torch.cat(levels)
    boxes = torch.tensor(  # whose centers are equally far from no two anchors
        [[20, 30, 90, 80], [25, 35, 95, 90], [10, 10, 250, 240], [101, 100, 122.3, 130.6], [200, 8, 215, 20.7]]
    )
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    overlap = box_iou(anchors, boxes)
    best = [(-1.0, -1)] * len(anchors)
    for index, box in enumerate(boxes):
        candidates, start = [], 0
        for level in levels:
            distance = (centers[start : start + len(level)] - (box[:2] + box[2:]) / 2).norm(dim=1)
            candidates += [start + place for place in distance.argsort(stable=True)[:9].tolist()]
            start += len(level)
        values = overlap[candidates, index]
        for anchor in candidates:
            x, y = centers[anchor]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if inside and overlap[anchor, index] >= values.mean() + values.std():
                best[anchor] = max(best[anchor], (overlap[anchor, index].item(), index))
    expected = [index for _, index in best]
    assert assign(anchors, [len(level) for level in levels], boxes).tolist() == expected
    assert set(expected) == {-1, 0, 1, 2, 3, 4}


def test_no_boxes_are_assigned_nowhere():
    assert assign(torch.rand(7, 4), [4, 3], torch.zeros(0, 4)).tolist() == [-1] * 7
