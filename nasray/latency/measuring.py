"""Latency of a whole network, measured."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.devices import computing_threads
from nasray.latency.setting import Setting, placed, random_images, reference_of
from nasray.latency.steadiness import Look, judge
from nasray.runtimes import RUNTIMES
from nasray.spaces import Architecture, NasrayError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nasray.runtimes.base import Program

NUM_LOOKS = 15
"""Passes of the reference at each look, a tenth of a second."""


def measure(
    network: nn.Module, image_hw: tuple[int, int], *, warmup: int = 3, repeats: int = 20, **setting: Any
) -> dict[str, Any]:
    """Measure one pass of a network in inference mode, each pass waited for before the next begins.

    Timed by CUDA events on a GPU, by `time.perf_counter` on a CPU. The network itself is left as it is.

    Args:
        network: Network from (B, 3, H, W) images to anything.
        image_hw: Height and width in pixels.
        warmup: Passes that do not count, at least 1.
        repeats: Passes that count, at least 1.
        setting: `batch_size`, `device`, `dtype`, `runtime`, `threads` and `channels_last` of `Setting.here`.

    Returns:
        As `measure_program`.

    Raises:
        NasrayError: for what the device or the runtime cannot do.
    """
    here = Setting.here(image_hw, **setting)
    return measure_program(prepared(network, here), here, warmup=warmup, repeats=repeats)


def prepared(network: nn.Module, setting: Setting, calibration: Sequence[torch.Tensor] = ()) -> Program:
    """Return a copy of a network as the setting's runtime runs it.

    Args:
        network: Network from (B, 3, H, W) images to anything.
        setting: Where and how it is to run.
        calibration: Images (1, 3, H, W) for the ranges of "int8"; random ones if there are none, which do for latency.

    Raises:
        NasrayError: if the runtime cannot run the network, or there is too little memory.
    """
    runtime = RUNTIMES.part(setting.runtime)()
    images = random_images(setting, (setting.batch_size, 3, *setting.image_hw))
    network = placed(copy.deepcopy(network), setting)
    with _threads(setting), _enough_memory(setting):
        program: Program = runtime.prepare(
            network, (images,), dtype=setting.dtype, threads=setting.threads, calibration=calibration
        )
    return program


def measure_program(program: Program, setting: Setting, *, warmup: int = 3, repeats: int = 20) -> dict[str, Any]:
    """Measure what `prepared` returned, and a reference before and after it.

    Args:
        program: Prepared network.
        setting: Setting that it was prepared for.
        warmup: Passes that do not count, at least 1.
        repeats: Passes that count, at least 1.

    Returns:
        `median_ms`, `spread_ms` (the interquartile range) and `min_ms` of a pass of the whole batch; `fps` (images in
        a second, from the median); `repeats`; `reference_ms`, `change_percent` and `noise_percent` of `Steadiness`; and
        the `Setting`.

    Raises:
        NasrayError: if there is too little memory.
    """
    if warmup < 1 or repeats < 1:
        raise NasrayError(f"warmup and repeats are at least 1; got {warmup} and {repeats}")
    images = random_images(setting, (setting.batch_size, 3, *setting.image_hw))
    with _enough_memory(setting):
        before = look(setting)
        passes_ms = timed_ms(program, (images,), setting, warmup=warmup, repeats=repeats)
        looks = [before, look(setting)]
    low, median, high = np.quantile(passes_ms, [0.25, 0.5, 0.75]).tolist()
    return {
        "median_ms": median,
        "spread_ms": high - low,
        "min_ms": min(passes_ms),
        "fps": 1000.0 * setting.batch_size / median,
        "repeats": repeats,
        **judge(looks).figures(),
        **setting.description(),
    }


def look(setting: Setting) -> Look:
    """Time the reference of a setting's device."""
    module, inputs, own = reference_of(setting)
    passes_ms = timed_ms(module, inputs, own, warmup=2, repeats=NUM_LOOKS)
    return Look(*np.quantile(passes_ms, [0.1, 0.5, 0.9]).tolist())


def timed_ms(
    program: Program,
    inputs: tuple[torch.Tensor, ...],
    setting: Setting,
    *,
    warmup: int,
    repeats: int,
    back_to_back: bool = False,
) -> list[float]:
    """Return the milliseconds of every pass; `back_to_back` lets a GPU begin one before the last is waited for."""
    import torch

    with torch.inference_mode(), _threads(setting):
        for _ in range(warmup):
            program(*inputs)
        if setting.device == "cpu":
            passes_ms = []
            for _ in range(repeats):
                begin = time.perf_counter()
                program(*inputs)
                passes_ms.append(1e3 * (time.perf_counter() - begin))
            return passes_ms
        torch.cuda.synchronize()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for begin_event, end_event in events:
            begin_event.record()
            program(*inputs)
            end_event.record()
            if not back_to_back:
                end_event.synchronize()
        torch.cuda.synchronize()
        return [begin_event.elapsed_time(end_event) for begin_event, end_event in events]


def without_drawing(build: Callable[[Architecture], nn.Module], architecture: Architecture) -> nn.Module:
    """Return the network, with the user's random state left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return build(architecture)


def _threads(setting: Setting) -> AbstractContextManager[None]:
    return computing_threads(setting.threads) if setting.threads else nullcontext()


@contextmanager
def _enough_memory(setting: Setting) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of a GPU torch.cuda.OutOfMemoryError, which is one
        if "alloc" not in str(error) and "out of memory" not in str(error):
            raise
        height, width = setting.image_hw
        raise NasrayError(
            f"{setting.device_name} has too little memory for {setting.batch_size} images of {height}x{width}. Lower "
            "the batch size or the image size"
        ) from error
