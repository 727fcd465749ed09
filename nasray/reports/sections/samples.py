"""Some images of a data set as they are annotated, and some that have no boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from nasray.data.dataset import DetectionSet
from nasray.data.fields import FieldError
from nasray.drawing import class_color, draw_detections
from nasray.reports.pictures import figure, resized
from nasray.reports.pieces import NONE, paragraph
from nasray.reports.section import Section
from nasray.spaces import NasrayError

OPACITY = 0.4
"""Of the color that lies on an object's outline."""


def sample_sections(dataset: DetectionSet, num_images: int, seed: int) -> list[Section]:
    """Return sections with images that are drawn from a seed: with boxes, and without where there are such.

    Args:
        dataset: Data set.
        num_images: Number of images with boxes, at most; a third as many without.
        seed: Seed of the choice.
    """
    generator = np.random.default_rng(seed)
    counts = np.diff(dataset.offsets)
    annotated = "Boxes with their classes; of ignored ones (crowds, difficult) a detector learns nothing."
    empty = "For a detector they are background: see whether there is anything on them."
    sections = []
    for title, places, most, text in (
        ("Images as they are annotated", np.flatnonzero(counts > 0), num_images, annotated),
        ("Images without boxes", np.flatnonzero(counts == 0), -(-num_images // 3), empty),
    ):
        if chosen := np.sort(generator.permutation(places)[:most]).tolist():
            about = f"{len(chosen):,} of {len(places):,} images of {dataset.name}, drawn at random. {text}"
            pictures = NONE.join(picture(dataset, index) for index in chosen)
            grid = Markup('<div class="grid pictures">{}</div>').format(pictures)
            sections.append(Section(title, paragraph(about) + grid))
    return sections


def picture(dataset: DetectionSet, index: int) -> Markup:
    """Return an image with its boxes and outlines as a figure; with the reason, where it cannot be read."""
    name = dataset.describe(index)
    try:
        image = dataset.read_image(index).numpy()
    except NasrayError as error:
        return Markup("<figure><figcaption>{}</figcaption></figure>").format(str(error))
    rows = range(*dataset.offsets[index : index + 2].tolist())
    small, scale = resized(_with_outlines(dataset, image, rows))
    classes = (*dataset.classes, *(f"{one} (ignored)" for one in dataset.classes))
    boxes = slice(rows.start, rows.stop)
    labels = dataset.labels[boxes] + len(dataset.classes) * dataset.ignored[boxes]
    drawn = draw_detections(small, dataset.boxes[boxes] * scale, labels.tolist(), None, classes)
    height, width = image.shape[1:]
    return figure(drawn, f"{name}: {width}×{height}, {len(rows)} box{'es' * (len(rows) != 1)}")


def _with_outlines(dataset: DetectionSet, image: NDArray[np.uint8], rows: Sequence[int]) -> NDArray[np.uint8]:
    """Return a (3, H, W) image with the objects that have an outline in the color of their class."""
    if dataset.segmentations is None:
        return image
    colored = image.astype(np.float32)
    for row in rows:
        try:
            mask = dataset.segmentations.mask(row, image.shape[1:])
        except FieldError:  # a defect of its own
            mask = None
        if mask is not None:
            color = np.array(class_color(int(dataset.labels[row])), dtype=np.float32)
            colored[:, mask > 0] = (1 - OPACITY) * colored[:, mask > 0] + OPACITY * color[:, None]
    return colored.round().astype(np.uint8)
