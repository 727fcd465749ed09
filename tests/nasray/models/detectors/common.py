"""What the tests of detectors share: a tiny network, a few drawn images, a short training, and exports."""

import numpy as np
import onnxruntime
import torch

from nasray.data.shapes import CLASSES, draw_image
from nasray.evaluation.coco import coco_metrics_of
from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.spaces import Architecture

TINY = Architecture.create(
    "basic",
    {
        "stem": {"kernel": 3, "width": 16},
        "stages": [{"kernel": 3, "width": width, "depth": 1, "stride": 2} for width in (16, 32, 48, 64)],
    },
)
OPTIONS = {
    "fcos": {"channels": 32, "num_convs": 1},
    "retinanet": {"channels": 32, "num_convs": 1, "base_size": 16},
    "gfl": {"channels": 32, "num_convs": 1},
    "ssdlite": {},
    "yolof": {"channels": 32, "base_size": 16},
    "faster-rcnn": {"channels": 16},
    "mask-rcnn": {"channels": 16},
}
"""Of each detector, so that it is small; by default only `channels` is 32."""
IMAGE_HW = {"yolof": (160, 160)}
"""Of images that are learned by heart; by default (96, 96), on which YOLOF has nine locations for up to six shapes."""
STEPS = {"faster-rcnn": 60, "mask-rcnn": 60}
"""Of learning by heart; by default 100."""


def tiny_backbone(seed=0):
    """Maps of reduction 4 to 32 with 16 to 64 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(TINY)


def tiny_detector(name, seed=0, **options):
    """A small detector of the three classes of shapes, on the tiny backbone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = build_detector(name, build(TINY), len(CLASSES), **OPTIONS.get(name, {"channels": 32}) | options)
    if hasattr(detector, "region_samples"):
        detector.region_samples = 64  # instead of 512: an eighth of the time
    return detector


def shapes_batch(num=8, image_hw=(96, 96), seed=0):
    """Images (num, 3, H, W) uint8, and their targets with boxes, labels and masks."""
    images, targets = [], []
    for index in range(num):
        image, boxes, labels, masks = draw_image(np.random.default_rng([seed, index]), image_hw, with_masks=True)
        images.append(torch.from_numpy(image))
        targets.append({name: torch.from_numpy(value) for name, value in
                        {"boxes": boxes, "labels": labels, "masks": masks}.items()})  # fmt: skip
    return torch.stack(images), targets


def framed(images, image_hw):
    """Images, cut to a size where they are larger, and in a gray frame on the right and below where smaller."""
    height, width = image_hw
    frame = images.new_full((*images.shape[:2], height, width), 114)
    cut = images[..., :height, :width]
    frame[..., : cut.shape[2], : cut.shape[3]] = cut
    return frame


def without_boxes(target):
    """The target of an image that has none."""
    return {name: value[:0] for name, value in target.items()}


def total_loss(detector, images, targets, seed=0):
    return sum(detector(images, targets, generator=torch.Generator().manual_seed(seed)).values())


def overfit(detector, images, targets, steps=100, learning_rate=3e-3):
    """Train on one batch, with a rate that rises over ten steps and falls for the last fifth; give the losses."""
    detector.train()
    optimizer = torch.optim.AdamW(detector.parameters(), learning_rate)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, (step + 1) / 10) * (1 if step < 0.8 * steps else 0.1)
        loss = total_loss(detector, images, targets, seed=step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    detector.eval()
    return losses


@torch.no_grad()
def detect(detector, images, image_hw=None):
    return detector.eval()(images, image_hw=image_hw)


def ap50(detections, targets):
    """COCO's AP at an IoU of 0.5, by pycocotools."""
    truth = {"images": [{"id": index} for index in range(len(targets))],
             "categories": [{"id": label} for label in range(len(CLASSES))], "annotations": []}  # fmt: skip
    results = []
    for index, target in enumerate(targets):
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "image_id": index, "category_id": label,
                                         "bbox": _xywh(box), "area": _area(box), "iscrowd": 0})  # fmt: skip
        found = zip(*(part[index].tolist() for part in detections[:3]), strict=True)
        results += [{"image_id": index, "category_id": label, "bbox": _xywh(box), "score": score}
                    for box, score, label in found if score > 0]  # fmt: skip
    return coco_metrics_of(truth, results).summary["AP50"]


def _xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


class EndToEnd(torch.nn.Module):
    """Images to boxes, scores, labels, and masks where there are any, as it is exported."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        return tuple(part for part in self.detector(images) if part is not None)


def export(module, path, batch_size=1, image_hw=(544, 640)):
    """An onnxruntime session of a module exported with dynamic height and width, and batch if it is more than 1.

    No level of the example, with up to 512 pixels between two of its own, may be one pixel high or wide: an export
    takes that for a fixed size. The graph stays as it was exported, since the optimizer takes half as long again; what
    `nasray export` writes is optimized, and compared in test_detector_export.py.
    """
    dynamic = torch.export.Dim.DYNAMIC
    axes = {2: dynamic, 3: dynamic} | ({0: dynamic} if batch_size > 1 else {})
    images = torch.zeros(batch_size, 3, *image_hw)
    torch.onnx.export(
        module.eval(), (images,), path, dynamo=True, dynamic_shapes=(axes,), optimize=False, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def run(session, images):
    """Outputs of a session as tensors."""
    return [torch.from_numpy(output) for output in session.run(None, {session.get_inputs()[0].name: images.numpy()})]
