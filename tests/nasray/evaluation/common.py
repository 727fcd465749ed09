"""A data set and detections that are partly right, drawn from a seed."""

import numpy as np
from pycocotools import mask as coco_mask

from nasray.evaluation.predictions import Predictions


def sample_results(dataset, *, seed=0, extra=3):
    """Detections as a middling detector would make: shifted boxes, wrong classes, doubles, inventions, misses."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(dataset)), np.diff(dataset.offsets))
    seen = np.flatnonzero(rng.random(len(owners)) < 0.85)
    seen = np.concatenate([seen, rng.choice(seen, len(seen) // 5)])
    size = np.tile(dataset.boxes[seen, 2:] - dataset.boxes[seen, :2], 2)
    boxes = dataset.boxes[seen] + rng.normal(0, 0.08, (len(seen), 4)) * size
    labels = np.where(
        rng.random(len(seen)) < 0.9, dataset.labels[seen], rng.integers(len(dataset.classes), size=len(seen))
    )
    scores = rng.beta(4, 2, len(seen))
    invented = np.repeat(np.arange(len(dataset)), extra)
    corner = rng.uniform(0, 0.6, (len(invented), 2))
    edge = dataset.image_hw[invented][:, [1, 0]]
    more = np.concatenate([corner * edge, (corner + rng.uniform(0.05, 0.4, corner.shape)) * edge], axis=1)
    boxes = np.concatenate([boxes, more])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    part = Predictions(
        np.concatenate([owners[seen], invented]),
        boxes.astype(np.float32),
        np.concatenate([scores, rng.beta(2, 4, len(invented))]).astype(np.float32),
        np.concatenate([labels, rng.integers(len(dataset.classes), size=len(invented))]),
    )
    return Predictions.join([part])


def draw_truth_and_results(seed, *, masks, image_hw=(20, 400)):
    """Annotations and results as in COCO's files: crowds, ties of scores and IoUs, empty images, boxes of all sizes.

    Args:
        seed: Of everything.
        masks: Whether both have `segmentation`: polygons and run lengths of both kinds.
        image_hw: Least and largest edge.
    """
    rng = np.random.default_rng(seed)
    num_images = int(rng.integers(1, 9))
    image_ids = rng.choice(1000, num_images, replace=False).tolist()
    category_ids = rng.choice(90, int(rng.integers(1, 5)), replace=False).tolist()
    images, annotations, results = [], [], []
    for image_id in image_ids:
        height, width = rng.integers(*image_hw, 2).tolist()
        images.append({"id": image_id, "height": height, "width": width, "file_name": f"{image_id}.png"})
        num = int(rng.integers(1, 9)) if rng.random() < 0.8 else 0
        boxes = _boxes(rng, num, height, width)
        shapes = [_angles(rng)] * num  # alike within an image, so that detections are near the truth
        for box, angles in zip(boxes, shapes, strict=True):
            crowd = int(rng.random() < 0.15)
            annotation = {
                "id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.choice(category_ids)),
                "bbox": box.tolist(), "area": float(box[2] * box[3] * rng.uniform(0.4, 1)), "iscrowd": crowd,
            }  # fmt: skip
            if masks:
                annotation["segmentation"] = _outline(rng, _polygon(box, angles), height, width, is_crowd=bool(crowd))
            annotations.append(annotation)
        num_found = 130 if rng.random() < 0.05 else int(rng.integers(0, 20)) * int(rng.random() < 0.8)
        found = _boxes(rng, num_found, height, width)
        labels = rng.choice(category_ids, num_found)
        if num:
            right = rng.random(num_found) < 0.7
            origin = rng.integers(0, num, num_found)
            source = boxes[origin]
            shift = rng.normal(0, rng.choice([0, 0.02, 0.1, 0.3]), (num_found, 4)) * np.tile(source[:, 2:], 2)
            found[right] = (source + shift)[right]
            own = np.array([one["category_id"] for one in annotations[-num:]])[origin]
            labels = np.where(right & (rng.random(num_found) < 0.9), own, labels)
        found[:, :2] = np.clip(found[:, :2], 0, [width - 1, height - 1])
        found[:, 2:] = np.clip(found[:, 2:], 0.5, [width, height] - found[:, :2])
        for box, label in zip(found, labels.tolist(), strict=True):
            score = float(np.float32(rng.beta(2, 2))) if rng.random() < 0.6 else float(rng.integers(1, 5)) / 4
            result = {
                "image_id": image_id, "category_id": label, "bbox": box.tolist(), "score": score,
            }  # fmt: skip
            if masks:
                angles = _angles(rng) if not num or rng.random() < 0.2 else shapes[0]
                result["segmentation"] = _run_lengths(_polygon(box, angles), height, width)
            results.append(result)
    categories = [{"id": number, "name": f"class {number}"} for number in category_ids]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _boxes(rng, num, height, width):
    """(num, 4) x, y, width, height; of whole pixels at times, so that IoUs are equal."""
    edges = np.exp(rng.uniform(np.log([width, height]) / 4, np.log([width, height]), (num, 2)))
    boxes = np.concatenate([rng.random((num, 2)) * ([width, height] - edges), edges], axis=1)
    return np.maximum(np.floor(boxes), [0, 0, 1, 1]) if rng.random() < 0.3 else boxes


def _angles(rng):
    return np.sort(rng.random(int(rng.integers(3, 9)))) * 2 * np.pi


def _polygon(box, angles):
    left, top, width, height = box
    x, y = left + width / 2 * (1 + np.cos(angles)), top + height / 2 * (1 + np.sin(angles))
    return [np.stack([x, y], axis=1).ravel().tolist()]


def _run_lengths(polygon, height, width):
    whole = coco_mask.merge(coco_mask.frPyObjects(polygon, height, width))
    return {"size": [height, width], "counts": whole["counts"].decode()}


def _outline(rng, polygon, height, width, *, is_crowd):
    if not is_crowd and rng.random() < 0.8:
        return polygon
    lengths = _run_lengths(polygon, height, width)
    if rng.random() < 0.5:
        return lengths
    pixels = coco_mask.decode(lengths).ravel(order="F")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1, [len(pixels)]])
    counts = np.diff(bounds).tolist()
    return {"size": [height, width], "counts": [0, *counts] if pixels[0] else counts}
