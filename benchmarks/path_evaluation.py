"""What one path of a supernet costs to evaluate, beside a plain loop that rebuilds everything for every path.

    python benchmarks/path_evaluation.py --data bccd --paths 20
    python benchmarks/path_evaluation.py --space small --images 64 --paths 4     # DetNAS's small space
    python benchmarks/path_evaluation.py --space small --recipe detnas-fpn-1x --images 500    # 800x1333, on a GPU

The plain loop does what released code does: for every path a fresh network from the checkpoint, fresh loaders, fresh
annotations, then the same statistics, detections and figures. Paths alternate between the two, so that a busy machine
slows both; both must give the same mAP. Memory is that of a process of its own for each: what it holds at its peak
beyond the imported libraries. Sharing is what the kernel says of the checkpoint's pages in two processes at a time.

`--keeping` compares ways of keeping decoded images instead: loaded anew for every path, kept in memory, mapped from the
file that all processes share. Paths alternate between the three, which must give the same mAP to the bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
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

from nasray.checkpoint import Checkpoint
from nasray.cluster.files import to_json
from nasray.data import EvaluationLoader, open_data
from nasray.data.order import CALIBRATION, divide, seed_sequence
from nasray.devices import choose_device
from nasray.evaluation.coco import coco_metrics
from nasray.evaluation.predictions import predict
from nasray.evaluators import PathEvaluator
from nasray.loading import load_plan
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.recalibration import recalibrate
from nasray.recipe import load_recipe
from nasray.recipe_options import WorkerOptions
from nasray.spaces import ShuffleNetSpace
from nasray.training.jobs import train_here

PARTS = ("recalibration", "inference", "metrics")


def make_space_of(name: str) -> Any:
    """Return the space of `detnas-laptop`, or one of DetNAS's."""
    return load_plan("detnas-laptop").parts.space if name == "laptop" else ShuffleNetSpace(name)


def make_checkpoint(folder: Path, options: argparse.Namespace) -> Path:
    """Train a supernet as a detector for a few steps: times do not depend on its weights."""
    recipe = load_recipe(options.recipe)
    recipe = dataclasses.replace(
        recipe,
        data=options.data,
        holdout=options.holdout,
        weights=None,
        batch_size=options.batch_size,
        resources=WorkerOptions(),
        schedule=dataclasses.replace(recipe.schedule, epochs=options.epochs),
    )
    train_here(recipe, folder, supernet_architecture(make_space_of(options.space)))
    return folder / "checkpoints" / "last.pt"


def plain(checkpoint: Path, row: Any, images: int) -> float:
    """MAP of one path, with everything built anew."""
    loaded = Checkpoint.load(checkpoint)
    recipe = loaded.recipe
    device = choose_device("auto")
    detector = loaded.network().to(device)
    detector.backbone.set_path(row)  # type: ignore[operator, union-attr]
    whole = open_data(recipe.data).split("train")
    kept, held = divide(recipe.seed, len(whole), recipe.holdout)
    train, measured = whole.select(kept), whole.select(held)
    order = np.random.default_rng(seed_sequence(recipe.seed, CALIBRATION)).permutation(len(train))[:images]
    loaders = [
        EvaluationLoader(dataset, recipe.augmentation, batch_size=recipe.batch_size, stride=32, options=recipe.loader)
        for dataset in (train.select(np.sort(order)), measured)
    ]
    pixels = (batch.images.to(device, memory_format=torch.channels_last) for batch in loaders[0])
    recalibrate(detector, pixels, len(order), forward=detector.forward_raw)  # type: ignore[union-attr]
    found = predict(detector, loaders[1], device=device, channels_last=True)
    return coco_metrics(measured, found).summary["mAP"]


def alone(what: str, options: argparse.Namespace) -> None:
    """In a fresh process: print peak memory beyond what it began with, or hold a path evaluator's weights."""
    space = make_space_of(options.space)
    rows = space.sample(options.paths, np.random.default_rng(0))
    before = memory_mib("VmRSS")
    evaluator = PathEvaluator(space, options.checkpoint, images=options.images, cache_gib=0, disk_gib=0)
    if what == "supernet":
        evaluator(rows[:2])
    elif what == "standalone":
        largest = rows[space.cost(rows)["params_m"].argmax()]
        loaded = evaluator.loaded
        detector = loaded.network
        detector.backbone = detector.backbone.extract(largest)
        detector.backbone.set_path = lambda row: None
        loaded.evaluate(largest)
        loaded.evaluate(largest)
    else:
        evaluator(rows[:1])
        print("ready", flush=True)
        sys.stdin.readline()  # until the other is ready too
        print(to_json(mapped_mib(Path(options.checkpoint))))
        return
    print(memory_mib("VmHWM") - before)


def memory_mib(name: str) -> float:
    """Of this process, as the kernel has it."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def mapped_mib(path: Path) -> dict[str, float]:
    """Return the pages of a file that this process has mapped: all of them (`rss`), and its share of them (`pss`)."""
    totals = {"rss": 0.0, "pss": 0.0, "private_dirty": 0.0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path.resolve()))
        elif inside:
            name, _, value = line.partition(":")
            if name.lower() in totals:
                totals[name.lower()] += int(value.split()[0]) / 1024
    return totals


def command(what: str, options: argparse.Namespace, checkpoint: Path) -> list[str]:
    """To run `alone` in a process of its own."""
    given = ["--alone", what, "--checkpoint", str(checkpoint)]
    for name in ("space", "data", "holdout", "images", "paths"):
        given += [f"--{name}", str(getattr(options, name))]
    return [sys.executable, __file__, *given]


def sharing(options: argparse.Namespace, checkpoint: Path) -> list[dict[str, float]]:
    """`mapped_mib` of two processes that have evaluated paths and live at the same time."""
    pair = [
        subprocess.Popen(
            command("shared", options, checkpoint), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    results = []
    for process in pair:  # the first waits in `communicate` for its end only after it has looked
        assert process.stdin
        assert process.stdout
        process.stdin.write("go\n")
        process.stdin.flush()
        results.append(json.loads(process.stdout.readline()))
    for process in pair:
        process.communicate()
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="laptop", choices=["laptop", "small", "large"])
    parser.add_argument("--recipe", default="cpu-detect-supernet", help="of the supernet's training")
    parser.add_argument("--batch-size", type=int, default=8, help="of training and evaluation")
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--holdout", type=int, default=48, help="images that paths are compared on")
    parser.add_argument("--images", type=int, default=150, help="of the training set, for statistics")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=0.2, help="of the supernet's training")
    parser.add_argument("--keeping", action="store_true", help="compare ways of keeping images instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as a trial with one CPU
    if options.alone:
        alone(options.alone, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NASRAY_CACHE"] = str(Path(folder) / "cache")  # nothing of earlier runs is found
        checkpoint = make_checkpoint(Path(folder) / "supernet", options)
        result = keeping(options, checkpoint) if options.keeping else measure(options, checkpoint)
    print(to_json(result, indent=1) if options.json or options.keeping else describe(result))


def keeping(options: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    """Return seconds of the first path and the mean of the others for each way of keeping images, and their bytes."""
    space = make_space_of(options.space)
    rows = space.sample(options.paths, np.random.default_rng(0))
    ways = {"anew": (0.0, 0.0), "kept": (0.0, 64.0), "mapped, written first": (64.0, 0.0), "mapped": (64.0, 0.0)}
    evaluators = {
        way: PathEvaluator(space, str(checkpoint), images=options.images, disk_gib=disk, cache_gib=memory)
        for way, (disk, memory) in ways.items()
    }
    for evaluator in evaluators.values():
        evaluator.check()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for row in rows:
        scores = []
        for way, evaluator in evaluators.items():
            begin = time.perf_counter()
            scores.append(float(evaluator(row[None])["score"][0]))
            seconds[way].append(time.perf_counter() - begin)
        assert len(set(scores)) == 1 or np.isnan(scores).all(), scores
    loaded = evaluators["kept"].loaded
    sets = (loaded.calibration, loaded.measured)
    return {
        "images": {"statistics": loaded.num_calibration, "compared_on": len(loaded.dataset)},
        "mib": sum(batch.images.nbytes for batches in sets for batch in batches.kept or ()) / 2**20,
        "seconds_of_the_first": {way: values[0] for way, values in seconds.items()},
        "seconds_a_path": {way: statistics.mean(values[1:]) for way, values in seconds.items()},
        "median_seconds_a_path": {way: statistics.median(values[1:]) for way, values in seconds.items()},
    }


def measure(options: argparse.Namespace, checkpoint: Path) -> dict[str, Any]:
    """Everything, as JSON-serializable figures."""
    space = make_space_of(options.space)
    rows = space.sample(options.paths, np.random.default_rng(0))
    evaluator = PathEvaluator(space, str(checkpoint), images=options.images)
    ours: list[float] = []
    theirs: list[float] = []
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    for row in rows:
        begin = time.perf_counter()
        score = float(evaluator(row[None])["score"][0])
        ours.append(time.perf_counter() - begin)
        for name in PARTS:
            parts[name].append(evaluator.loaded.seconds[name])
        begin = time.perf_counter()
        other = plain(checkpoint, row, options.images)
        theirs.append(time.perf_counter() - begin)
        assert abs(score - other) < 1e-6 or (np.isnan(score) and np.isnan(other)), (score, other)
    split = {name: statistics.mean(values) for name, values in parts.items()}
    split["overhead"] = statistics.mean(ours) - sum(split.values())
    memory = {}
    for what in ("supernet", "standalone"):
        done = subprocess.run(command(what, options, checkpoint), capture_output=True, text=True, check=True)
        memory[what] = float(done.stdout)
    return {
        "space": options.space,
        "recipe": options.recipe,
        "data": options.data,
        "paths": options.paths,
        "images": {"statistics": evaluator.loaded.num_calibration, "compared_on": len(evaluator.loaded.dataset)},
        "seconds_per_path": {"ours": statistics.mean(ours), "plain": statistics.mean(theirs)},
        "seconds_of_the_first": ours[0],
        "ratio": statistics.mean(theirs) / statistics.mean(ours),
        "ratio_of_medians": statistics.median(theirs) / statistics.median(ours),
        "split": split,
        "peak_mib": memory,
        "peak_ratio": memory["supernet"] / memory["standalone"],
        "checkpoint_pages_mib": sharing(options, checkpoint),
    }


def describe(result: dict[str, Any]) -> str:
    """Return the figures as lines."""
    seconds, split, memory = result["seconds_per_path"], result["split"], result["peak_mib"]
    lines = [
        f"space {result['space']}, {result['data']}, {result['paths']} paths, statistics of "
        f"{result['images']['statistics']} images, compared on {result['images']['compared_on']}",
        f"seconds a path: {seconds['ours']:.2f}, plain loop {seconds['plain']:.2f}: {result['ratio']:.2f}x (medians "
        f"{result['ratio_of_medians']:.2f}x); the first path {result['seconds_of_the_first']:.2f}",
        "split: " + ", ".join(f"{name} {value:.3f}" for name, value in split.items()),
        f"peak memory: supernet {memory['supernet']:.0f} MiB, largest path by itself {memory['standalone']:.0f} MiB: "
        f"{result['peak_ratio']:.2f}x",
    ]
    for number, pages in enumerate(result["checkpoint_pages_mib"]):
        lines.append(
            f"process {number + 1} of 2: {pages['rss']:.1f} MiB of weights mapped, its share {pages['pss']:.1f} MiB, "
            f"changed {pages['private_dirty']:.1f} MiB"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
