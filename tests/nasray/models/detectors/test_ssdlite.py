"""SSDLite is torchvision's on the same maps and with the same weights: default boxes, outputs, loss, detections."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from nasray.models.detectors.anchors import BACKGROUND
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.ssdlite import NUM_PER_LOCATION, SSDLite, default_boxes, match, mined_cross_entropy

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = 5
TARGETS = [
    {
        "boxes": torch.tensor([[20, 30, 90, 100], [100, 10, 240, 120], [5, 5, 30, 25], [40, 60, 310, 300.0]]),
        "labels": torch.tensor([2, 0, 4, 1]),
    },
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    {"boxes": torch.tensor([[0, 0, 320, 320.0]]), "labels": torch.tensor([3])},
]


class Maps(nn.Module):
    """The two parts of torchvision's MobileNetV3 as a backbone."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts
        self.feature_info = [{"num_chs": 672, "reduction": 16}, {"num_chs": 480, "reduction": 32}]

    def forward(self, images):
        first = self.parts[0](images)
        return OrderedDict(first=first, second=self.parts[1](first))


@pytest.fixture(scope="module")
def pair(one_thread):
    """Ours and torchvision's with the same weights, and three images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES + 1, score_thresh=0.4, detections_per_img=50,
            image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
        ).eval()  # fmt: skip
        heads = theirs.head.classification_head.module_list, theirs.head.regression_head.module_list
        for level in zip(*heads, strict=True):
            for head in level:
                nn.init.normal_(head[1].weight, std=0.1)  # scores of 0 to 1
    images = torch.randint(0, 256, (3, 3, 320, 320), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        for norm in theirs.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0
        their_outputs(theirs.train(), images)  # norms take on these images' statistics
        theirs.eval()
    ours = SSDLite(Maps(theirs.backbone.features), CLASSES, score_threshold=0.4, max_detections=50).eval()
    copy_state(ours.extra, theirs.backbone.extra)
    copy_state(ours.classes, heads[0])
    copy_state(ours.deltas, heads[1])
    with torch.no_grad():
        for head in ours.classes:
            for parameter in head[-1].parameters():  # our background comes last
                anchors = parameter.view(NUM_PER_LOCATION, CLASSES + 1, -1)
                anchors.copy_(anchors.roll(-1, dims=1))
    return ours, theirs, images


def copy_state(mine, other):
    names, weights = list(mine.state_dict()), list(other.state_dict().values())
    mine.load_state_dict(dict(zip(names, weights, strict=True)))


def their_outputs(theirs, images):
    return theirs.head(list(theirs.backbone(theirs.transform(list(images / 255))[0].tensors).values()))


@torch.no_grad()
def test_outputs(pair):
    ours, theirs, images = pair
    raw, expected = ours.forward_raw(images), their_outputs(theirs, images)
    logits = torch.cat([flatten_level(level, CLASSES + 1) for level in raw["logits"]], dim=1)
    deltas = torch.cat([flatten_level(level, 4) for level in raw["deltas"]], dim=1)
    assert expected["cls_logits"].std() > 1
    # Some sixty layers: rounding alone adds up to a few 1e-4, differently on every processor.
    torch.testing.assert_close(logits.roll(1, dims=2), expected["cls_logits"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(deltas, expected["bbox_regression"], rtol=1e-3, atol=1e-3)


def test_loss(pair):
    ours, theirs, images = pair
    losses = ours(images, TARGETS)
    theirs.train()
    for module in (theirs.backbone, theirs.head):
        module.eval()  # statistics of the norms as they are in ours
    expected = theirs(list(images / 255), [target | {"labels": target["labels"] + 1} for target in TARGETS])
    theirs.eval()
    torch.testing.assert_close(losses["loss_classes"], expected["classification"], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses["loss_boxes"], expected["bbox_regression"], rtol=1e-4, atol=0)


@torch.no_grad()
def test_detections(pair):
    ours, theirs, images = pair
    found = ours(images)
    for index, expected in enumerate(theirs(list(images / 255))):
        num = len(expected["scores"])
        assert num > 3
        assert (found.scores[index] > 0).sum() == num
        torch.testing.assert_close(found.scores[index, :num], expected["scores"], rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes[index, :num], expected["boxes"], rtol=0, atol=1e-2)
        assert torch.equal(found.labels[index, :num] + 1, expected["labels"])


@pytest.mark.parametrize("image_hw", [(320, 320), (96, 64), (32, 544)])
def test_default_boxes_are_those_of_torchvision(image_hw):
    levels, hw = [], [length // 16 for length in image_hw]
    for _ in range(6):
        levels.append(torch.zeros(1, 1, *hw))
        hw = [(length + 1) // 2 for length in hw]
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    (expected,) = generator(ImageList(torch.zeros(1, 3, *image_hw), [image_hw]), levels)
    torch.testing.assert_close(torch.cat(default_boxes(levels)), expected, rtol=1e-5, atol=1e-3)


def test_every_box_gets_its_best_default_box():
    defaults = torch.tensor([[0, 0, 10, 10], [0, 0, 20, 20], [50, 50, 60, 60], [90, 90, 99, 99.0]])
    boxes = torch.tensor([
        [0, 0, 10, 9.0],  # 0.9 of the first
        [0, 0, 14, 14.0],  # 0.51 of the first, 0.49 of the second
        [52, 52, 70, 70.0],  # little of the third, but of no other more
        [52, 52, 71, 71.0],  # the same: the last one has it
        [200, 200, 210, 210.0],  # of none
    ])  # fmt: skip
    assert match(defaults, boxes[:1]).tolist() == [0, -1, -1, -1]
    assert match(defaults, boxes).tolist() == [1, -1, 3, -1]  # the first box loses its own to the second's claim
    assert match(defaults, boxes[4:]).tolist() == [BACKGROUND] * 4
    assert match(defaults, boxes[:0]).tolist() == [BACKGROUND] * 4


def test_only_the_hardest_negatives_count():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 20, 4, generator=generator) * 2
    labels = torch.full((3, 20), 3)
    labels[0, 3], labels[0, 11] = 0, 2
    labels[2, :7] = 1  # leaves less than 21 negatives
    expected = 0.0
    for logit, label in zip(logits, labels, strict=True):
        losses = F.cross_entropy(logit, label, reduction="none")
        positive = label < 3
        hardest = sorted(losses[~positive].tolist(), reverse=True)[: 3 * int(positive.sum())]
        expected += losses[positive].sum().item() + sum(hardest)
    assert mined_cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-5)
