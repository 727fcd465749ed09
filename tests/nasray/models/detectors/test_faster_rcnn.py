"""Faster R-CNN as a whole: torchvision's with the same weights has the same losses and detections."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from nasray.architectures import ARCHITECTURES
from nasray.models import build
from nasray.models.backbone import Backbone
from nasray.models.detectors import losses as shared_losses
from nasray.models.detectors.faster_rcnn import FasterRCNN
from nasray.models.detectors.pooling import Groups
from nasray.models.pixels import PIXEL_MEAN, PIXEL_STD

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_HW = (64, 128)  # a multiple of 64, else torchvision's anchors of P6 are not 64 pixels apart


def make_backbone(width=8, **options):
    stages = [{"kernel": 3, "width": width, "depth": 1, "stride": min(2, index + 1)} for index in range(4)]
    return Backbone("basic", {"kernel": 3, "width": width, "pool": True}, stages, "stride", **options)


def make_detector(kind=FasterRCNN, num_classes=3, seed=0, **options):
    """Narrow, with weights that tell classes apart a little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = kind(make_backbone(), num_classes, channels=16, **options)
        for layer, deviation in ((detector.box_head.classes, 0.06), (detector.box_head.boxes, 0.05)):
            nn.init.normal_(layer.weight, std=deviation)
        nn.init.normal_(detector.rpn.cls_logits.weight, std=0.3)
        nn.init.normal_(detector.rpn.bbox_pred.weight, std=0.05)
    return detector


def make_images(num=2, image_hw=IMAGE_HW):
    images = torch.randint(0, 256, (num, 3, *image_hw), generator=torch.Generator().manual_seed(0))
    return images.float()


def make_targets():
    boxes = [torch.tensor([[10.0, 8, 60, 50], [70, 5, 120, 60]]), torch.tensor([[30.0, 20, 50, 45]])]
    masks = []
    for image in boxes:
        masks.append(torch.zeros(len(image), *IMAGE_HW, dtype=torch.bool))
        for mask, (x1, y1, x2, y2) in zip(masks[-1], image.int().tolist(), strict=True):
            mask[y1 + 3 : y2 - 5, x1:x2] = True
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    return [
        {"boxes": box, "labels": label, "masks": mask} for box, label, mask in zip(boxes, labels, masks, strict=True)
    ]


class TheirBackbone(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.detector, self.out_channels = detector, 16

    def forward(self, images):
        maps = list(self.detector.backbone(images).values())
        return OrderedDict((str(level), x) for level, x in enumerate(self.detector.neck(maps)))


class TheirPredictor(nn.Module):
    """With the background first, as torchvision has it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        deltas = self.head.boxes(x)
        return self.head.classes(x).roll(1, dims=1), torch.cat([torch.zeros_like(deltas[:, :4]), deltas], dim=1)


def their_twin(detector, kind=TheirFasterRCNN, **parts):
    """Torchvision's detector around the very modules of ours."""
    twin = kind(
        TheirBackbone(detector), rpn_head=detector.rpn,
        rpn_anchor_generator=AnchorGenerator(tuple((2**level,) for level in range(5, 10)), ((0.5, 1.0, 2.0),) * 5),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2), box_head=detector.box_head.layers,
        box_predictor=TheirPredictor(detector.box_head), min_size=min(IMAGE_HW), max_size=max(IMAGE_HW),
        image_mean=[x / 255 for x in PIXEL_MEAN], image_std=[x / 255 for x in PIXEL_STD], box_score_thresh=0.3, **parts,
    )  # fmt: skip
    twin.transform.torch_choice = lambda sizes: sizes[0]  # else it draws a random number
    return twin


def their_losses(twin, seed):
    """Torchvision's losses, whose samples are of torch's own random state and whose first label is 1."""
    targets = [{**target, "labels": target["labels"] + 1, "masks": target["masks"].byte()} for target in make_targets()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return twin.train()(list(make_images() / 255), targets)


@pytest.mark.parametrize("box_head", ["2fc", "4conv1fc"])
def test_losses_are_those_of_torchvision(box_head):
    detector = make_detector(box_head=box_head).train()
    losses = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(7))
    theirs = their_losses(their_twin(detector), 7)
    names = {
        "loss_objectness": "loss_objectness", "loss_proposals": "loss_rpn_box_reg", "loss_classes": "loss_classifier",
        "loss_boxes": "loss_box_reg",
    }  # fmt: skip
    assert set(losses) == set(names)
    for name, their_name in names.items():
        assert losses[name] > 0
        torch.testing.assert_close(losses[name], theirs[their_name], rtol=1e-4, atol=1e-6)


def test_detections_are_those_of_torchvision():
    detector = make_detector(score_threshold=0.3).eval()
    with torch.no_grad():
        found = detector(make_images())
        theirs = their_twin(detector).eval()(list(make_images() / 255))
    for image, expected in enumerate(theirs):
        count = len(expected["scores"])
        assert 5 < count <= 100
        torch.testing.assert_close(found.scores[image, :count], expected["scores"], rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes[image, :count], expected["boxes"], rtol=0, atol=1e-2)
        assert (found.labels[image, :count] == expected["labels"] - 1).all()
        assert not found.scores[image, count:].any()


@pytest.mark.parametrize(
    ("name", "without_stem", "published"),
    [("resnet18", False, 145.45e9), ("resnet34", True, 182.20e9), ("resnet50", True, 197.33e9)],
)
def test_macs_of_encoder_and_proposals(name, without_stem, published):
    # MSNAS, table 1, at 832 x 1280: the stem counts for ResNet-18 alone; its RPN has two outputs for an anchor's class.
    with torch.device("meta"):
        detector = FasterRCNN(build(ARCHITECTURES[name]), 80)
        images = torch.empty(1, 3, 832, 1280)
    with FlopCounterMode(display=False) as counter:
        detector.objectness(detector.pyramid(images))
    stem = without_stem * 3 * 64 * 49 * 416 * 640
    assert counter.get_total_flops() / 2 - stem == pytest.approx(published, rel=0.01)


def test_macs_of_the_whole_are_counted_without_memory():
    with torch.device("meta"):
        detector = FasterRCNN(make_backbone(), 3, channels=16)
        images = torch.empty(1, 3, 64, 128)
        with FlopCounterMode(display=False) as whole:
            raw = detector.forward_raw(images)
        with FlopCounterMode(display=False) as before:
            detector.objectness(detector.pyramid(images))
    assert raw["logits"].shape == (1, 1000, 4)
    head = 16 * 49 * 1024 + 1024 * 1024 + 1024 * (4 + 12)
    assert (whole.get_total_flops() - before.get_total_flops()) / 2 == 1000 * head


@pytest.mark.parametrize("options", [
    {}, {"box_head": "4conv1fc", "norm": "batch"}, {"box_head": "2conv1fc", "norm": "group"}, {"first_level": 3},
])  # fmt: skip
def test_every_weight_learns(options):
    detector = make_detector(**options).train()
    losses = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0))
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
    assert not [name for name, weight in detector.named_parameters() if weight.grad is None]


def test_images_without_boxes():
    detector = make_detector().train()
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2
    losses = detector(make_images(), empty)
    sum(losses.values()).backward()
    assert losses["loss_boxes"] == losses["loss_proposals"] == 0
    assert losses["loss_classes"] > 0
    assert losses["loss_objectness"] > 0
    # No gradient is missing: workers of one training must all have the same.
    assert not [name for name, weight in detector.named_parameters() if weight.grad is None]


def test_losses_in_low_precision():
    detector = make_detector().train()
    exact = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert sum(losses.values()).item() == pytest.approx(sum(exact.values()).item(), rel=0.1)


def test_the_generator_draws_the_samples():
    # Fewer regions than there are: else all are taken, and only the order of sums is random.
    detector = make_detector(region_samples=24).eval()  # batch norms do not move
    first, again, other = (
        detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again)
    for name in ("loss_objectness", "loss_classes", "loss_boxes"):
        assert abs(first[name] - other[name]) > 1e-3 * first[name], name  # more than rounding


def test_regions_of_smaller_images_have_a_smaller_base():
    losses = []
    for base in (224.0, 28.0):  # all boxes belong to P2; or those of 25 to 60 pixels to P4 and P5
        detector = make_detector(region_base=base).eval()
        assert detector.groups == Groups((4, 8, 16, 32), 2, base)
        losses.append(detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(losses[0]["loss_objectness"], losses[1]["loss_objectness"])
    assert losses[0]["loss_boxes"] != losses[1]["loss_boxes"]


def test_losses_are_over_the_samples_of_all_workers(monkeypatch):
    detector = make_detector().eval()
    alone = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(shared_losses, "mean_over_workers", lambda count: count * 2)
    shared = detector(make_images(), make_targets(), generator=torch.Generator().manual_seed(0))
    for name, loss in alone.items():
        torch.testing.assert_close(shared[name], loss / 2)


def test_detections_stay_in_the_image():
    detector = make_detector(score_threshold=0.3, max_detections=200).eval()
    image_hw = torch.tensor([[40, 100], [64, 128]])
    with torch.no_grad():
        found = detector(make_images(), image_hw=image_hw)
    real = found.scores > 0
    assert real[0].any()
    assert real[1].any()
    x2, y2 = found.boxes[0, real[0]][:, 2:].unbind(1)
    assert x2.max() <= 100
    assert y2.max() <= 40
    extents = found.boxes[real][:, 2:] - found.boxes[real][:, :2]
    assert extents.min() > 0


def test_export_form_is_equal(monkeypatch):
    detector, images = make_detector().eval(), make_images(1)
    with torch.no_grad():
        raw = detector.forward_raw(images)
        found = detector(images)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        padded = detector.forward_raw(images)
        exported = detector(images)
    num = raw["proposals"].shape[1]
    assert padded["logits"].shape == (1, 1000, 4)
    assert padded["deltas"].shape == (1, 1000, 3, 4)
    real = raw["proposal_scores"] > 0
    for name in raw:
        torch.testing.assert_close(padded[name][:, :num][real], raw[name][real], rtol=0, atol=1e-4)
    for ours, theirs in zip(exported[:3], found[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("options", "message"), [
    ({"box_head": "fc"}, "box_head is one of 2fc"), ({"norm": "layer"}, "norm is one of"),
    ({"first_level": 4}, "first_level is 2 or 3, got 4"),
])  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        FasterRCNN(make_backbone(), 3, channels=16, **options)


def test_backbone_without_the_first_level():
    with pytest.raises(ValueError, match=r"lacks \[4\]"):
        FasterRCNN(make_backbone(out_levels=(3, 4, 5)), 3, channels=16)
    assert FasterRCNN(make_backbone(out_levels=(3, 4, 5)), 3, channels=16, first_level=3)
