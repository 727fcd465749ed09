"""Proposals and their loss are torchvision's; sampling keeps its promises."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork

from nasray.models.detectors import rpn
from nasray.models.detectors.anchors import BACKGROUND, IGNORED

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_HW = (64, 96)
ANCHORS = [  # of two levels, as `Anchors` gives them
    torch.cartesian_prod(torch.arange(0, 96, stride), torch.arange(0, 64, stride)).repeat(1, 2)
    + torch.tensor([-edge, -edge, edge, edge])
    for stride, edge in ((8, 8.0), (16, 16.0))
]
TARGETS = [
    {"boxes": torch.tensor([[8.0, 10, 30, 25], [40, 20, 75, 60]]), "labels": torch.tensor([0, 1])},
    {"boxes": torch.tensor([[50.0, 0, 66, 18]]), "labels": torch.tensor([2])},
]


def make_outputs(seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(2, len(level), generator=generator) * spread for level in ANCHORS]
    deltas = [torch.randn(2, len(level), 4, generator=generator) * 0.3 for level in ANCHORS]
    return [x.requires_grad_() for x in logits], [x.requires_grad_() for x in deltas]


def theirs(num_before, num):
    top = [{"training": value, "testing": value} for value in (num_before, num)]
    return RegionProposalNetwork(AnchorGenerator(), torch.nn.Identity(), 0.7, 0.3, 256, 0.5, *top, 0.7)


@pytest.mark.parametrize(("num_before", "num"), [(1000, 1000), (20, 25)])
def test_proposals_are_those_of_torchvision(num_before, num):
    logits, deltas = make_outputs()
    logits[0].data[0, 3], deltas[0].data[0, 3] = 9.0, torch.tensor([50.0, 0, 0, 0])  # a good score beside the image
    boxes, scores = rpn.propose(logits, deltas, ANCHORS, IMAGE_HW, num_before, num)
    reference = theirs(num_before, num)
    decoded = reference.box_coder.decode(torch.cat(deltas, dim=1).flatten(0, 1).detach(), [torch.cat(ANCHORS)] * 2)
    expected_boxes, expected_scores = reference.filter_proposals(
        decoded.view(2, -1, 4), torch.cat(logits, dim=1), [IMAGE_HW] * 2, [len(level) for level in ANCHORS]
    )
    assert boxes.shape == (2, num, 4)
    for image in range(2):
        count = len(expected_scores[image])
        assert 10 < count <= num
        torch.testing.assert_close(scores[image, :count], rpn.ranks(expected_scores[image].logit()), rtol=0, atol=1e-4)
        torch.testing.assert_close(boxes[image, :count], expected_boxes[image])
        assert not scores[image, count:].any()
    assert not boxes.requires_grad


def test_ranks_keep_the_order_where_sigmoids_are_equal():
    logits = torch.tensor([-200.0, -150, -120, -17, -16.99, 0, 20, 20.01, 40])
    assert (rpn.ranks(logits).diff() > 0).all()
    assert rpn.ranks(logits[0]) > 0
    assert rpn.ranks(logits[-1]) < 1
    assert (logits.sigmoid().diff() == 0).any()


def test_exports_have_a_fixed_number_of_proposals(monkeypatch):
    logits, deltas = make_outputs()
    boxes, scores = rpn.propose(logits, deltas, ANCHORS, IMAGE_HW, 50, 1000)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    padded_boxes, padded_scores = rpn.propose(logits, deltas, ANCHORS, IMAGE_HW, 50, 1000)
    assert padded_boxes.shape == (2, 1000, 4)
    count = int((scores > 0).sum(dim=1).max())
    torch.testing.assert_close(padded_scores[:, :count], scores[:, :count])
    torch.testing.assert_close(padded_boxes[:, :count][scores[:, :count] > 0], boxes[:, :count][scores[:, :count] > 0])
    assert not padded_scores[:, count:].any()


def test_loss_is_that_of_torchvision():
    # Fewer than 256 anchors in all: the sample is complete but for what is undecided.
    logits, deltas = make_outputs(spread=2.0)
    losses = rpn.rpn_loss(logits, deltas, ANCHORS, TARGETS)
    reference, anchors = theirs(1000, 1000), [torch.cat(ANCHORS)] * 2
    labels, matched = reference.assign_targets_to_anchors(anchors, TARGETS)
    assert sum(int((label == 1).sum()) for label in labels) > 0
    assert any((label == -1).any() for label in labels)
    objectness, boxes = reference.compute_loss(
        torch.cat(logits, dim=1).flatten()[:, None], torch.cat(deltas, dim=1).flatten(0, 1), labels,
        reference.box_coder.encode(matched, anchors),
    )  # fmt: skip
    torch.testing.assert_close(losses["loss_objectness"], objectness)
    torch.testing.assert_close(losses["loss_proposals"], boxes)


def test_without_boxes_everything_is_background():
    logits, deltas = make_outputs()
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    losses = rpn.rpn_loss(logits, deltas, ANCHORS, empty)
    expected = torch.nn.functional.softplus(torch.cat(logits, dim=1)).mean()
    torch.testing.assert_close(losses["loss_objectness"], expected)
    assert losses["loss_proposals"] == 0
    sum(losses.values()).backward()
    assert not any(x.grad.any() for x in deltas)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([IGNORED, BACKGROUND, 0, 1]), max_size=60), st.integers(1, 40), st.floats(0, 1),
    st.integers(0, 9),
)  # fmt: skip
def test_samples(matched, num, share, seed):
    matched = torch.tensor(matched, dtype=torch.int64)
    (positive,), (negative,) = rpn.sample(matched[None], num, share, torch.Generator().manual_seed(seed))
    assert (matched[positive] >= 0).all()
    assert (matched[negative] == BACKGROUND).all()
    for index in (positive, negative):
        assert len(index.unique()) == len(index)
    assert len(positive) == min(int(num * share), int((matched >= 0).sum()))
    assert len(negative) == min(num - len(positive), int((matched == BACKGROUND).sum()))


def test_samples_follow_the_generator():
    matched = torch.tensor([BACKGROUND, 0] * 200)
    first, again, other = (
        [index.tolist() for (index,) in rpn.sample(matched[None], 64, 0.5, torch.Generator().manual_seed(seed))]
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_samples_of_a_batch_are_drawn_image_by_image():
    """Those of the generator's draws, positives before negatives: a seed must go on to mean the same."""
    matched = torch.randint(IGNORED, 3, (3, 50), generator=torch.Generator().manual_seed(0))
    matched[1] = BACKGROUND
    positives, negatives = rpn.sample(matched, 12, 0.5, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    for one, positive, negative in zip(matched, positives, negatives, strict=True):
        every = (one >= 0).nonzero()[:, 0]
        expected = every[torch.randperm(len(every), generator=generator)[:6]]
        assert torch.equal(positive, expected)
        every = (one == BACKGROUND).nonzero()[:, 0]
        assert torch.equal(negative, every[torch.randperm(len(every), generator=generator)[: 12 - len(expected)]])


def test_proposals_are_the_same_on_an_accelerator(host_waits, in_a_child):
    logits, deltas = ([x.detach() for x in parts] for parts in make_outputs())

    def propose():
        with host_waits.pretending() as waits:
            moved = [[x.to(host_waits.DEVICE) for x in parts] for parts in (logits, deltas, ANCHORS)]
            waits.counts.clear()
            boxes, scores = rpn.propose(*moved, IMAGE_HW, 50, 40)
            num_waits = sum(waits.counts.values())
            return num_waits, boxes.tolist(), scores.tolist()

    num_waits, boxes, scores = in_a_child(propose)
    assert num_waits == 2, "one suppression for each image"
    expected_boxes, expected_scores = rpn.propose(logits, deltas, ANCHORS, IMAGE_HW, 50, 40)
    assert boxes == expected_boxes.tolist()
    assert scores == expected_scores.tolist()
