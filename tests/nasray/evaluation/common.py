"""A data set and detections that are partly right, drawn from a seed."""

import numpy as np

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
