"""Exported detectors held against the original, on drawn images of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nasray.data.shapes import draw_image, image_generator
from nasray.spaces import NasrayError

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-3, 1e-4
"""Most difference from the original, in pixels, and in score or mask; of raw outputs relative to the largest."""
NUM_COMPARED = 20
"""Detections of an image that the check compares at least, whatever the detector's threshold, if it finds as many."""
MOST, NUM_ATTEMPTS = 0.75, 3
"""Share of agreeing detections from which an image is undecided rather than wrong; images that are tried."""
THRESHOLD = "detector.score_threshold"
"""The threshold's name among the tensors of an export."""

Outputs = list[Tensor]
Run = Callable[[Tensor, float], Outputs]
"""What an export computes from images, with this threshold in place of its own."""


def check(module: nn.Module, run: Run, sizes: list[tuple[int, int]], raw: bool) -> dict[str, Any]:
    """Hold an export against its original on drawn images.

    Where the detector is sure of less than `NUM_COMPARED` detections, both take a lower threshold.

    Raises:
        NasrayError: if they differ by more than the tolerances.
    """
    compare = _compare_raw if raw else _compare
    found = [compare(module, run, number, image_hw) for number, image_hw in enumerate(sizes)]
    box, score = (max(values) for values in zip(*((one.box, one.score) for one in found), strict=True))
    if not (box <= (SCORE_TOLERANCE if raw else BOX_TOLERANCE) and score <= SCORE_TOLERANCE):
        raise NasrayError(
            f"the export does not compute what the detector does: boxes differ by {box:g} pixels (allowed "
            f"{BOX_TOLERANCE:g}), scores by {score:g} (allowed {SCORE_TOLERANCE:g}). Nothing was written. This "
            "is a defect of nasray or of its exporter: report it with the checkpoint's recipe"
        )
    return {
        "max_difference": box,
        "max_score_difference": score,
        "detections": sum(one.num for one in found),
        "undecided_images": sum(one.undecided for one in found),
    }


class Difference(NamedTuple):
    """Between an export and its original on one size of images.

    Attributes:
        box: Largest difference of boxes in pixels; of raw outputs relative.
        score: Largest difference of scores and masks; of raw outputs the same as `box`.
        num: Number of detections that were compared, or of images.
        undecided: Images that were set aside.
    """

    box: float
    score: float
    num: int
    undecided: int = 0


def _compare(module: nn.Module, run: Run, number: int, image_hw: tuple[int, int]) -> Difference:
    """Return the difference on the first image that is decided.

    Two overlapping boxes of a class whose scores are equal but for rounding are a toss-up: which of them suppresses the
    other differs between PyTorch's own devices. A detector that has learned little has many. So an image on which most
    detections agree, but not all, is set aside for another, up to `NUM_ATTEMPTS`.
    """
    for attempt in range(NUM_ATTEMPTS):
        images = _drawn([number + 10 * attempt], image_hw)
        threshold = _telling_threshold(module, images)
        ours, theirs = _computed(module, images, threshold), run(images, threshold)
        distances, score = detection_differences([part[0] for part in ours], [part[0] for part in theirs])
        box = float(distances.max()) if len(distances) else 0.0
        agreeing = float((distances <= BOX_TOLERANCE).float().mean())
        if (box <= BOX_TOLERANCE and score <= SCORE_TOLERANCE) or agreeing < MOST:
            break
    return Difference(box, score, len(distances), attempt)


def _compare_raw(module: nn.Module, run: Run, number: int, image_hw: tuple[int, int]) -> Difference:
    images = _drawn([number, number + 1], image_hw)
    worst = max(
        float((x.float() - y.float()).abs().max() / x.float().abs().max().clamp(min=1.0))
        for x, y in zip(_computed(module, images), run(images, 0.0), strict=True)
    )
    return Difference(worst, worst, len(images))


def _drawn(numbers: list[int], image_hw: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack([draw_image(image_generator(1, i), image_hw)[0] for i in numbers])).float()


def _computed(module: nn.Module, images: Tensor, threshold: float | None = None) -> Outputs:
    """Return the outputs of the original, with this threshold instead of its own if there is one."""
    if threshold is None:
        with torch.no_grad():
            return list(module(images))
    value = module.get_buffer(THRESHOLD)
    own = value.clone()
    value.fill_(threshold)
    try:
        return _computed(module, images)
    finally:
        value.copy_(own)


def _telling_threshold(module: nn.Module, images: Tensor) -> float:
    """Return the detector's own threshold, or a lower one, between scores, that `NUM_COMPARED` detections exceed."""
    own = float(module.get_buffer(THRESHOLD))
    scores = _computed(module, images, 0.0)[1][0]
    window = scores[min(NUM_COMPARED, len(scores)) - 1 : 2 * NUM_COMPARED]
    if window[0] > own or len(window) < 2:
        return own
    gap = int((window[:-1] - window[1:]).argmax())
    return float(window[gap : gap + 2].mean())


def detection_differences(ours: Outputs, theirs: Outputs) -> tuple[Tensor, float]:
    """Return how far boxes are apart, (D,) pixels, and the largest difference of scores and masks.

    Detections of (nearly) equal score may stand in another order, so each of ours is held against the one of theirs,
    of its class and within the tolerance of its score, whose box is closest; infinity if there is none. The weakest
    detection may have a rival of the same score that is left out: those as close to it as scores differ are not among
    the D that are compared.
    """
    score = float((ours[1] - theirs[1]).abs().max())
    num = int((ours[1] > float(ours[1][-1]) + 2 * min(score, SCORE_TOLERANCE)).sum())
    boxes, scores, labels, *masks = (part[:num, None] for part in ours)
    same = (labels == theirs[2]) & ((scores - theirs[1]).abs() <= SCORE_TOLERANCE)
    distance, partner = torch.where(same, (boxes - theirs[0]).abs().amax(dim=2), torch.inf).min(dim=1)
    for mask, their_mask in zip(masks, theirs[3:], strict=True):
        if num:
            score = max(score, float((mask[:, 0] - their_mask[partner]).abs().max()))
    return distance, score
