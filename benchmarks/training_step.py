"""Our training step beside that of torchvision's reference model: same detector, backbone, batch, optimizer, one run.

    python benchmarks/training_step.py --detectors fcos retinanet faster-rcnn --image-size 320x416

Steps alternate between the two, so that a busy machine slows both; the ratio is that of the medians. Peak memory is
that of processes of their own, less what they hold before the first step; they alternate too, and it is their median,
since one differs from the next by several percent.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from nasray.architectures import ARCHITECTURES
from nasray.cluster.files import to_json
from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.values import read_image_hw

THEIRS = {
    "fcos": torchvision.models.detection.fcos_resnet50_fpn,
    "retinanet": torchvision.models.detection.retinanet_resnet50_fpn,
    "faster-rcnn": torchvision.models.detection.fasterrcnn_resnet50_fpn,
}
NUM_CLASSES = 80


def make_batch(size: int, image_hw: tuple[int, int]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Random images (B, 3, H, W) of values 0 to 255 and seven boxes each, COCO's mean."""
    rng = np.random.default_rng(0)
    height, width = image_hw
    images = torch.from_numpy(rng.integers(0, 256, (size, 3, height, width), dtype=np.uint8))
    targets = []
    for _ in range(size):
        center = rng.uniform(0.2, 0.8, (7, 2)) * (width, height)
        extent = rng.uniform(0.1, 0.35, (7, 2)) * (width, height) / 2
        boxes = np.concatenate([center - extent, center + extent], axis=1).clip(0, [width, height, width, height])
        labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, 7))
        targets.append({"boxes": torch.from_numpy(boxes).float(), "labels": labels})
    return images, targets


def our_step(name: str, images: Tensor, targets: list[dict[str, Tensor]], layout: torch.memory_format) -> Any:
    """Return a function that makes one training step of nasray's detector, and its number of parameters."""
    detector = build_detector(name, build(ARCHITECTURES["resnet50"]), NUM_CLASSES).train().to(memory_format=layout)
    images = images.contiguous(memory_format=layout)
    return _step(detector, lambda: detector(images, targets)), _count(detector)


def their_step(name: str, images: Tensor, targets: list[dict[str, Tensor]]) -> Any:
    """Return the same of torchvision's, whose own transform is set to leave the size of the images alone."""
    height, width = images.shape[-2:]
    sizes: dict[str, Any] = {"min_size": min(height, width), "max_size": max(height, width)}
    classes = NUM_CLASSES + (name == "faster-rcnn")
    model = THEIRS[name](weights=None, weights_backbone=None, num_classes=classes, **sizes).train()
    their_images = list(images.float() / 255)
    shift = int(name == "faster-rcnn")  # torchvision's label 0 is the background there
    their_targets = [{**target, "labels": target["labels"] + shift} for target in targets]
    return _step(model, lambda: model(their_images, their_targets)), _count(model)


def _step(model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> Callable[[], float]:
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> float:
        begin = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(losses().values())).sum().backward()
        optimizer.step()
        return time.perf_counter() - begin

    return step


def _count(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def make(whose: str, name: str, options: argparse.Namespace) -> Any:
    """Return the step of "ours", "ours-nchw" or "torchvision"."""
    images, targets = make_batch(options.batch_size, read_image_hw(options.image_size))
    if whose == "torchvision":
        return their_step(name, images, targets)
    layout = torch.contiguous_format if whose == "ours-nchw" else torch.channels_last
    return our_step(name, images, targets, layout)


def peak_mib(whose: str, name: str, options: argparse.Namespace) -> float:
    """Peak memory of three steps in a fresh process."""
    command = [sys.executable, __file__, "--alone", whose, "--detectors", name, "--image-size", options.image_size]
    command += ["--batch-size", str(options.batch_size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def alone(whose: str, name: str, options: argparse.Namespace) -> float:
    """In the fresh process: the rise of peak memory over three steps, in MiB."""
    step, _ = make(whose, name, options)
    before = _memory_mib("VmRSS")
    for _ in range(3):
        step()
    return _memory_mib("VmHWM") - before


def _memory_mib(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detectors", nargs="+", default=list(THEIRS), choices=list(THEIRS))
    parser.add_argument("--image-size", default="320x416")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=9, help="of each, whose peak memory is taken")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(alone(options.alone, options.detectors[0], options))
        return
    rows = []
    for name in options.detectors:
        kinds = ("ours", "ours-nchw", "torchvision")
        steps = {whose: make(whose, name, options) for whose in kinds}
        for step, _ in steps.values():
            step()
        seconds: dict[str, list[float]] = {whose: [] for whose in kinds}
        for _ in range(options.rounds):
            for whose, (step, _) in steps.items():
                seconds[whose].append(step())
        speed = {whose: options.batch_size / statistics.median(values) for whose, values in seconds.items()}
        peaks: dict[str, list[float]] = {"ours": [], "torchvision": []}
        for _ in range(options.processes):
            for whose, values in peaks.items():
                values.append(peak_mib(whose, name, options))
        memory = {whose: statistics.median(values) for whose, values in peaks.items()}
        rows.append(
            {
                "detector": name,
                "images_per_s": speed,
                "peak_mib": memory,
                "peaks_mib": peaks,
                "speed_ratio": speed["ours"] / speed["torchvision"],
                "speed_ratio_nchw": speed["ours-nchw"] / speed["torchvision"],
                "memory_ratio": memory["ours"] / memory["torchvision"],
                "params_m": {whose: params for whose, (_, params) in steps.items()},
            }
        )
    setting = {"image_size": options.image_size, "batch_size": options.batch_size, "threads": torch.get_num_threads()}
    if options.json:
        print(to_json({**setting, "detectors": rows}, indent=1))
        return
    print(f"resnet50, {options.image_size}, batch {options.batch_size}, {setting['threads']} threads")
    for row in rows:
        print(
            f"{row['detector']:12} images/s: ours {row['images_per_s']['ours']:.2f} (NCHW "
            f"{row['images_per_s']['ours-nchw']:.2f}), torchvision {row['images_per_s']['torchvision']:.2f}; ratio "
            f"{row['speed_ratio']:.2f} (NCHW {row['speed_ratio_nchw']:.2f}); peak MiB {row['peak_mib']['ours']:.0f}, "
            f"{row['peak_mib']['torchvision']:.0f}; ratio {row['memory_ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
