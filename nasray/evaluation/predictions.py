"""Detections over a data set: made, gathered from several workers, and on disk.

Shapes: D detections in all. Boxes are xyxy in pixels of the original images.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import write_atomic

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nasray.data.dataset import DetectionSet
    from nasray.data.loader import Batch


@dataclass(frozen=True, eq=False)
class Predictions:
    """D detections, those of an image from the best to the worst.

    Attributes:
        image_index: (D,) int64, position of the image in its data set.
        boxes: (D, 4) float32 xyxy in pixels of the original image.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int64.
        masks: Run lengths of each as COCO has them, or None where the detector finds none.
    """

    image_index: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def join(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return all detections of several sets, by image; those of an image keep their order."""
        if not parts:
            empty = np.empty(0, dtype=np.int64)
            return cls(empty, np.empty((0, 4), np.float32), np.empty(0, np.float32), empty)
        image_index = np.concatenate([part.image_index for part in parts])
        order = np.argsort(image_index, kind="stable")
        masks = None
        if all(part.masks is not None for part in parts):
            together = [mask for part in parts for mask in part.masks or ()]
            masks = [together[place] for place in order]
        return cls(
            image_index[order],
            np.concatenate([part.boxes for part in parts])[order],
            np.concatenate([part.scores for part in parts])[order],
            np.concatenate([part.labels for part in parts])[order],
            masks,
        )

    def to_coco(self, dataset: DetectionSet) -> list[dict[str, Any]]:
        """Return the results as COCO has them: `bbox` is x, y, width, height."""
        image_ids = dataset.image_ids[self.image_index].tolist()
        category_ids = np.asarray(dataset.category_ids)[self.labels].tolist()
        boxes = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1).tolist()
        columns = zip(image_ids, category_ids, boxes, self.scores.tolist(), strict=True)
        results: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for image_id, category_id, box, score in columns
        ]
        for result, mask in zip(results, self.masks or (), strict=False):
            result["segmentation"] = mask
        return results

    def write(self, path: Path, dataset: DetectionSet) -> None:
        """Write a Parquet file: a row a detection, with image id and file, class, score and box."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {
                "image_id": dataset.image_ids[self.image_index],
                "file": [dataset.files.name(index) for index in self.image_index.tolist()],
                "class": [dataset.classes[label] for label in self.labels.tolist()],
                "score": self.scores,
                **{name: self.boxes[:, column] for column, name in enumerate(("x_min", "y_min", "x_max", "y_max"))},
            }
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        write_atomic(path, sink.getvalue())


def predict(
    detector: Callable[..., Any],
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    channels_last: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Return what a detector finds.

    Args:
        detector: Detector in inference mode, on the device, or what is called alike.
        batches: Batches of an `EvaluationLoader`.
        device: Device where it runs.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision.
        channels_last: Whether images are NHWC.
        progress: Function called with the number of images done, after each batch.
    """
    import torch

    from nasray.devices import autocast

    device = torch.device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    parts, done = [], 0
    with torch.inference_mode():
        for batch in batches:
            images = batch.images.to(device, memory_format=layout, non_blocking=True)
            with autocast(device, precision):
                found = detector(images, image_hw=batch.image_hw.to(device))
            parts.append(_kept(found, batch))
            done += len(images)
            if progress is not None:
                progress(done)
    return Predictions.join(parts)


def _kept(found: Any, batch: Batch) -> Predictions:
    """Return the detections of a batch in the original images; without those that fill up."""
    factor = batch.original_hw / batch.image_hw  # (B, 2)
    scale = factor[:, [1, 0, 1, 0]].float()[:, None]
    limit = batch.original_hw[:, [1, 0, 1, 0]].float()[:, None]
    boxes = (found.boxes.float().cpu() * scale).clamp(min=0).minimum(limit)
    scores = found.scores.float().cpu()
    image, place = (scores > 0).nonzero(as_tuple=True)
    masks = None
    if found.masks is not None:
        masks = _run_lengths(found.masks.float().cpu()[image, place], boxes[image, place], batch.original_hw[image])
    return Predictions(
        batch.indices[image].numpy(),
        boxes[image, place].numpy(),
        scores[image, place].numpy(),
        found.labels.cpu()[image, place].numpy(),
        masks,
    )


def _run_lengths(masks: Tensor, boxes: Tensor, image_hw: Tensor) -> list[dict[str, Any]]:
    """Return COCO's run lengths of (D, M, M) probabilities within (D, 4) boxes of images of (D, 2) pixels."""
    from pycocotools import mask as coco_mask

    from nasray.models.detectors.mask_rcnn import paste_masks

    encoded = []
    for mask, box, (height, width) in zip(masks, boxes, image_hw.tolist(), strict=True):
        whole = paste_masks(mask[None], box[None], (height, width))[0].numpy()
        lengths = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
        encoded.append({"size": list(lengths["size"]), "counts": lengths["counts"].decode()})
    return encoded


def gather(predictions: Predictions) -> Predictions:
    """Return the detections of all workers, in each of them; the predictions themselves where there is but one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return predictions
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, predictions)
    return Predictions.join(parts)
