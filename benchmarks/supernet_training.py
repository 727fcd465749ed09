"""Path-wise training of a supernet within a detector, beside training the same paths as networks by themselves.

    python benchmarks/supernet_training.py                                            # CPU: DetNAS's small space
    python benchmarks/supernet_training.py --image-size 800x1333 --batch-size 8 --precision bfloat16    # a GPU

Every round draws a path: the supernet makes one step on it, then its extracted network makes one, on the same batch,
with the same optimizer, so that a busy machine slows both; the ratio is that of the medians. Random weights and images.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import torch
from torch import nn
from training_step import NUM_CLASSES, make_batch

from nasray.checkpoint import make_network
from nasray.cluster.files import to_json
from nasray.devices import PRECISIONS, autocast, choose_device
from nasray.models.detectors.base import Detector
from nasray.models.supernets import UniformPaths, supernet_architecture
from nasray.models.supernets.base import Supernet
from nasray.recipe import Recipe, load_recipe
from nasray.spaces import ShuffleNetSpace
from nasray.training.optimizers import make_optimizer
from nasray.values import read_image_hw


class Trainee:
    """A detector with its optimizer and one batch.

    Args:
        detector: on the CPU.
        recipe: with optimizer, precision and layout.
        options: batch and device.
    """

    def __init__(self, detector: nn.Module, recipe: Recipe, options: argparse.Namespace) -> None:
        self.device = choose_device(options.device)
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.detector = detector.train().to(self.device, memory_format=layout)
        self.optimizer = make_optimizer(detector, recipe.optimizer)
        self.precision = recipe.precision
        images, targets = make_batch(options.batch_size, read_image_hw(options.image_size))
        self.images = images.to(self.device, memory_format=layout)
        self.targets = [{name: value.to(self.device) for name, value in target.items()} for target in targets]

    def step(self) -> float:
        """One training step; gives its seconds."""
        self._wait()
        begin = time.perf_counter()
        self.optimizer.zero_grad()
        with autocast(self.device, self.precision):
            losses = self.detector(self.images, self.targets)
        torch.stack([value.float() for value in losses.values()]).sum().backward()
        self.optimizer.step()
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON-serializable figures."""
    space = ShuffleNetSpace(options.space)
    recipe = dataclasses.replace(load_recipe(options.recipe), precision=options.precision)
    detector = make_network(recipe, supernet_architecture(space), NUM_CLASSES)
    assert isinstance(detector, Detector)
    supernet = detector.backbone
    assert isinstance(supernet, Supernet)
    whole = Trainee(detector, recipe, options)
    paths = UniformPaths(space, seed=0)
    seconds: dict[str, list[float]] = {"supernet": [], "standalone": []}
    for number in range(options.rounds):
        row = paths.draw(number)
        supernet.set_path(row)
        alone = make_network(recipe, space.to_architecture(row), NUM_CLASSES)
        alone.load_state_dict(detector.state_dict(), strict=False)  # neck and head
        alone.backbone = supernet.extract(row)
        trainees = {"supernet": whole, "standalone": Trainee(alone, recipe, options)}
        for trainee in trainees.values():
            trainee.step()  # both make momenta, and choose their kernels
        for name, trainee in trainees.items():
            seconds[name] += [trainee.step() for _ in range(options.steps)]
    speed = {name: options.batch_size / statistics.median(values) for name, values in seconds.items()}
    return {
        "space": options.space,
        "recipe": options.recipe,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "device": describe_device(whole.device),
        "paths": options.rounds,
        "images_per_s": speed,
        "ratio": speed["supernet"] / speed["standalone"],
    }


def describe_device(device: torch.device) -> str:
    """Return the GPU's name, or the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="small", choices=["small", "large"])
    parser.add_argument("--recipe", default="detnas-fpn-1x", help="of the detector and the optimizer")
    parser.add_argument("--image-size", default="224x320")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS))
    parser.add_argument("--rounds", type=int, default=8, help="paths")
    parser.add_argument("--steps", type=int, default=2, help="that count, of each path and kind")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print(to_json(result, indent=1))
        return
    speed = result["images_per_s"]
    print(
        f"space {result['space']}, {result['recipe']}, {result['image_size']}, batch {result['batch_size']}, "
        f"{result['precision']}, {result['device']}\nimages/s over {result['paths']} paths: supernet "
        f"{speed['supernet']:.2f}, the same paths by themselves {speed['standalone']:.2f}; ratio {result['ratio']:.2f}"
    )


if __name__ == "__main__":
    main()
