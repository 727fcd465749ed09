"""RetinaNet is torchvision's, with the same weights: outputs, loss of one image, detections."""

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from nasray.architectures import ARCHITECTURES
from nasray.models import build
from nasray.models.detectors.heads import flatten_level
from nasray.models.detectors.retinanet import RetinaNet, octaves

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = 7
IMAGE_HW = (128, 256)  # torchvision guesses strides from the sizes of image and level, right for multiples of 128
TARGET = {
    "boxes": torch.tensor([[20, 30, 90, 100], [100, 10, 240, 120], [5, 5, 30, 25.0]]),
    "labels": torch.tensor([2, 0, 6]),
}


@pytest.fixture(scope="module")
def pair(one_thread):
    """Ours and torchvision's with the same weights, and an image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=CLASSES, min_size=IMAGE_HW[0], max_size=IMAGE_HW[1],
            detections_per_img=100,
        ).eval()  # fmt: skip
        torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.04)  # scores of 0 to 0.9
        ours = RetinaNet(build(ARCHITECTURES["resnet50"]), CLASSES).eval()
    head = theirs.head
    for mine, other in (
        (ours.backbone, theirs.backbone.body),
        (ours.neck, theirs.backbone.fpn),
        (ours.head.trunk.class_tower, head.classification_head.conv),
        (ours.head.classes, head.classification_head.cls_logits),
        (ours.head.trunk.box_tower, head.regression_head.conv),
        (ours.head.deltas, head.regression_head.bbox_reg),
    ):
        names, weights = list(mine.state_dict()), list(other.state_dict().values())
        mine.load_state_dict(dict(zip(names, weights, strict=True)))
    image = torch.randint(0, 256, (1, 3, *IMAGE_HW), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ours, theirs, image


def their_outputs(theirs, image):
    return theirs.head(list(theirs.backbone(theirs.transform(list(image / 255))[0].tensors).values()))


@torch.no_grad()
def test_outputs(pair):
    ours, theirs, image = pair
    raw, expected = ours.forward_raw(image), their_outputs(theirs, image)
    for name, other, width in (("logits", "cls_logits", CLASSES), ("deltas", "bbox_regression", 4)):
        flat = torch.cat([flatten_level(level, width) for level in raw[name]], dim=1)
        assert expected[other].std() > 1e-3
        torch.testing.assert_close(flat, expected[other], rtol=1e-4, atol=1e-4)


def test_loss_of_one_image(pair):
    ours, theirs, image = pair
    losses = ours(image, [TARGET])
    theirs.train()
    for module in theirs.backbone.modules():
        module.eval()  # statistics of the norms as they are in ours
    expected = theirs(list(image / 255), [TARGET])
    theirs.eval()
    torch.testing.assert_close(losses["loss_classes"], expected["classification"], rtol=1e-4, atol=0)
    torch.testing.assert_close(losses["loss_boxes"], expected["bbox_regression"], rtol=1e-4, atol=0)


@torch.no_grad()
def test_detections(pair):
    ours, theirs, image = pair
    found, expected = ours(image), theirs(list(image / 255))[0]
    assert len(expected["scores"]) == 100
    torch.testing.assert_close(found.scores[0], expected["scores"], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.boxes[0], expected["boxes"], rtol=0, atol=1e-2)
    assert torch.equal(found.labels[0], expected["labels"])


def test_octaves_are_those_of_torchvision():
    assert [octaves(size) for size in (32, 512)] == [[32, 40, 50], [512, 645, 812]]
