"""Masks and their loss are torchvision's for the same regions."""

from collections import OrderedDict

import pytest
import torch
from torchvision.models.detection.roi_heads import maskrcnn_inference, maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign

from nasray.models.backbone import Backbone
from nasray.models.detectors import losses as shared_losses
from nasray.models.detectors.mask_rcnn import MaskRCNN, mask_targets, paste_masks
from nasray.models.detectors.roi import Samples

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_HW = (64, 128)


def make_detector(**options):
    stages = [{"kernel": 3, "width": 8, "depth": 1, "stride": min(2, index + 1)} for index in range(4)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone("basic", {"kernel": 3, "width": 8, "pool": True}, stages, "stride")
        return MaskRCNN(backbone, 3, channels=16, **options)


def make_images(num=2):
    return torch.randint(0, 256, (num, 3, *IMAGE_HW), generator=torch.Generator().manual_seed(0)).float()


def make_targets():
    boxes = [torch.tensor([[10.0, 8, 60, 50], [70, 5, 120, 60]]), torch.tensor([[30.0, 20, 50, 45]])]
    y, x = torch.meshgrid(torch.arange(IMAGE_HW[0]), torch.arange(IMAGE_HW[1]), indexing="ij")
    targets = []
    for image, labels in zip(boxes, (torch.tensor([0, 2]), torch.tensor([1])), strict=True):
        x1, y1, x2, y2 = (edge[:, None, None] for edge in image.unbind(1))
        inside = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 1 / 4  # an ellipse
        targets.append({"boxes": image, "labels": labels, "masks": inside})
    return targets


def make_samples():
    """Five positives on two images, and a region of background after those of each."""
    regions = torch.tensor([
        [0, 12, 5, 62, 48], [0, 65, 5, 118, 63], [0, 8, 10, 58, 52], [0, 0, 0, 9, 9],
        [1, 28, 18, 52, 47], [1, 30, 22, 50, 45], [1, 90, 2, 99, 30],
    ])  # fmt: skip
    labels, truth = torch.tensor([0, 2, 0, 3, 1, 1, 3]), torch.tensor([0, 1, 0, 0, 0, 0, 0])
    boxes = torch.stack([make_targets()[int(x[0])]["boxes"][index] for x, index in zip(regions, truth, strict=True)])
    return Samples(regions.float(), labels, truth, boxes, positive=torch.where(labels < 3)[0])


def their_logits(detector, maps, boxes):
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2)
    levels = OrderedDict((str(level), x) for level, x in enumerate(maps))
    return detector.mask_head(pool(levels, boxes, [IMAGE_HW] * len(boxes)))


def test_loss_is_that_of_torchvision():
    detector, targets, samples = make_detector().eval(), make_targets(), make_samples()
    maps = detector.pyramid(make_images())[:-1]
    losses = detector.region_losses(maps, samples, targets)
    positive = samples.labels < 3
    boxes, truth = (
        [values[positive & (samples.regions[:, 0] == image)] for image in range(2)]
        for values in (samples.regions[:, 1:], samples.truth)
    )
    expected = maskrcnn_loss(
        their_logits(detector, maps, boxes), boxes, [x["masks"] for x in targets], [x["labels"] for x in targets], truth
    )
    torch.testing.assert_close(losses["loss_masks"], expected)


def test_targets_are_cut_out_of_masks():
    samples, targets = make_samples(), make_targets()
    masks = mask_targets(samples.regions, samples.truth, targets)
    assert masks.shape == (7, 28, 28)
    ellipse = torch.pi / 4
    assert masks[5].mean() == pytest.approx(ellipse, abs=0.03)  # the very box: its ellipse
    assert masks[0].mean() < masks[5].mean()
    assert not masks[6].any()
    assert mask_targets(samples.regions[:0], samples.truth[:0], targets).shape == (0, 28, 28)


def test_masks_are_those_of_torchvision():
    detector = make_detector(max_detections=20).eval()
    image_hw = torch.tensor([[64, 128], [50, 100]])
    with torch.no_grad():
        raw = detector.forward_raw(make_images())
        found = detector.postprocess(raw, image_hw)
        logits = their_logits(detector, raw["levels"], list(found.boxes))
    real = found.scores > 0
    assert found.masks.shape == (2, 20, 28, 28)
    assert real.sum() > 20
    expected = torch.stack(maskrcnn_inference(logits, list(found.labels))).squeeze(2)
    torch.testing.assert_close(found.masks[real], expected[real], rtol=0, atol=1e-4)
    assert not found.masks[~real].any()


def test_without_detections_there_are_no_masks():
    detector = make_detector(score_threshold=0.99).eval()
    with torch.no_grad():
        found = detector(make_images(1))
    assert found.masks.shape == (1, 100, 28, 28)
    assert not found.masks.any()


def test_every_weight_learns_even_without_positives():
    detector = make_detector().train()
    for targets in (make_targets(), [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * 2):
        losses = detector(make_images(), targets, generator=torch.Generator().manual_seed(0))
        sum(losses.values()).backward()
        assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
        assert not [name for name, weight in detector.named_parameters() if weight.grad is None]
        detector.zero_grad(set_to_none=True)
    assert losses["loss_masks"] == 0


def test_loss_is_over_the_positives_of_all_workers(monkeypatch):
    detector = make_detector().eval()
    maps = detector.pyramid(make_images())[:-1]
    alone = detector.region_losses(maps, make_samples(), make_targets())["loss_masks"]
    monkeypatch.setattr(shared_losses, "mean_over_workers", lambda count: count * 2)
    torch.testing.assert_close(detector.region_losses(maps, make_samples(), make_targets())["loss_masks"], alone / 2)


def test_boxes_without_masks_are_refused():
    targets = make_targets()
    del targets[1]["masks"]
    with pytest.raises(ValueError, match=r"images \[1\] of the batch have boxes without"):
        make_detector()(make_images(), targets)


def test_pasting():
    masks = torch.zeros(2, 28, 28)
    masks[0] = 0.9
    masks[1, :, :14] = 0.9
    pasted = paste_masks(masks, torch.tensor([[10.0, 20, 38, 48], [100, 0, 128, 28]]), IMAGE_HW)
    assert pasted.shape == (2, *IMAGE_HW)
    assert pasted.dtype == torch.bool
    assert pasted[0].sum() == pytest.approx(28 * 28, rel=0.1)
    assert pasted[0, 22:46, 12:36].all()
    assert pasted[1, :26, 101:113].all()
    assert not pasted[1, :, 116:].any()
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), IMAGE_HW).shape == (0, *IMAGE_HW)
