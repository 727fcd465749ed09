"""How often a classifier is right."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import distributed, nn

from nasray.data.classification import ClassificationBatch
from nasray.devices import autocast


@torch.inference_mode()
def accuracy(
    classifier: nn.Module,
    batches: Iterable[ClassificationBatch],
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    channels_last: bool = False,
) -> dict[str, float]:
    """Return `top1` and `top5` in [0, 1] over all images of all workers; NaN without any.

    `top5` is how often the right class is among the five most probable, or among all where there are fewer.

    Args:
        classifier: Classifier in inference mode, on the device.
        batches: Batches of this worker.
        device: Device where it runs.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision.
        channels_last: Whether images are NHWC.
    """
    device = torch.device(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    counts = torch.zeros(3, dtype=torch.float64)  # images, right at once, among five
    for batch in batches:
        images = batch.images.to(device, memory_format=layout, non_blocking=True)
        with autocast(device, precision):
            logits = classifier(images)
        logits = logits.float().cpu()
        best = logits.topk(min(5, logits.shape[1])).indices == batch.labels[:, None]
        counts += torch.tensor([len(best), best[:, 0].sum(), best.sum()], dtype=torch.float64)
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        counts = counts.to(device)
        distributed.all_reduce(counts)
    images, first, five = counts.tolist()
    return {"top1": first / images, "top5": five / images} if images else {"top1": float("nan"), "top5": float("nan")}
