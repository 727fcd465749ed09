"""COCO's metrics by pycocotools, faster-coco-eval and hotcoco in one run: the same numbers, and seconds of each.

    python benchmarks/evaluation_speed.py --images 500 --detections 96

Annotations and detections are drawn as COCO has them: 80 classes, seven boxes an image of all sizes, some of them
crowds; detections are those boxes, shifted, doubled, of wrong classes, and inventions up to the number asked for. Runs
alternate between the libraries, so that a busy machine slows all; each includes reading annotations and results.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nasray.cluster.files import to_json
from nasray.evaluation.coco import NAMES, Library, evaluate_coco

NUM_CLASSES, BOXES, IMAGE_HW = 80, 7, (480, 640)


def draw(num_images: int, num_detections: int, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results as in COCO's files."""
    rng = np.random.default_rng(seed)
    images = np.arange(1, num_images + 1)
    owners = np.repeat(images, BOXES)
    boxes, labels = draw_boxes(rng, len(owners)), rng.integers(1, NUM_CLASSES + 1, len(owners))
    annotations = [
        {
            "id": number,
            "image_id": int(owner),
            "category_id": int(label),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(crowd),
        }
        for number, (owner, label, box, crowd) in enumerate(
            zip(owners, labels, boxes.tolist(), rng.random(len(owners)) < 0.01, strict=True), start=1
        )
    ]
    seen = np.concatenate([np.flatnonzero(rng.random(len(owners)) < 0.8) for _ in range(2)])  # many of them twice
    shifted = boxes[seen] + rng.normal(0, 0.08, (len(seen), 4)) * np.tile(boxes[seen, 2:], 2)
    shifted[:, 2:] = np.maximum(shifted[:, 2:], 1)
    right = rng.random(len(seen)) < 0.85
    invented = np.repeat(images, max(num_detections - round(len(seen) / num_images), 0))
    columns = zip(
        np.concatenate([owners[seen], invented]).tolist(),
        np.where(right, labels[seen], rng.integers(1, NUM_CLASSES + 1, len(seen))).tolist()
        + rng.integers(1, NUM_CLASSES + 1, len(invented)).tolist(),
        np.concatenate([shifted, draw_boxes(rng, len(invented))]).tolist(),
        np.concatenate([rng.beta(3, 2, len(seen)), rng.beta(1, 6, len(invented))]).tolist(),
        strict=True,
    )
    results = [
        {"image_id": owner, "category_id": label, "bbox": box, "score": score} for owner, label, box, score in columns
    ]
    content = {
        "images": [{"id": int(image), "height": IMAGE_HW[0], "width": IMAGE_HW[1]} for image in images],
        "categories": [{"id": label, "name": f"class {label}"} for label in range(1, NUM_CLASSES + 1)],
        "annotations": annotations,
    }
    return content, results


def draw_boxes(rng: np.random.Generator, num: int) -> np.ndarray:
    """(num, 4) x, y, width, height within an image, from eight pixels to half of it."""
    edges = np.exp(rng.uniform(np.log(8), np.log(240), (num, 2)))
    corners = rng.random((num, 2)) * (np.array(IMAGE_HW[::-1]) - edges)
    return np.concatenate([corners, edges], axis=1)


def libraries() -> dict[str, Library]:
    """Return the libraries that are installed, the reference first."""
    found: dict[str, Library] = {"pycocotools": (COCO, COCOeval)}
    with contextlib.suppress(ImportError):
        import faster_coco_eval

        found["faster-coco-eval"] = faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
    with contextlib.suppress(ImportError):
        import hotcoco

        found["hotcoco"] = hotcoco.COCO, hotcoco.COCOeval
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=96, help="of each image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    annotations, results = draw(options.images, options.detections)
    found = libraries()
    seconds: dict[str, list[float]] = {name: [] for name in found}
    evaluations = {}
    for _ in range(options.rounds):
        for name, library in found.items():
            begin = time.perf_counter()
            evaluations[name] = evaluate_coco(annotations, results, library=library)
            seconds[name].append(time.perf_counter() - begin)
    reference = evaluations["pycocotools"]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = {
        name: {
            "seconds": medians[name],
            "times_as_fast": medians["pycocotools"] / medians[name],
            "max_difference": float(np.abs(np.array(one.stats[: len(NAMES)]) - reference.stats).max()),
            "max_difference_precision": float(np.abs(one.eval["precision"] - reference.eval["precision"]).max()),
        }
        for name, one in evaluations.items()
    }
    if options.json:
        print(to_json({"images": options.images, "detections": len(results), "libraries": rows}, indent=1))
        return
    print(f"{options.images:,} images, {len(results):,} detections, mAP {reference.stats[0]:.3f}")
    for name, row in rows.items():
        print(
            f"{name:18} {row['seconds']:6.3f} s  {row['times_as_fast']:5.1f} times as fast; differs by at most "
            f"{row['max_difference']:.1g} (twelve numbers), {row['max_difference_precision']:.1g} (precision)"
        )


if __name__ == "__main__":
    main()
