import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from nasray.models.detectors import losses
from nasray.models.detectors.anchors import BACKGROUND, IGNORED, positives
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.losses import (
    aligned_iou,
    focal_loss,
    generalized_iou_loss,
    positive_count,
    quality_focal_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES, PER_LOCATION = 5, 2


def logits_and_matches(dtype=torch.float32, scale=2.0):
    """Two levels of two images with two anchors a location, some of which match, some of which are ignored."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, PER_LOCATION * CLASSES)
    levels = [torch.randn(*shape, *hw, generator=generator) * scale for hw in ((3, 4), (2, 1))]
    matches = torch.randint(-2, 3, (2, 2 * (12 + 2)), generator=generator)
    matches[1, matches[1] >= 0] = BACKGROUND  # an image without boxes
    targets = [
        {"boxes": torch.rand(3, 4, generator=generator), "labels": torch.tensor([4, 0, 2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    levels = [level.to(dtype).requires_grad_() for level in levels]
    return levels, matches, positives(matches, targets, levels, PER_LOCATION), targets


def dense(levels, matches, targets, values):
    """Logits (B, A, C) in one piece, targets of the same shape, and the anchors that take part."""
    logits = torch.cat([flatten_level(level, CLASSES) for level in levels], dim=1)
    wanted = torch.zeros_like(logits)
    for number, (image, anchor) in enumerate((matches >= 0).nonzero().tolist()):
        wanted[image, anchor, targets[image]["labels"][matches[image, anchor]]] = values[number]
    return logits, wanted, matches != IGNORED


def order_of(chosen, matches):
    """Positions of the chosen anchors, which are level by level, in the order of images and anchors."""
    place = {pair: index for index, pair in enumerate(map(tuple, (matches >= 0).nonzero().tolist()))}
    return [place[pair] for pair in zip(chosen.image.tolist(), chosen.anchor.tolist(), strict=True)]


def test_focal_loss_is_that_of_torchvision():
    levels, matches, chosen, targets = logits_and_matches()
    assert len(chosen.anchor) > 5
    assert (matches == IGNORED).sum() > 5
    loss = focal_loss(levels, chosen, CLASSES)
    slopes = torch.autograd.grad(loss, levels)
    logits, wanted, valid = dense(levels, matches, targets, torch.ones(100))
    expected = sigmoid_focal_loss(logits[valid], wanted[valid], reduction="sum")
    torch.testing.assert_close(loss, expected)
    for slope, other in zip(slopes, torch.autograd.grad(expected, levels), strict=True):
        torch.testing.assert_close(slope, other, atol=1e-6, rtol=1e-5)


def test_quality_focal_loss_is_its_definition():
    levels, matches, chosen, targets = logits_and_matches()
    quality = torch.rand(len(chosen.anchor), generator=torch.Generator().manual_seed(1))
    loss = quality_focal_loss(levels, chosen, CLASSES, quality)
    slopes = torch.autograd.grad(loss, levels)
    values = torch.zeros(len(quality))
    values[order_of(chosen, matches)] = quality
    logits, wanted, valid = dense(levels, matches, targets, values)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    expected = ((wanted - logits.sigmoid()).square() * entropy)[valid].sum()
    torch.testing.assert_close(loss, expected)
    for slope, other in zip(slopes, torch.autograd.grad(expected, levels), strict=True):
        torch.testing.assert_close(slope, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_low_precision_are_finite_at_the_extremes(dtype):
    levels, _, chosen, _ = logits_and_matches(dtype, scale=1000.0)
    for loss in (focal_loss(levels, chosen, CLASSES),
                 quality_focal_loss(levels, chosen, CLASSES, torch.ones(len(chosen.anchor)))):  # fmt: skip
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        for slope in torch.autograd.grad(loss, levels):
            assert slope.dtype == dtype
            assert slope.isfinite().all()


def test_focal_loss_keeps_nothing_but_the_logits():
    levels, _, chosen, _ = logits_and_matches()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        focal_loss(levels, chosen, CLASSES)
    large = [tensor for tensor in kept if tensor.numel() >= levels[0].numel()]
    assert large
    assert {tensor.data_ptr() for tensor in large} == {levels[0].data_ptr()}


def test_aligned_iou():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 4, 4], [5, 5, 5, 9], [0, 0, 1, 1.0]])
    others = torch.tensor([[5, 0, 15, 10], [0, 0, 4, 4], [5, 5, 9, 9], [2, 2, 3, 3.0]])
    torch.testing.assert_close(aligned_iou(boxes, others), box_iou(boxes, others).diagonal())
    assert aligned_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_positives_are_counted_over_all_workers(monkeypatch):
    assert positive_count(7, like=torch.zeros(1)).item() == 7
    assert positive_count(torch.tensor(0.25), like=torch.zeros(1)).item() == 1
    monkeypatch.setattr(losses.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(losses.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(losses.distributed, "all_reduce", lambda tensor: tensor.add_(4))  # what the other one has
    count = torch.tensor(7.0)
    assert positive_count(count, like=count).item() == 5.5
    assert count.item() == 7, "the tensor itself stays"


def test_generalized_iou_loss_is_that_of_torchvision():
    low, edges = torch.rand(2, 2, 50, 2, generator=torch.Generator().manual_seed(3)) * 4
    ours, theirs = (torch.cat([low, low + edges], dim=-1) for _ in range(2))  # both boxes of 50 pairs, a few apart
    ours.requires_grad_()
    theirs.requires_grad_()
    one, other = generalized_iou_loss(*ours), generalized_box_iou_loss(*theirs)
    assert (other > 1).any()
    assert torch.equal(one, other)
    one.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
