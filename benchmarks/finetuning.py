"""What a candidate costs that is fine-tuned before it is measured, part by part, and two at a time against one.

    python benchmarks/finetuning.py                                  # MSNAS's space `tiny` on drawn shapes, minutes
    python benchmarks/finetuning.py --variant laptop --data bccd --paths 8 --iterations 30
    python benchmarks/finetuning.py --variant r18 --recipe msnas-4x --data coco.yaml --iterations 100 --batch-size 32

Weights do not matter for times, so that the supernet is a fresh one. Two at a time are two processes, each on one
thread, as two trials of a search are; on a GPU they share it (`resources.gpus: 0.5`). Memory is the peak of a process
beyond the imported libraries: of one that fine-tunes paths of the supernet, and of one that trains a path as a network
by itself by the same steps. The first may exceed the second by the supernet's mapped pages, and by no copy of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasray.checkpoint import Checkpoint, make_network
from nasray.cluster.files import to_json
from nasray.evaluators import PathEvaluator
from nasray.evaluators.finetuning import FinetuneOptions, FineTuner
from nasray.models.supernets import supernet_architecture
from nasray.recipe import load_recipe
from nasray.recipe_options import WorkerOptions
from nasray.spaces import MSNASSpace
from nasray.training.setup import open_sets

PARTS = ("fine_tuning", "recalibration", "inference", "metrics")
GIVEN = ("variant", "recipe", "data", "holdout", "paths", "iterations", "batch_size", "images", "device")


def write_supernet(path: Path, options: argparse.Namespace) -> None:
    """Write a fresh supernet as a checkpoint of the recipe."""
    recipe = load_recipe(options.recipe)
    recipe = dataclasses.replace(
        recipe, data=options.data, holdout=options.holdout, weights=None, resources=WorkerOptions()
    )
    source = open_sets(recipe).source
    architecture = supernet_architecture(MSNASSpace(options.variant))
    network = make_network(recipe, architecture, len(source.classes))
    classes, ids = tuple(source.classes), tuple(range(1, len(source.classes) + 1))
    Checkpoint(recipe, architecture, classes, ids, network.state_dict()).save(path)


def make_evaluator(options: argparse.Namespace) -> PathEvaluator:
    """Return the evaluator of the supernet that was written."""
    tuning = FinetuneOptions(options.iterations, options.batch_size)
    return PathEvaluator(
        MSNASSpace(options.variant),
        options.checkpoint,
        finetune=tuning,
        images=options.images,
        device=options.device,
    )


def sample(options: argparse.Namespace) -> Any:
    """Return the paths that are measured, the largest first."""
    space = MSNASSpace(options.variant)
    rows = space.sample(options.paths, np.random.default_rng(0))
    return rows[np.argsort(-space.cost(rows)["params_m"], kind="stable")]


def alone(what: str, options: argparse.Namespace) -> None:
    """In a fresh process: print peak memory, or evaluate paths once a line is read."""
    before, rows = memory_mib("VmRSS"), sample(options)
    if what == "training":
        evaluator = make_evaluator(options)
        recipe = Checkpoint.load(options.checkpoint, shared=True).recipe
        sets, architecture = open_sets(recipe), evaluator.space.to_architecture(rows[0])
        network = make_network(recipe, architecture, len(sets.source.classes)).to(options.device)
        assert evaluator.finetune is not None
        FineTuner(evaluator.finetune, recipe, sets.train, network).train(network, 0)
        print(memory_mib("VmHWM") - before)
        return
    evaluator = make_evaluator(options)
    if what == "tuning":
        evaluator(rows[:2])
        print(memory_mib("VmHWM") - before)
        return
    evaluator(rows[:1])  # what is loaded once
    print("ready", flush=True)
    sys.stdin.readline()
    evaluator(rows)
    print("done", flush=True)


def memory_mib(name: str) -> float:
    """Return what the kernel says of this process."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def command(what: str, options: argparse.Namespace) -> list[str]:
    """Return the command that runs `alone` in a process of its own."""
    given = ["--alone", what, "--checkpoint", options.checkpoint]
    for name in GIVEN:
        given += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return [sys.executable, __file__, *given]


def seconds_of(num: int, options: argparse.Namespace) -> float:
    """Return the seconds in which `num` processes beside each other evaluate all paths each."""
    processes = [
        subprocess.Popen(command("paths", options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(num)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    begin = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "done\n"
    seconds = time.perf_counter() - begin
    for process in processes:
        process.communicate()
    return seconds


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return everything, as JSON-serializable figures."""
    evaluator, rows = make_evaluator(options), sample(options)
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    evaluator(rows[:1])
    for row in rows:
        evaluator(row[None])
        for name in PARTS:
            parts[name].append(evaluator.loaded.seconds[name])
    one, two = (seconds_of(num, options) for num in (1, 2))
    memory = {}
    for what in ("tuning", "training"):
        done = subprocess.run(command(what, options), capture_output=True, text=True, check=True)
        memory[what] = float(done.stdout)
    return {
        **{name: getattr(options, name) for name in GIVEN},
        "device": str(evaluator.loaded.device),
        "seconds_per_path": {name: statistics.mean(values) for name, values in parts.items()},
        "candidates_per_minute": {"one": 60 * len(rows) / one, "two": 2 * 60 * len(rows) / two},
        "peak_mib": memory,
        "supernet_mib": Path(options.checkpoint).stat().st_size / 2**20,
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures as lines."""
    parts, rate, memory = result["seconds_per_path"], result["candidates_per_minute"], result["peak_mib"]
    return "\n".join(
        [
            f"space msnas {result['variant']}, {result['data']}, {result['paths']} paths, {result['iterations']} steps "
            f"of {result['batch_size']} images, on {result['device']}",
            f"seconds a candidate: {sum(parts.values()):.2f}: "
            + ", ".join(f"{name} {value:.3f}" for name, value in parts.items()),
            f"candidates a minute: one at a time {rate['one']:.1f}, two {rate['two']:.1f}: "
            f"{rate['two'] / rate['one']:.2f} times as many",
            f"peak memory: fine-tuning {memory['tuning']:.0f} MiB, a training of the path by itself "
            f"{memory['training']:.0f} MiB; the supernet's file has {result['supernet_mib']:.1f} MiB",
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="tiny", help="of MSNAS's space")
    parser.add_argument("--recipe", default="shapes-faster-rcnn", help="of the supernet's training")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--holdout", type=int, default=32, help="images that paths are compared on")
    parser.add_argument("--paths", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=10, help="of fine-tuning")
    parser.add_argument("--batch-size", type=int, default=8, help="of fine-tuning")
    parser.add_argument("--images", type=int, default=32, help="of the training set, for statistics; 0 for none")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as a trial with one CPU
    if options.alone:
        alone(options.alone, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        options.checkpoint = str(Path(folder) / "supernet.pt")
        write_supernet(Path(options.checkpoint), options)
        result = measure(options)
    print(to_json(result, indent=1) if options.json else describe(result))


if __name__ == "__main__":
    main()
