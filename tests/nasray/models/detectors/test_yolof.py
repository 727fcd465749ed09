import pytest
import torch
from torchvision.ops import box_iou

from nasray.models.detectors.anchors import BACKGROUND, IGNORED
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.yolof import STRIDE, match
from tests.nasray.models.detectors.common import tiny_detector

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE_HW = (256, 320)


def random_boxes(num, seed, least=8.0, most=200.0):
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(num, 2, generator=generator) * torch.tensor([IMAGE_HW[1], IMAGE_HW[0]])
    half = (least + (most - least) * torch.rand(num, 2, generator=generator)) / 2
    return torch.cat([center - half, center + half], dim=1)


def all_anchors():
    (anchors,) = tiny_detector("yolof", base_size=32).anchors(
        [torch.zeros(1, 1, IMAGE_HW[0] // 32, IMAGE_HW[1] // 32)], [32]
    )
    return anchors


def slow_match(anchors, predictions, boxes):
    """By the definition, box by box and anchor by anchor."""

    def distance(one, other):
        centers = (one[:2] + one[2:] - other[:2] - other[2:]).abs().sum() / 2
        return centers + (one[2:] - one[:2] - other[2:] + other[:2]).abs().sum()

    claims = {}
    for number, box in enumerate(boxes):
        for candidates in (anchors, predictions):
            nearest = sorted(range(len(anchors)), key=lambda i: distance(box, candidates[i]).item())[:4]
            for anchor in nearest:
                claims.setdefault(anchor, set()).add(number)
    overlap, reached = box_iou(boxes, anchors), box_iou(boxes, predictions)
    matches = []
    for anchor in range(len(anchors)):
        if anchor in claims:
            best = max(sorted(claims[anchor]), key=lambda number: overlap[number, anchor].item())
            matches.append(best if overlap[best, anchor] >= 0.15 else IGNORED)
        else:
            matches.append(IGNORED if reached[:, anchor].max() > 0.7 else BACKGROUND)
    return torch.tensor(matches)


@pytest.mark.parametrize("seed", range(3))
def test_match_by_its_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    anchors = all_anchors()
    anchors += torch.randn(anchors.shape, generator=generator)  # else many are equally close to a long box
    predictions = anchors + torch.randn(anchors.shape, generator=generator) * 8
    boxes = random_boxes(6, seed)
    predictions[:3] = boxes[0] + torch.tensor([[1.0], [2.0], [3.0]])
    matches = match(anchors, predictions, boxes)
    assert torch.equal(matches, slow_match(anchors, predictions, boxes))
    assert {BACKGROUND, IGNORED} < set(matches.tolist())


def test_boxes_of_every_size_get_as_many_anchors():
    anchors = all_anchors()
    for edge in (40.0, 90.0, 200.0):
        boxes = torch.tensor([[144.0, 112, 144 + edge, 112 + edge]])
        matches = match(anchors, anchors, boxes)
        assert ((matches == 0) | (matches == IGNORED)).sum() == 4


def test_no_boxes_no_positives():
    anchors = all_anchors()
    assert (match(anchors, anchors, torch.zeros(0, 4)) == BACKGROUND).all()


def test_five_anchors_around_each_corner_of_32_pixels():
    anchors = all_anchors().view(8, 10, 5, 4)
    assert anchors[2, 3, :, 2:].sub(anchors[2, 3, :, :2])[:, 0].tolist() == [32, 64, 128, 256, 512]
    assert ((anchors[2, 3, :, :2] + anchors[2, 3, :, 2:]) / 2).tolist() == [[96, 64]] * 5


def test_logits_are_of_the_product_of_class_and_objectness():
    detector = tiny_detector("yolof").train()  # the norms of a fresh network need an images' own statistics
    images = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        for conv in (detector.classes, detector.objectness):
            torch.nn.init.normal_(conv.weight, std=0.3)
        raw = detector.forward_raw(images)
        x = detector.encoder(detector.features(images, [32])[0])
        classes = flatten_level(detector.classes(detector.class_tower(x)), 3)
        objectness = flatten_level(detector.objectness(detector.box_tower(x)), 1)
    expected = classes.sigmoid() * objectness.sigmoid()
    assert expected.std() > 0.01
    torch.testing.assert_close(flatten_level(raw["logits"], 3).sigmoid(), expected, rtol=1e-4, atol=1e-6)


def test_centers_stay_within_a_stride_of_their_anchors():
    detector = tiny_detector("yolof")
    deltas = torch.zeros(1, 20, 3, 4)
    deltas[0, 0::4], deltas[0, 1::4] = 100.0, -100.0
    _, anchors, boxes = detector._decode({"logits": torch.zeros(1, 15, 3, 4), "deltas": deltas})
    moved = torch.tensor([STRIDE, -STRIDE, STRIDE, -STRIDE], dtype=torch.float32)
    torch.testing.assert_close(boxes[0], anchors + moved, rtol=0, atol=1e-3)


def test_small_channels_are_refused():
    with pytest.raises(Exception, match="channels is at least 4, got 3"):
        tiny_detector("yolof", channels=3)
