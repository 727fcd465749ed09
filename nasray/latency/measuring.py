"""Latency of a whole network, measured."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.latency.setting import Setting, placed, random_images
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import torch
    from torch import nn


def measure(
    network: nn.Module,
    image_hw: tuple[int, int],
    *,
    batch_size: int = 1,
    device: str = "auto",
    dtype: str = "float32",
    warmup: int = 3,
    repeats: int = 20,
    channels_last: bool = False,
) -> dict[str, Any]:
    """Measure one pass of a network in inference mode, each pass waited for before the next begins.

    Timed by CUDA events on a GPU, by `time.perf_counter` on a CPU. The network itself is left as it is.

    Args:
        network: Network from (B, 3, H, W) images to anything.
        image_hw: Height and width in pixels.
        batch_size: Images in one pass.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "float16" or "bfloat16"; weights are converted too.
        warmup: Passes that do not count, at least 1.
        repeats: Passes that count, at least 1.
        channels_last: Whether images and weights are NHWC, which is faster on tensor cores.

    Returns:
        `median_ms`, `spread_ms` (the interquartile range) and `min_ms` of a pass of the whole batch; `fps` (images in
        a second, from the median); `repeats`; and the `Setting`.

    Raises:
        NasrayError: for what the device cannot do.
    """
    if warmup < 1 or repeats < 1:
        raise NasrayError(f"warmup and repeats are at least 1; got {warmup} and {repeats}")
    setting = Setting.here(image_hw, batch_size=batch_size, device=device, dtype=dtype, channels_last=channels_last)
    network = placed(copy.deepcopy(network), setting)
    images = random_images(setting, (batch_size, 3, *setting.image_hw))
    try:
        passes_ms = timed_ms(network, (images,), setting, warmup=warmup, repeats=repeats)
    except RuntimeError as error:  # of a GPU torch.cuda.OutOfMemoryError, which is one
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        raise NasrayError(
            f"{setting.device_name} has too little memory for {batch_size} images of {image_hw[0]}x{image_hw[1]}. "
            "Lower the batch size or the image size"
        ) from error
    low, median, high = np.quantile(passes_ms, [0.25, 0.5, 0.75]).tolist()
    return {
        "median_ms": median,
        "spread_ms": high - low,
        "min_ms": min(passes_ms),
        "fps": 1000.0 * batch_size / median,
        "repeats": repeats,
        **setting.description(),
    }


def timed_ms(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    setting: Setting,
    *,
    warmup: int,
    repeats: int,
    back_to_back: bool = False,
) -> list[float]:
    """Return the milliseconds of every pass; `back_to_back` lets a GPU begin one before the last is waited for."""
    import torch

    with torch.inference_mode():
        for _ in range(warmup):
            module(*inputs)
        if setting.device == "cpu":
            passes_ms = []
            for _ in range(repeats):
                begin = time.perf_counter()
                module(*inputs)
                passes_ms.append(1e3 * (time.perf_counter() - begin))
            return passes_ms
        torch.cuda.synchronize()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for begin_event, end_event in events:
            begin_event.record()
            module(*inputs)
            end_event.record()
            if not back_to_back:
                end_event.synchronize()
        torch.cuda.synchronize()
        return [begin_event.elapsed_time(end_event) for begin_event, end_event in events]
