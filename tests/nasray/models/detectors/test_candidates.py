import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from nasray.models.detectors import candidates
from nasray.models.detectors.candidates import clip, detect, select, suppress, top_candidates, top_class_candidates

pytestmark = pytest.mark.usefixtures("one_thread")


def random_boxes(num, generator, size=100.0):
    corners = torch.rand(num, 2, 2, generator=generator) * size
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 1], dim=1)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_top_candidates_are_the_best_and_zeros_fill_up(scores, num):
    scores = torch.tensor(scores)
    best, index = top_candidates(scores, num)
    expected = sorted(scores.tolist(), reverse=True)[:num]
    assert best.tolist() == expected + [0.0] * (num - len(expected))
    assert ((index >= 0) & (index < len(scores))).all()
    assert torch.equal(scores[index][best > 0], best[best > 0])


def test_top_class_candidates():
    scores = torch.tensor([[0.9, 0.2], [0.05, 0.6], [0.3, 0.01]])
    boxes = torch.arange(12.0).view(3, 4)
    chosen, best, labels = top_class_candidates(scores, boxes, 4, threshold=0.2)
    torch.testing.assert_close(best, torch.tensor([0.9, 0.6, 0.3, 0.0]))
    assert torch.equal(chosen[:3], boxes[[0, 1, 2]])
    assert labels[:3].tolist() == [0, 1, 0]


@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([1, 3, 80, 1203]))
@settings(max_examples=40, deadline=None)
def test_suppression_is_that_of_torchvision(seed, num, num_classes):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.cat([random_boxes(num, generator), torch.zeros(1, 4)])
    scores = torch.cat([torch.rand(num, generator=generator), torch.zeros(1)])
    scores[: num // 3] = 0
    labels = torch.randint(num_classes, (num + 1,), generator=generator) // 2
    kept = suppress(boxes, scores, labels, 0.5)
    real = scores.nonzero()[:, 0]
    expected = real[batched_nms(boxes[real], scores[real], labels[real], 0.5)]
    assert kept.nonzero()[:, 0].tolist() == sorted(expected.tolist())


def test_suppression_is_exact_for_many_classes_of_a_large_image():
    """Offsets on a line would reach 1.6 million pixels here, where float32 knows nothing below an eighth of one."""
    overlap = [0.502, 0.498]
    for label in (0, 1202):
        for iou in overlap:
            shift = 10 * (1 - iou) / (1 + iou)
            boxes = torch.tensor([[1320, 0, 1330, 10.0], [1320 + shift, 0, 1330 + shift, 10.0]])
            kept = suppress(boxes, torch.tensor([0.9, 0.8]), torch.tensor([label, label]), 0.5)
            assert kept.tolist() == [True, iou < 0.5]


def test_select_gives_the_best_first_and_pads():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10.0], [50, 50, 60, 60]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6, 0.0])
    labels = torch.tensor([0, 0, 1, 1, 0])
    chosen, best, chosen_labels = select(boxes, scores, labels, 0.5, 6)
    torch.testing.assert_close(best, torch.tensor([0.9, 0.7, 0.6, 0, 0, 0]))
    assert torch.equal(chosen[:3], boxes[[1, 2, 3]])
    assert chosen_labels[:3].tolist() == [0, 1, 1]


def test_detect_takes_the_best_of_each_level(monkeypatch):
    monkeypatch.setattr(candidates, "CANDIDATES", 30)
    generator = torch.Generator().manual_seed(0)
    sizes = (50, 8)
    scores = [torch.rand(2, size, 3, generator=generator) for size in sizes]
    boxes = [torch.stack([random_boxes(size, generator) for _ in range(2)]) for size in sizes]
    image_hw = torch.tensor([[90, 80], [70, 100]])
    found = detect(scores, boxes, image_hw, 0.3, 0.4, 20)
    assert found.boxes.shape == (2, 20, 4)
    for image in range(2):
        pairs = []
        for score, box in zip(scores, boxes, strict=True):
            level = [(score[image, a, c].item(), c, box[image, a]) for a in range(len(box[image])) for c in range(3)]
            pairs += sorted(level, key=lambda pair: -pair[0])[:30]
        kept = []
        for score, label, box in sorted(pairs, key=lambda pair: -pair[0]):
            box = clip(box, 90 if image == 0 else 70, 80 if image == 0 else 100)
            if score <= 0.3 or (box[2:] <= box[:2]).any():
                continue
            if all(label != c or box_iou(box[None], b[None]).item() <= 0.4 for _, c, b in kept):
                kept.append((score, label, box))
        kept = kept[:20]
        assert len(kept) > 10
        torch.testing.assert_close(found.scores[image, : len(kept)], torch.tensor([score for score, _, _ in kept]))
        assert found.labels[image, : len(kept)].tolist() == [label for _, label, _ in kept]
        torch.testing.assert_close(found.boxes[image, : len(kept)], torch.stack([box for _, _, box in kept]))
        assert not found.scores[image, len(kept) :].any()


@pytest.mark.parametrize(("height", "width"), [(50, 40), (torch.tensor(50), torch.tensor(40))])
def test_clip(height, width):
    boxes = torch.tensor([[-5, -6, 45, 55], [10, 20, 30, 30], [60, 60, 70, 80.0]])
    expected = torch.tensor([[0, 0, 40, 50], [10, 20, 30, 30], [40, 50, 40, 50.0]])
    assert torch.equal(clip(boxes, height, width), expected)
