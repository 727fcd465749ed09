"""The box head, its targets and its losses are torchvision's, whose background is class 0."""

import pytest
import torch
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss

from nasray.models.detectors import roi
from nasray.models.detectors.anchors import boxes_to_deltas
from nasray.models.detectors.roi import BOX_HEADS, BoxHead

pytestmark = pytest.mark.usefixtures("one_thread")

TARGETS = [
    {"boxes": torch.tensor([[8.0, 10, 30, 25], [40, 20, 75, 60]]), "labels": torch.tensor([0, 1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def make_head(kind, norm="none", num_classes=3, channels=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BoxHead(channels, num_classes, kind, norm)


def make_proposals(num=700):
    generator = torch.Generator().manual_seed(1)
    center, edge = torch.rand(2, num, 2, generator=generator) * 80, torch.rand(2, num, 2, generator=generator) * 30 + 5
    return torch.cat([center - edge / 2, center + edge / 2], dim=-1)


def with_background_first(predictor, num_classes, width):
    """Torchvision's predictor with the weights of ours."""
    theirs = FastRCNNPredictor(width, num_classes + 1)
    for ours, their, rows in ((predictor.classes, theirs.cls_score, 1), (predictor.boxes, theirs.bbox_pred, 4)):
        for name in ("weight", "bias"):
            value = getattr(ours, name).data
            first = value[-1:] if rows == 1 else torch.zeros_like(value[:rows])
            getattr(their, name).data = torch.cat([first, value[: num_classes * rows]])
    return theirs


@pytest.mark.parametrize("kind", BOX_HEADS)
def test_outputs_are_those_of_torchvision(kind):
    head = make_head(kind)
    pooled = torch.randn(5, 8, 7, 7, generator=torch.Generator().manual_seed(2))
    logits, deltas = head(pooled)
    their_logits, their_deltas = with_background_first(head, 3, 1024)(head.layers(pooled))
    torch.testing.assert_close(logits.roll(1, dims=1), their_logits)
    torch.testing.assert_close(deltas, their_deltas.view(5, 4, 4)[:, 1:])


@pytest.mark.parametrize("kind", BOX_HEADS)
def test_layers(kind):
    convs = [module for module in make_head(kind, "group").modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in make_head(kind, "group").modules() if isinstance(module, torch.nn.GroupNorm)]
    linears = [module for module in make_head(kind).modules() if isinstance(module, torch.nn.Linear)]
    assert len(convs) == len(norms) == {"2fc": 0, "2conv1fc": 2, "4conv1fc": 4}[kind]
    assert len(linears) == {"2fc": 4, "2conv1fc": 3, "4conv1fc": 3}[kind]


def test_unknown_head():
    with pytest.raises(ValueError, match="2fc, 2conv1fc, 4conv1fc; got '3fc'"):
        BoxHead(8, 3, "3fc")


def test_samples_are_those_of_torchvision():
    proposals = make_proposals()
    scores = torch.ones(proposals.shape[:2])
    scores[0, 600:] = 0  # padding
    samples = roi.sample_regions(proposals, scores, TARGETS, 3, 512, torch.Generator().manual_seed(5))
    theirs = RoIHeads(None, None, None, 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        targets = [{**target, "labels": target["labels"] + 1} for target in TARGETS]
        boxes, _truth, labels, _codes = theirs.select_training_samples([proposals[0, :600], proposals[1]], targets)
    assert (labels[0] > 0).sum() > 2
    assert len(labels[0]) == len(labels[1]) == 512
    for image in range(2):
        ours = samples.regions[:, 0] == image
        mine = sorted(zip(samples.regions[ours, 1:].tolist(), samples.labels[ours].tolist(), strict=True))
        labels_here = torch.where(labels[image] > 0, labels[image] - 1, 3).tolist()
        assert mine == sorted(zip(boxes[image].tolist(), labels_here, strict=True))
    positive = samples.labels < 3
    assert torch.equal(samples.positive, positive.nonzero()[:, 0])
    rows = zip(samples.boxes[positive], samples.truth[positive], samples.labels[positive], strict=True)
    for box, index, label in rows:
        assert box.tolist() == TARGETS[0]["boxes"][index].tolist()
        assert label == TARGETS[0]["labels"][index]
    # The annotated boxes take part.
    assert {tuple(box.tolist()) for box in TARGETS[0]["boxes"]} <= {tuple(x.tolist()) for x in samples.regions[:, 1:]}


def test_loss_is_that_of_torchvision():
    samples = roi.sample_regions(
        make_proposals(), torch.ones(2, 700), TARGETS, 3, 512, torch.Generator().manual_seed(5)
    )
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(1024, 4, generator=generator)
    deltas = torch.randn(1024, 3, 4, generator=generator)
    losses = roi.box_loss(logits, deltas, samples)
    labels = torch.where(samples.labels < 3, samples.labels + 1, 0)
    codes = boxes_to_deltas(samples.regions[:, 1:], samples.boxes, (10.0, 5.0))
    theirs = torch.cat([torch.zeros(1024, 1, 4), deltas], dim=1).flatten(1)
    classes, boxes = fastrcnn_loss(logits.roll(1, dims=1), theirs, [labels], [codes])
    torch.testing.assert_close(losses["loss_classes"], classes)
    torch.testing.assert_close(losses["loss_boxes"], boxes)


def test_nothing_to_learn_from():
    samples = roi.sample_regions(torch.zeros(1, 4, 4), torch.zeros(1, 4), TARGETS[1:], 3, 512)
    assert len(samples.labels) == 0
    losses = roi.box_loss(torch.zeros(0, 4), torch.zeros(0, 3, 4), samples)
    assert losses == {"loss_classes": 0, "loss_boxes": 0}


def test_decoding_undoes_encoding():
    boxes, truth = make_proposals()[0], make_proposals()[1]
    codes = boxes_to_deltas(boxes, truth, (10.0, 5.0))[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(roi.decode(codes, boxes), truth[:, None].expand(-1, 3, -1), rtol=0, atol=1e-3)
