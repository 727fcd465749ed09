"""The share of a training step that is spent on drawing its path, by each sampler.

    python benchmarks/path_drawing.py                    # once-for-all's ResNet-50, CenterNet, 384x384, batch 32
    python benchmarks/path_drawing.py --size tiny --image-size 64x64 --batch-size 8 --measure    # beside measured steps

The filter of `accepted` has random weights, which costs as much time as a trained one; operations and thresholds are
those that it prunes. Drawing is measured on one core. Steps are measured on this machine with `--measure`; else they
are estimated as what the multiply-adds of random paths take, forward and backward (three times the forward pass), at
the peak of a GPU: real steps take longer, so that the shares are upper bounds. On a GPU a thread draws the paths of
the next steps: how long a training waits for them then is measured with a main thread that sleeps as long as each step,
for steps below 50 ms and without the first 256 steps, whose paths are always waited for.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from supernet_training import Trainee
from training_step import NUM_CLASSES

from nasray.checkpoint import make_network
from nasray.cluster.files import to_json
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import Pruned, forbidden_of, restricted, write_pruned
from nasray.filters.pruning import path_thresholds, prune_operations
from nasray.models.detector_cost import DetectorCost
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.sampling import BLOCK, BlockPaths, BucketPaths, GenePaths, UniformPaths
from nasray.recipe import load_recipe
from nasray.spaces import OFAResNetSpace, Space
from nasray.spaces.buckets import Buckets
from nasray.training.accepted import AcceptedPaths
from nasray.values import read_image_hw

PEAKS = {"V100, float32": 15.7, "A100, float32": 19.5, "A100, float16": 312.0, "H100, bfloat16": 989.0}
"""Peaks of GPUs by NVIDIA's data sheets, in 1e12 floating-point operations per second, without sparsity."""
RECIPE = "detofa-centernet-voc"


def samplers(space: Space, folder: Path) -> dict[str, BlockPaths]:
    """Every way to draw a path; those of `accepted` with a pruning in a folder."""
    buckets = Buckets.spanning(space, "gmacs", 5)
    path_filter = PathFilter(space, buckets)
    path_filter.save(folder / "filter.pt")
    operations = tuple(prune_operations(space, path_filter, samples=20))
    left = restricted(space, forbidden_of(operations))
    thresholds = tuple(path_thresholds(left, path_filter, num=400))
    write_pruned(
        folder / "pruned.json",
        space,
        Pruned("gmacs", buckets.edges, operations, thresholds, folder / "filter.pt", {}),
    )
    file = str(folder / "pruned.json")
    found: dict[str, BlockPaths] = {
        "uniform": UniformPaths(space),
        "genes": GenePaths(space),
        "buckets": BucketPaths(space),
    }
    for draw in ("genes", "uniform", "buckets"):
        found[f"accepted, {draw}"] = AcceptedPaths(space, pruned=file, draw=draw)
    return found


def seconds_of_a_draw(sampler: BlockPaths, rounds: int) -> float:
    """Seconds for each step, the median of several blocks of steps."""
    seconds = []
    for number in range(rounds):
        begin = time.perf_counter()
        for step in range(number * BLOCK, (number + 1) * BLOCK):
            sampler.draw(step)
        seconds.append((time.perf_counter() - begin) / BLOCK)
    return statistics.median(seconds)


def seconds_waited(sampler: BlockPaths, step_seconds: float, rounds: int) -> float:
    """Seconds for each step that a training waits for its path where a thread draws ahead, after the first block."""
    sampler.ahead = True
    waited = 0.0
    for step in range((rounds + 1) * BLOCK):
        begin = time.perf_counter()
        sampler.draw(step)
        if step >= BLOCK:
            waited += time.perf_counter() - begin
        time.sleep(step_seconds)
    return waited / (rounds * BLOCK)


def measured_step(space: Space, options: argparse.Namespace) -> float:
    """Median seconds of a step on random paths, here."""
    recipe = dataclasses.replace(load_recipe(RECIPE), precision=options.precision)
    detector = make_network(recipe, supernet_architecture(space), NUM_CLASSES)
    trainee, supernet = Trainee(detector, recipe, options), supernet_of(detector)
    assert supernet is not None
    seconds = []
    for step in range(options.steps + 1):
        supernet.set_path(UniformPaths(space).draw(step))
        seconds.append(trainee.step())
    return statistics.median(seconds[1:])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as JSON-serializable figures."""
    space = OFAResNetSpace(options.size, image_hw=read_image_hw(options.image_size))
    with tempfile.TemporaryDirectory() as folder:
        found = samplers(space, Path(folder))
    draws = {name: seconds_of_a_draw(one, options.rounds) for name, one in found.items()}
    waits: dict[str, dict[str, float]] = {}
    if options.measure:
        steps = {"measured here": measured_step(space, options)}
    else:
        rows = GenePaths(space).rows(200, np.random.default_rng(0))
        gmacs = float(DetectorCost(space, "centernet", num_classes=20)(rows)["gmacs"].mean())
        operations = 2 * 3 * options.batch_size * gmacs * 1e9
        steps = {name: operations / (peak * 1e12) for name, peak in PEAKS.items()}
        for name, one in found.items():
            short = {step: value for step, value in steps.items() if value < 0.05}
            waits[name] = {step: seconds_waited(one, value, 2) / value for step, value in short.items()}
    return {
        "size": options.size,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "draw_ms": {name: 1e3 * value for name, value in draws.items()},
        "step_ms": {name: 1e3 * value for name, value in steps.items()},
        "share": {
            name: {step: value / (value + seconds) for step, seconds in steps.items()} for name, value in draws.items()
        },
        "share_waited_with_a_thread_ahead": waits,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="resnet50", choices=["resnet50", "laptop", "tiny"])
    parser.add_argument("--image-size", default="384x384")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4, help="blocks of 256 steps for which paths are drawn")
    parser.add_argument("--measure", action="store_true", help="measure steps here instead of estimating them")
    parser.add_argument("--steps", type=int, default=10, help="steps to measure")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print(to_json(result, indent=1))
        return
    steps = result["step_ms"]
    print(f"space {result['size']}, CenterNet at {result['image_size']}, batch {result['batch_size']}")
    print("step, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in steps.items()))
    for name, value in result["draw_ms"].items():
        shares = ", ".join(f"{100 * share:.2f} %" for share in result["share"][name].values())
        print(f"{name:18} {value:.3f} ms a step: {shares}")
        if waits := result["share_waited_with_a_thread_ahead"].get(name):
            print(
                f"{'':18} with a thread ahead: "
                + ", ".join(f"{name} {100 * share:.3f} %" for name, share in waits.items())
            )


if __name__ == "__main__":
    main()
