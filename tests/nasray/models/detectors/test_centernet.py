import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasray.models.detectors.centernet import draw_peaks, peak_loss, peak_radius
from tests.nasray.models.detectors.common import tiny_detector

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 24, 32  # of the maps


def slow_radius(width, height, overlap=0.7):
    """CornerNet's `gaussian_radius`, written down case by case."""
    b1 = height + width
    c1 = width * height * (1 - overlap) / (1 + overlap)
    r1 = (b1 + math.sqrt(b1**2 - 4 * c1)) / 2
    b2 = 2 * (height + width)
    c2 = (1 - overlap) * width * height
    r2 = (b2 + math.sqrt(b2**2 - 16 * c2)) / 2
    a3 = 4 * overlap
    b3 = -2 * overlap * (height + width)
    c3 = (overlap - 1) * width * height
    r3 = (b3 + math.sqrt(b3**2 - 4 * a3 * c3)) / 2
    return min(r1, r2, r3)


def slow_peaks(boxes, index, num_maps):
    """Location by location, as `draw_umich_gaussian` of CenterNet."""
    maps = np.zeros((num_maps, HEIGHT, WIDTH))
    for (x1, y1, x2, y2), number in zip(boxes.tolist(), index.tolist(), strict=True):
        radius = max(0, int(slow_radius(math.ceil(x2 - x1), math.ceil(y2 - y1))))
        sigma = (2 * radius + 1) / 6
        center_x = min(max(int((x1 + x2) / 2), 0), WIDTH - 1)
        center_y = min(max(int((y1 + y2) / 2), 0), HEIGHT - 1)
        for y in range(max(center_y - radius, 0), min(center_y + radius + 1, HEIGHT)):
            for x in range(max(center_x - radius, 0), min(center_x + radius + 1, WIDTH)):
                value = math.exp(-((x - center_x) ** 2 + (y - center_y) ** 2) / (2 * sigma**2))
                maps[number, y, x] = max(maps[number, y, x], value)
    return torch.from_numpy(maps).float()


def box_in_strides(quarters):
    x1, y1, width, height = quarters
    return [x1 / 4, y1 / 4, min(x1 + width, WIDTH * 4) / 4, min(y1 + height, HEIGHT * 4) / 4]


BOXES = st.lists(
    st.tuples(
        st.integers(0, WIDTH * 4 - 1), st.integers(0, HEIGHT * 4 - 1), st.integers(1, 128), st.integers(1, 96)
    ).map(box_in_strides),
    max_size=6,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(BOXES, st.integers(0, 5))
def test_peaks_are_those_of_the_slow_reference(boxes, seed):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    index = torch.randint(0, 3, (len(boxes),), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        draw_peaks(boxes, index, (3, HEIGHT, WIDTH)), slow_peaks(boxes, index, 3), rtol=0, atol=1e-5
    )


def test_radius_has_the_released_roots():
    width, height = torch.tensor([28.0, 3.0, 100.0]), torch.tensor([28.0, 60.0, 20.0])
    expected = [slow_radius(*pair) for pair in zip(width.tolist(), height.tolist(), strict=True)]
    assert peak_radius(width, height).tolist() == pytest.approx(expected, rel=1e-5)


def test_peak_loss_by_its_definition():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator) * 3
    heatmap = torch.rand(2, 3, 5, 4, generator=generator)
    heatmap[0, 1, 2, 3] = heatmap[1, 2, 0, 0] = 1
    expected = 0.0
    for logit, truth in zip(logits.flatten().tolist(), heatmap.flatten().tolist(), strict=True):
        score = 1 / (1 + math.exp(-logit))
        if truth == 1:
            expected -= (1 - score) ** 2 * math.log(score)
        else:
            expected -= (1 - truth) ** 4 * score**2 * math.log(1 - score)
    assert peak_loss(logits, heatmap).item() == pytest.approx(expected, rel=1e-5)


def test_peak_loss_is_exact_where_scores_round_to_one():
    logits = torch.tensor([[[[-200.0, 200.0]]]], requires_grad=True)
    loss = peak_loss(logits, torch.tensor([[[[1.0, 0.0]]]]))
    loss.backward()
    assert loss.item() == pytest.approx(400)
    assert logits.grad.tolist() == [[[[-1, 1]]]]


def raw_of(detector, sizes=(8.0, 6.0)):
    """Raw outputs of one image of 96 x 128 pixels without a peak."""
    return {
        "heatmap": torch.full((1, detector.num_classes, HEIGHT, WIDTH), -10.0),
        "size": torch.tensor(sizes).view(1, 2, 1, 1).repeat(1, 1, HEIGHT, WIDTH),
        "offset": torch.full((1, 2, HEIGHT, WIDTH), 0.25),
    }


def test_peaks_become_boxes():
    detector = tiny_detector("centernet")
    raw = raw_of(detector)
    raw["heatmap"][0, 1, 10, 20] = 2.0
    raw["heatmap"][0, 1, 11, 21] = 1.9  # beside a higher one of its class
    raw["heatmap"][0, 2, 10, 21] = 1.0  # of another class
    raw["heatmap"][0, 0, 0, 31] = 0.5  # at the corner
    boxes, scores, labels, _ = detector.postprocess(raw, torch.tensor([[96, 128]]))
    assert labels[0, :3].tolist() == [1, 2, 0]
    torch.testing.assert_close(scores[0, :4], torch.tensor([2.0, 1.0, 0.5, -torch.inf]).sigmoid())
    # x: (20 + 0.25 -+ 8 / 2) * 4; y: (10 + 0.25 -+ 6 / 2) * 4
    assert boxes[0, :3].tolist() == [[65, 29, 97, 53], [69, 29, 101, 53], [109, 0, 128, 13]]


def test_peaks_in_the_padding_are_dropped():
    detector = tiny_detector("centernet")
    raw = raw_of(detector)
    raw["heatmap"][0, 0, 10, 28] = 2.0
    raw["heatmap"][0, 0, 10, 3] = 1.0
    boxes, scores, _, _ = detector.postprocess(raw, torch.tensor([[96, 80]]))
    assert (scores > 0).sum() == 1
    assert boxes[0, 0].tolist() == [0, 29, 29, 53]


def test_loss_has_the_normalizers_of_the_papers(monkeypatch):
    """Two boxes of one class in one location are one peak, but two sizes and offsets."""
    detector = tiny_detector("centernet")
    raw = raw_of(detector)
    raw = {name: value.repeat(2, 1, 1, 1) for name, value in raw.items()}
    monkeypatch.setattr(detector, "forward_raw", lambda images: raw)
    boxes = torch.tensor([[65.0, 29, 97, 53], [64, 30, 96, 54], [4, 4, 20, 28]])
    targets = [
        {"boxes": boxes[:2], "labels": torch.tensor([1, 1])},
        {"boxes": boxes[2:], "labels": torch.tensor([0])},
    ]
    losses = detector.loss(torch.zeros(2, 3, 96, 128), targets)
    # Both of the first are in (20, 10); offsets (0.25, 0.25) and (0, 0.5). The last in (3, 4) with (0, 0), 4 x 6.
    assert losses["loss_offset"].item() == pytest.approx((0.25 + 0.25 + 0.25 + 0.25) / 6)
    assert losses["loss_size"].item() == pytest.approx(0.1 * (8 - 4) / 6)
    # Everywhere a score of sigmoid(-10), whose square is nothing where there is no peak.
    assert losses["loss_heatmap"].item() == pytest.approx(2 * 10 / 2, rel=1e-3)


def test_a_fresh_heatmap_says_a_tenth():
    detector = tiny_detector("centernet").eval()
    with torch.no_grad():
        raw = detector.forward_raw(torch.zeros(1, 3, 64, 96))
    assert raw["heatmap"].shape == (1, 3, 16, 24)
    assert raw["heatmap"].mean().item() == pytest.approx(-2.19, abs=0.1)
    assert raw["heatmap"].std() < 0.5
